"""What a training prints and keeps: precision, progress, and an evaluation that is switched off."""

import json
import os
import re
import struct
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from started import Forked

from deepscm_pl.cli import main
from deepscm_pl.runs import precision
from deepscm_pl.runs.noise import without_noise
from deepscm_pl.runs.precision import automatic_precision

from tiny import write_configuration

PROGRAM = "import sys; from deepscm_pl.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training whose output goes to files, and that does not evaluate."""
    root = tmp_path_factory.mktemp("output")
    words = ["fit", "--config", str(write_configuration(root))]
    words += ["--trainer.precision", "auto", "--trainer.enable_progress_bar", "true"]
    words += ["--evaluation.enabled", "false", "--trainer.default_root_dir", str(root)]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True
    )
    return root / "lightning_logs" / "version_0", result.stdout, result.stderr


def last_of(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def quantities(folder: Path) -> dict:
    return json.loads((folder / "association.json").read_text())["quantities"]


def test_the_output_is_of_use(trained):
    _, out, err = trained
    for noise in ("💡", "litlogger", "deprecated", "FLOPs", "GPU available", "LeafSpec"):
        assert noise not in out + err
    (line,) = [line for line in out.splitlines() if line.startswith("model: ")]
    assert line.startswith("model: 2,609 parameters, ")


def test_the_chosen_precision_is_printed_once_and_not_kept(trained):
    folder, out, _ = trained
    assert out.count("trainer.precision: auto, which is") == 1
    assert automatic_precision("cpu") in out
    assert "precision: auto" in (folder / "config.yaml").read_text()


def test_progress_in_a_file_is_a_line_per_epoch(trained):
    _, out, err = trained
    lines = [line for line in out.splitlines() if line.startswith("trained ")]
    assert 2 <= len(lines) <= 10
    assert any(line.startswith("trained 50 %: epoch 1 of 2, step ") for line in lines)
    assert lines[-1].startswith("trained 100 %: epoch 2 of 2, step ")
    assert "train bound " in lines[-1]
    assert "validation bound " in lines[-1]
    assert "\r" not in out + err
    assert "it/s" not in out + err


def test_progress_on_a_terminal_is_one_line_each(tmp_path):
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = ["fit", "--config", str(write_configuration(tmp_path))]
    words += ["--trainer.enable_progress_bar", "true", "--evaluation.enabled", "false"]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    code, shown = Forked("-m", "deepscm_pl", *words, output=(terminal, end)).wait()
    assert code == 0, shown
    states = [
        state
        for state in re.split(r"[\r\n]|\x1b\[A", shown)  # the last goes a line up
        if "it/s" in state
    ]
    assert any("Epoch 1" in state and "bound" in state for state in states)
    assert not any("v_num" in state for state in states)
    assert max(map(len, states)) <= 80, max(states, key=len)


def test_an_evaluation_that_is_switched_off_is_so_for_one_run(trained, tmp_path, capsys):
    folder, _, _ = trained
    assert not (folder / "evaluation").exists()
    assert "bound" in quantities(folder)
    assert not any("weighted" in name or "gain" in name for name in quantities(folder))
    kept = torch.load(last_of(folder), weights_only=True)["reports"]
    assert "enabled" not in kept["evaluation"]
    assert kept["association"]["num_importance_samples"] == 100
    words = ["--evaluation.rows", "20", "--evaluation.detail_rows", "4"]
    words += ["--evaluation.density_size", "20", "--evaluation.num_particles", "2"]
    words += ["--association.importance_rows", "4"]
    assert main(["test", "--ckpt_path", str(last_of(folder)), *words]) == 0
    assert (folder / "evaluation" / "evaluation.json").is_file()
    assert any("weighted" in name or "gain" in name for name in quantities(folder))


def test_a_checkpoint_that_remembers_off_evaluates(trained, tmp_path):
    saved = torch.load(last_of(trained[0]), weights_only=True)
    saved["reports"]["evaluation"]["enabled"] = False
    path = tmp_path / "checkpoints" / "old.ckpt"
    path.parent.mkdir()
    torch.save(saved, path)
    words = ["--evaluation.rows", "20", "--evaluation.detail_rows", "4"]
    words += ["--evaluation.density_size", "20", "--evaluation.num_particles", "2"]
    words += ["--association.num_importance_samples", "0"]
    assert main(["test", "--ckpt_path", str(path), *words]) == 0
    assert (tmp_path / "evaluation" / "evaluation.json").is_file()


@pytest.mark.parametrize("other", ["32-true", "64-true", "auto"])
def test_a_training_resumes_in_another_precision(trained, other, tmp_path):
    words = ["fit", "--config", str(write_configuration(tmp_path)), "--trainer.max_epochs", "3"]
    words += ["--trainer.precision", other, "--ckpt_path", str(last_of(trained[0]))]
    words += ["--evaluation.enabled", "false", "--trainer.default_root_dir", str(tmp_path)]
    assert main(words) == 0
    (path,) = tmp_path.glob("lightning_logs/*/checkpoints/last.ckpt")
    assert torch.load(path, weights_only=True)["epoch"] == 2


def test_an_unknown_precision_is_refused(tmp_path, capsys):
    words = ["fit", "--config", str(write_configuration(tmp_path)), "--trainer.precision", "half"]
    with pytest.raises(SystemExit):
        main(words)
    assert "precision" in capsys.readouterr().err


def test_precisions_are_those_of_lightning():
    annotation = pl.Trainer.__init__.__annotations__["precision"]
    hints = typing.get_type_hints(pl.Trainer.__init__) if isinstance(annotation, str) else {}
    known = hints.get("precision", annotation)
    literals = {value for part in typing.get_args(known) for value in typing.get_args(part)}
    assert set(typing.get_args(precision.Precision)) == literals | {"auto"}


@pytest.mark.parametrize(
    ("features", "limits", "chosen"),
    [
        ({"avx512_bf16": True}, {}, "bf16-mixed"),
        ({"amx_bf16": True, "avx512_bf16": False}, {}, "bf16-mixed"),
        ({"avx512_bf16": False, "avx2": True}, {}, "32-true"),
        ({"avx512_bf16": True}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "32-true"),
        ({"avx512_bf16": True}, {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, "32-true"),
        ({"avx512_bf16": True}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "bf16-mixed"),
        ({"avx512_bf16": True}, {"DNNL_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "32-true"),
        ({"avx512_bf16": True}, {"ATEN_CPU_CAPABILITY": "avx2"}, "32-true"),
        ({"avx512_bf16": True}, {"ATEN_CPU_CAPABILITY": "default"}, "32-true"),
        ({"avx512_bf16": True}, {"ATEN_CPU_CAPABILITY": "avx512"}, "bf16-mixed"),
        ({}, {}, "32-true"),
    ],
)
def test_the_precision_is_that_of_the_processor(features, limits, chosen, monkeypatch):
    for name in (*precision._INSTRUCTION_SET_LIMITS, "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert automatic_precision("cpu") == chosen
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert automatic_precision("auto") == chosen


def test_the_precision_is_that_of_the_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for computes, chosen in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation, computes=computes: (
                asked.append(including_emulation) or computes
            ),
        )
        assert automatic_precision("auto") == automatic_precision("cuda") == chosen
    assert set(asked) == {False}


def test_own_deprecations_and_other_warnings_are_shown():
    with pytest.warns(UserWarning, match="look"), without_noise():
        warnings.warn("look", UserWarning, stacklevel=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with without_noise():
            for module in ("torch.nn", "deepscm_pl.moved"):
                warnings.warn_explicit("old", DeprecationWarning, "a.py", 1, module)
    assert len(caught) == 1
    assert os.path.basename(caught[0].filename) == "a.py"


def test_progress_of_data_and_evaluation_is_silent_in_a_file(tmp_path, capfd):
    words = ["data", "brain", "--size", "10", "--shape", "32", "32", "--workers", "1"]
    assert main([*words, "--out", str(tmp_path / "heads")]) == 0
    printed = capfd.readouterr()
    assert "\r" not in printed.err
    assert "%|" not in printed.err
    assert "written:" in printed.out
