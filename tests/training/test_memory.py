"""A long training needs no more memory than a short one."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref

import pytest
import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger
from test_deep_scm import make

from deepscm_pl.callbacks import CounterfactualGrid, SampleGrid

from tiny import TinyDataModule

EPOCHS = 12
"""Epochs of ten steps, with a validation after each."""

_MOST = 2**18
"""Bytes by which memory may differ after sixty steps."""

_BLOCK = 64
"""Approximate number of bytes of a Python object."""


class _HeapInUse(ctypes.Structure):
    """The result of ``mallinfo2`` of the GNU C library."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


_LIBRARY = ctypes.CDLL(None)
_CAN_TELL = hasattr(_LIBRARY, "mallinfo2")
if _CAN_TELL:
    _LIBRARY.mallinfo2.restype = _HeapInUse


class Memory(pl.Callback):
    """Record the memory in use after each epoch, in bytes, without free memory of the process."""

    def __init__(self):
        self.held = []

    def on_train_epoch_end(self, trainer, pl_module):
        gc.collect()
        heap = _LIBRARY.mallinfo2()
        self.held.append(heap.uordblks + heap.hblkhd + _BLOCK * sys.getallocatedblocks())


@pytest.fixture
def only_new_objects():
    """Exclude the present objects from garbage collection, which is then faster."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def drawn(monkeypatch):
    """Weak references to every figure that was made."""
    found = []
    begin = Figure.__init__

    def note(figure, *arguments, **settings):
        begin(figure, *arguments, **settings)
        found.append(weakref.ref(figure))

    monkeypatch.setattr(Figure, "__init__", note)
    return found


@pytest.mark.skipif(not _CAN_TELL, reason="asks the GNU C library what is in use")
@pytest.mark.usefixtures("only_new_objects")
def test_neither_memory_grows_nor_a_figure_stays_over_many_steps(tmp_path, drawn):
    memory = Memory()
    grids = [
        CounterfactualGrid(["thickness=2"], num_images=2, every_n_epochs=3),
        SampleGrid(num_images=2, every_n_epochs=3),
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
    assert trainer.global_step == 120
    # The least of many: drawing takes some for a while.
    early, late = min(memory.held[3:6]), min(memory.held[9:])
    assert late - early < _MOST, [held // 2**10 for held in memory.held]
    gc.collect()
    # A figure of each, and its small form for TensorBoard.
    assert len(drawn) == 2 * len(grids) * EPOCHS // 3
    assert [figure() for figure in drawn if figure() is not None] == []
