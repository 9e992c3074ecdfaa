"""Simulated kills of trainings within one process: nothing written after the kill is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.loggers.logger import Logger

from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.runs.checkpoint_files import (
    AtomicCheckpointIO,
    RunCheckpoint,
    read_last_checkpoint,
    steps_of,
)
from deepscm_pl.training import DeepSCM, OneCycle
from deepscm_pl.transforms import Interval, Positive

from tiny import TinyDataModule

STEPS = 4
"""Steps per epoch: 60 rows in batches of 16."""


class Killed(BaseException):
    """Raised to end a training as a kill of its process would."""


@dataclass(frozen=True)
class Kill:
    """The moment of a kill.

    Attributes:
        moment: ``step``, before the training step with the number ``step``; ``validation``, after a
            batch of the validation after this step; ``saving``, when half of the first
            checkpoint of this step is written; ``saved``, right after it has been renamed.
        step: Number of completed steps.
    """

    moment: str
    step: int


class Curves(Logger):
    """Logger that appends each point to a file without delay, with the format of TensorBoard.

    Args:
        folder: Folder of the file.
        purge_step: First step that is logged from now on; older points after it are hidden.
    """

    name, version = "curves", 0

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        super().__init__()
        self.path = folder / "curves.jsonl"
        if purge_step is None:  # a run that begins anew has a folder of its own
            self.path.unlink(missing_ok=True)
        else:
            self._append([purge_step])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in sorted(metrics.items()):
            if name != "epoch":
                self._append([step, name, value])

    def _append(self, line: list[object]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def curves_of(folder: Path) -> list[tuple[int, str, float]]:
    """Visible points, in order."""
    shown: list[tuple[int, str, float]] = []
    for line in (folder / "curves.jsonl").read_text().splitlines():
        point = json.loads(line)
        if len(point) == 1:
            shown = [each for each in shown if each[0] < point[0]]
        else:
            shown.append(tuple(point))
    return sorted(shown)


class Killer(pl.Callback):
    """Simulate a kill at a given moment, after copying the state of the disk."""

    def __init__(self, kill: Kill, folder: Path) -> None:
        self.kill = kill
        self.folder = folder
        self.done = False

    def strike(self) -> None:
        """Copy the state of the disk and end the training."""
        self.done = True
        shutil.copytree(self.folder, kept(self.folder), symlinks=True)
        raise Killed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.kill.moment == "step" and trainer.global_step == self.kill.step:
            self.strike()

    def on_validation_batch_end(self, trainer, *_):
        reached = trainer.global_step == self.kill.step and not trainer.sanity_checking
        if self.kill.moment == "validation" and reached:
            self.strike()


class DeadlyIO(AtomicCheckpointIO):
    """Simulate a kill while a checkpoint is written, or right after."""

    def __init__(self, killer: Killer) -> None:
        super().__init__()
        self.killer = killer

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        kill = self.killer.kill
        strikes = checkpoint["global_step"] == kill.step and not self.killer.done
        if strikes and kill.moment == "saving":
            Path(path).parent.mkdir(exist_ok=True)
            half = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.partial")
            torch.save(checkpoint, half)
            os.truncate(half, half.stat().st_size // 2)
            self.killer.strike()
        super().save_checkpoint(checkpoint, path, storage_options)
        if strikes and kill.moment == "saved":
            self.killer.strike()


def kept(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-kept")


def restore_kept(folder: Path) -> None:
    """Restore a folder to its state at the kill."""
    shutil.rmtree(folder)
    kept(folder).rename(folder)


@dataclass(frozen=True)
class Run:
    """A training that may be killed and resumed.

    Attributes:
        checkpoint: Settings of the checkpoint callback.
        trainer: Settings of the trainer.
        averaged: Whether weights are averaged.
        scheduler: Factory of the learning-rate schedule.
        epochs: Number of epochs.
        batch_size: Rows per batch.
        callbacks: Additional callbacks.
    """

    checkpoint: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    averaged: bool = False
    scheduler: Any = OneCycle
    epochs: int = 3
    batch_size: int = 16
    callbacks: Sequence[pl.Callback] = ()

    def survive(self, folder: Path, kills: Sequence[Kill]) -> tuple[dict[str, Any], int]:
        """Train and resume after each kill; the last checkpoint and the number of kills."""
        for number, kill in enumerate(kills):
            try:
                return self.fit(folder, kill), number  # the moment of the kill was not reached
            except Killed:
                restore_kept(folder)
        return self.fit(folder), len(kills)

    def fit(self, folder: Path, kill: Kill | None = None) -> dict[str, Any]:
        """Train from the last checkpoint, if any, and return the new last checkpoint."""
        folder.mkdir(exist_ok=True)
        found = read_last_checkpoint([folder / "checkpoints"])
        checkpoint = None if found is None else found[0]
        step = None if checkpoint is None else steps_of(checkpoint)
        killer = None if kill is None else Killer(kill, folder)
        trainer = pl.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=Curves(folder, step),
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=self.epochs,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            callbacks=[*self._callbacks(folder, step), *([killer] if killer else [])],
            **self.trainer,
        )
        if killer is not None:
            trainer.strategy.checkpoint_io = DeadlyIO(killer)
        torch.rand(3)  # what is drawn before does not matter
        model, data = self._model(), TinyDataModule(batch_size=self.batch_size)
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return read_last_checkpoint([folder / "checkpoints"])[1]

    def _callbacks(self, folder: Path, step: int | None) -> list[pl.Callback]:
        settings = {"monitor": None, "save_last": True, "filename": "epoch={epoch}"}
        settings |= {"dirpath": folder / "checkpoints", "enable_version_counter": step is None}
        settings["auto_insert_metric_name"] = False
        saver = RunCheckpoint(**settings | self.checkpoint)
        averages = [EMAWeightAveraging(decay=0.8, use_buffers=False)] if self.averaged else []
        return [*averages, saver, *self.callbacks]

    def _model(self) -> DeepSCM:
        torch.manual_seed(0)
        mechanisms = {
            "thickness": partial(AffineFlow, constraint=Positive),
            "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
        }
        return DeepSCM("thickness -> intensity", mechanisms, scheduler=self.scheduler)
