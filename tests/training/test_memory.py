"""A long training needs no more memory than a short one."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import pytest
import pytorch_lightning as pl
from matplotlib.figure import Figure
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


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that was made, so weakly that none is kept by it."""
    found = []
    begin = Figure.__init__

    def note(figure, *arguments, **settings):
        begin(figure, *arguments, **settings)
        found.append(weakref.ref(figure))

    monkeypatch.setattr(Figure, "__init__", note)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_neither_memory_grows_nor_a_figure_stays_over_a_thousand_steps(tmp_path, drawn):
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
    gc.collect()
    assert len(drawn) == len(grids) * EPOCHS // 20
    assert [figure() for figure in drawn if figure() is not None] == []
