"""Files that would run code when unpickled are refused before the code runs."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import pytest
import torch

from deepscm_pl.cli import main
from deepscm_pl.training import DeepSCM, ImageClassifier, export_model, load_data, read_checkpoint


class Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture(params=["pickle", "torch", "within a checkpoint", "as safetensors"])
def hostile(request, checkpoint, tmp_path):
    """A hostile file, and the one that it would create."""
    executed, path = tmp_path / "executed", tmp_path / "hostile.ckpt"
    if request.param == "torch":
        torch.save(Malicious(executed), path)
    elif request.param == "within a checkpoint":
        saved = torch.load(checkpoint, weights_only=True)
        torch.save({**saved, "extra": Malicious(executed)}, path)
    else:
        path = path if request.param == "pickle" else path.with_suffix(".safetensors")
        path.write_bytes(pickle.dumps(Malicious(executed)))
    return path, executed


def test_the_files_would_do_harm(hostile):
    path, executed = hostile
    if path.suffix == ".ckpt":
        with contextlib.suppress(RuntimeError):  # torch executes it, then misses its number
            torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert executed.exists()


@pytest.mark.parametrize(
    "read",
    [
        read_checkpoint,
        load_data,
        DeepSCM.load_from_checkpoint,
        ImageClassifier.load_from_checkpoint,
        lambda path: export_model(path, Path(path).with_name("out.safetensors")),
    ],
)
def test_reading_refuses_them(hostile, read):
    path, executed = hostile
    with pytest.raises(ValueError, match=r"refused|truncated or no safetensors"):
        read(path)
    assert not executed.exists()


@pytest.mark.parametrize(
    ("command", "configured"),
    [
        ("fit", False),
        ("fit", True),
        ("test", False),
        ("test", True),
        ("validate", False),
        ("predict", False),
        ("sample", False),
        ("export", False),
    ],
)
def test_the_program_refuses_them(hostile, run, tmp_path, capsys, command, configured):
    path, executed = hostile
    words = [command, "--ckpt_path", str(path)]
    if command == "sample":
        words += ["--out", str(tmp_path / "out")]
    elif command == "export":
        words += ["--out", str(tmp_path / "out.safetensors")]
    elif configured:
        words += ["--config", str(run[0].parents[1] / "tiny.yaml")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert any(text in error for text in ("is refused", "no safetensors", "an exported model"))
    assert "Traceback" not in error
    assert not executed.exists()
