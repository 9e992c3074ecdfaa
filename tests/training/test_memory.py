"""A long training needs no more memory than a short one."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from test_deep_scm import make

from deepscm_pl.callbacks import CounterfactualGrid, SampleGrid

from tiny import TinyDataModule

EPOCHS = 100
"""Of ten steps: a thousand, and a validation after each epoch."""

_MOST = 6 * 2**20
"""Bytes by which memory may differ; a tensor of a step that is kept would be more."""


class Memory(pl.Callback):
    """What the process holds after each epoch, in bytes."""

    def __init__(self):
        self.held = []

    def on_train_epoch_end(self, trainer, pl_module):
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.held.append(pages * 4096)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_over_a_thousand_steps(tmp_path):
    memory = Memory()
    grids = [
        CounterfactualGrid(["thickness=2"], num_images=2, every_n_epochs=20),
        SampleGrid(num_images=2, every_n_epochs=20),
    ]
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=TensorBoardLogger(tmp_path),
        max_epochs=EPOCHS,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*grids, memory],
    )
    trainer.fit(make(), datamodule=TinyDataModule(batch_size=6))
    assert trainer.global_step == 1000
    # The least of many: drawing takes some for a while.
    early, late = min(memory.held[20:50]), min(memory.held[70:])
    assert late - early < _MOST, [held // 2**20 for held in memory.held[::10]]
