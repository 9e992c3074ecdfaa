"""A callback that interrupts a training in realistic ways."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytorch_lightning as pl
import torch

from deepscm_pl.runs import checkpoint_files


class Interrupt(pl.Callback):
    """Interrupt a training in a given way before the training step with a given number."""

    def __init__(self, how: str, step: int) -> None:
        self.how = how
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            getattr(self, self.how)(trainer)

    def on_test_end(self, trainer, pl_module):
        if self.how == "terminate_the_report":
            os.kill(os.getpid(), signal.SIGTERM)
            (Path(trainer.default_root_dir) / "survived").touch()

    def on_test_batch_end(self, trainer, *_):
        who = {"terminate_the_first_in_test": 0, "terminate_the_second_in_test": 1}
        if trainer.global_rank == who.get(self.how):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_end(self, trainer, *_):
        who = {"terminate_the_validation": (0, 1), "terminate_the_validation_of_the_second": (1,)}
        if trainer.global_step == self.step and trainer.global_rank in who.get(self.how, ()):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_end(self, trainer, pl_module):
        late = self.how == "terminate_the_second_after_validation"
        if late and trainer.global_step == self.step and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def terminate_the_second_after_validation(self, trainer):
        pass

    def terminate_the_validation(self, trainer):
        pass

    def terminate_the_validation_of_the_second(self, trainer):
        pass

    def kill(self, trainer):
        os.kill(os.getpid(), signal.SIGKILL)

    def press_ctrl_c(self, trainer):
        raise KeyboardInterrupt

    def terminate(self, trainer):
        os.kill(os.getpid(), signal.SIGTERM)

    def kill_while_saving(self, trainer):
        def write_half(checkpoint, path):
            torch.save(checkpoint, path)
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoint_files._write_checkpoint = write_half

    def fill_the_disk(self, trainer):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    def remove_the_folder(self, trainer):
        shutil.rmtree(Path(trainer.log_dir) / "checkpoints")

    def kill_the_second(self, trainer):
        """Kill the second process while the first waits without a timeout, as on GPUs."""
        if trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    def kill_the_second_alone(self, trainer):
        """Kill the second process while the first continues and requests its gradients."""
        if trainer.global_rank == 1:
            (Path(trainer.default_root_dir) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def kill_the_first(self, trainer):
        if trainer.global_rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    def terminate_the_second(self, trainer):
        if trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def fail_in_the_second(self, trainer):
        if trainer.global_rank == 1:
            raise ValueError("the second process is out of luck.")

    def kill_a_worker(self, trainer):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
