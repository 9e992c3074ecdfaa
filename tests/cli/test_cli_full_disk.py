"""A full disk ends in one line that names the file and what is safe."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger

from deepscm_pl.callbacks import CounterfactualGrid, figure_callback
from deepscm_pl.cli import main
from deepscm_pl.cli.main import _message_of
from deepscm_pl.cli.runs import RunLogger
from deepscm_pl.data import DigitsDataModule, digits
from deepscm_pl.figures import save_figure
from deepscm_pl.files import DiskFullError, is_disk_full, new_file, new_folder, replaced_folder
from deepscm_pl.runs.checkpoint_files import AtomicCheckpointIO
from deepscm_pl.training import DeepSCM

from tiny import TinyDataModule

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def files_of_at_most(size: int):
    """No file can grow beyond ``size`` bytes: for a writer the same as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["sample", "--size", "40"], 800),  # the table
        (["sample"], 3000),  # the picture
        (["sample", "--npz", "--size", "100"], 20_000),  # the arrays
        (["counterfactual", "--index", "0", "--do", "thickness=3"], 60),  # an image
        (["counterfactual", "--index", "0", "--do", "thickness=3", "--format", "nifti"], 60),
    ],
)
def test_answers_are_complete_or_not_there(checkpoint, tmp_path, capsys, words, size):
    out = tmp_path / "answers"
    with files_of_at_most(size):
        status = main([*words, "--ckpt_path", str(checkpoint), "--out", str(out)])
    error = capsys.readouterr().err
    assert status == 1
    assert error == (
        f"deepscm {words[0]}: {out} could not be written (File too large); nothing was written "
        "there. Make room, or write to another disk.\n"
    )
    assert not list(tmp_path.iterdir())


def test_pictures_and_data_sets(tmp_path, capsys):
    kept = tmp_path / "graph.png"
    assert main(["graph", "--edges", "a", "--out", str(kept)]) == 0
    before = kept.read_bytes()
    with files_of_at_most(500):
        assert main(["graph", "--edges", "a -> b", "--out", str(kept)]) == 1
        assert f"{kept} could not be written (File too large); the previous content is intact" in (
            capsys.readouterr().err
        )
        data = ["data", "brain", "--shape", "16", "16", "--size", "10", "--workers", "1"]
        assert main([*data, "--out", str(tmp_path / "data")]) == 1
        assert f"{tmp_path / 'data'} could not be written (File too large); nothing was" in (
            capsys.readouterr().err
        )
    assert kept.read_bytes() == before
    assert list(tmp_path.iterdir()) == [kept]


def test_exported_models(checkpoint, tmp_path, capsys):
    with files_of_at_most(1000):
        words = ["export", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "m.safetensors")]
        assert main(words) == 1
    assert "m.safetensors cannot be written (" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def write_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(5000))


def write_tensor(path):
    with path.open("wb") as file:
        torch.save(torch.zeros(5000), file)


def write_bytes(path):
    path.write_bytes(bytes(5000))


def in_new_file(path, write):
    with new_file(path) as temporary:
        write(temporary)


def in_new_folder(path, write):
    with new_folder(path) as folder:
        in_new_file(folder / "x", write)


def in_replaced_folder(path, write):
    with replaced_folder(path) as folder:
        write(folder / "x")


@pytest.mark.parametrize("write", [write_array, write_tensor, write_bytes])
@pytest.mark.parametrize(
    ("place", "kept"),
    [
        (in_new_file, "the previous content is intact"),
        (in_new_folder, "nothing was written there"),
        (in_replaced_folder, "the previous content is intact"),
    ],
)
def test_every_writer_names_what_it_writes(tmp_path, place, kept, write):
    """Whatever the library that writes makes of the error."""
    path = tmp_path / "results"
    expected = rf"^{path} could not be written \(.*\); {kept}\. Make room"
    with files_of_at_most(1000), pytest.raises(DiskFullError, match=expected):
        place(path, write)
    assert not list(tmp_path.iterdir())


def test_checkpoints_tell_it_once(tmp_path):
    expected = r"the checkpoint .*c\.ckpt could not be written \([^()]*too large[^()]*\); earlier"
    writer = AtomicCheckpointIO()
    with files_of_at_most(1000), pytest.raises(OSError, match=expected):
        writer.save_checkpoint({"x": torch.zeros(5000)}, tmp_path / "c.ckpt")
    assert not list(tmp_path.iterdir())


def test_other_errors_stay(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        in_new_file(tmp_path / "x", lambda path: path.with_name("none").read_bytes())
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, "none"))
    assert not is_disk_full(RuntimeError("shapes differ"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^path: .* cannot be written \(.*exists"):
        save_figure(Figure(), tmp_path / "file" / "x.png")


def test_what_only_the_system_says_is_told():
    """Wherever else a disk is full."""
    assert _message_of(FULL) == (
        f"the disk is full ({FULL}); files that were complete before are unchanged."
    )
    assert _message_of(PermissionError("x")) == "x"


class _SavesCheckpoints(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "end.ckpt")


def test_a_training_goes_on_without_a_picture(checkpoint, tmp_path, monkeypatch):
    """With a warning, once; a test ends."""
    monkeypatch.setattr(figure_callback, "save_figure", _full)
    model, data = DeepSCM.load_from_checkpoint(checkpoint), TinyDataModule()
    grid = CounterfactualGrid(interventions=["thickness=2"], every_n_epochs=1, num_images=1)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[grid, _SavesCheckpoints()],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, data)
    told = [str(each.message) for each in caught if "continues without" in str(each.message)]
    assert len(told) == 1
    assert "without the picture counterfactual-image-epoch=0.png" in told[0]
    assert "No space left on device" in told[0]
    assert grid.written == []
    assert (tmp_path / "end.ckpt").is_file()
    with pytest.raises(OSError, match="No space"):
        trainer.test(model, data, verbose=False)


def _full(*arguments, **settings):
    raise FULL


def test_a_logger_names_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", _full)
    logger = RunLogger(str(tmp_path))
    assert logger.version == 0
    with pytest.raises(
        DiskFullError, match=r"version_0 could not .*--ckpt_path last resumes from them"
    ):
        logger.log_metrics({"x": 1.0}, 0)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Digits that are drawn in no time, and the file that they are kept in."""
    size = digits._DIGIT_COUNT
    drawn = {
        "thickness": torch.ones(size, 1),
        "intensity": torch.ones(size, 1),
        "image": torch.zeros(size, 1, 28, 28, dtype=torch.uint8),
        "label": torch.zeros(size, 1, dtype=torch.int64),
    }
    monkeypatch.setattr(digits, "_draw_digits", lambda: drawn)
    return drawn, tmp_path / f"digits-{digits.DRAWING_VERSION}.pt"


@pytest.mark.parametrize(
    "change",
    [
        {"image": torch.zeros(1797, 1, 20, 20, dtype=torch.uint8)},
        {"image": torch.zeros(1797, 1, 28, 28)},
        {"thickness": torch.ones(1797)},
        {"thickness": torch.full((1797, 1), torch.nan)},
        {"label": torch.zeros(3, 1, dtype=torch.int64)},
        {"intensity": [1.0]},
    ],
)
def test_digits_of_another_form_are_drawn_again(cached, tmp_path, change):
    drawn, path = cached
    torch.save({**drawn, **change}, path)
    module = DigitsDataModule(cache_dir=tmp_path)
    module.setup()
    assert module.variables("test")["image"].shape == (360, 1, 28, 28)
    assert bool(module.variables("train")["thickness"].isfinite().all())
    kept = torch.load(path, weights_only=True)
    assert [kept[name].dtype for name in drawn] == [drawn[name].dtype for name in drawn]
    assert all(torch.equal(kept[name], drawn[name]) for name in drawn)


def test_a_full_disk_costs_the_cache_of_digits_alone(cached, tmp_path):
    with files_of_at_most(1000):
        DigitsDataModule(cache_dir=tmp_path).setup()
    assert not list(tmp_path.iterdir())
