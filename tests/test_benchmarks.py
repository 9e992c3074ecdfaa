from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from started import Forked

_ROOT = Path(__file__).parents[1]
_TINY = {
    "train_step.py": "--batch 2 --rounds 1 --steps 1 --particles 1 2",
    "epoch.py": "--images 4 --batch 2 --rounds 1",
    "counterfactual.py": "--images 1 --particles 2 --interventions 2 --rounds 1",
    "generate.py": "--images 2 --naive 1 --heads 2 --size 32 --files 10 --workers 1 --rounds 1",
    "options.py": "--batch 2 --rounds 1 --steps 1 --options fused bf16 channels_last",
    "scaling.py": "--steps 1 --batch 2 --doublings 2 --images 4 --rounds 1",
    "mechanisms.py": "--pixels 8 --batch 4 --rows 8 --images 2 --rounds 1 --steps 1 "
    "--solver-steps 1 8",
}
_ON_DEVICES = ("train_step.py", "epoch.py", "scaling.py", "mechanisms.py", "time_to_bound.py")
_SHARED = (
    "devices.py",
    "figures.py",
    "measuring.py",
    "plain.py",
    "table_learners.py",
    "table_worlds.py",
)
_LONG = ("time_to_bound.py", "tabular.py", "missing_values.py")
_HAS_GPU = torch.cuda.is_available()


def test_every_benchmark_is_tested():
    scripts = {path.name for path in (_ROOT / "benchmarks").glob("*.py")}
    assert scripts == {*_TINY, *_LONG, *_SHARED}


@pytest.mark.parametrize("script", _TINY)
def test_prints_finite_numbers_and_fails_if_a_ratio_is_too_low(script, tmp_path):
    # All results are printed before a ratio is refused, so one run is enough.
    code, printed, errors = _run(tmp_path, script, f"{_TINY[script]} --at-least 1000000")
    figures = [json.loads(line) for line in printed.splitlines()]
    complaint = errors.splitlines()[-1]

    assert len({figure["figure"] for figure in figures}) == len(figures) > 0, errors
    for figure in figures:
        numbers = [value for name, value in figure.items() if name != "figure"]
        assert numbers
        assert all(math.isfinite(number) for number in numbers)
    ratios = [
        f"{name} of {figure['figure']} is {figure[name]}"
        for figure in figures
        for name in figure
        if name.startswith("speed_over_")
    ]
    assert ratios
    assert code == 1
    assert complaint == f"expected at least 1e+06, but {', '.join(ratios)}"


def test_passes_if_every_ratio_is_high_enough(tmp_path):
    code, _, errors = _run(tmp_path, "generate.py", f"{_TINY['generate.py']} --at-least 0.001")

    assert code == 0, errors
    assert errors == ""


def test_only_low_ratios_are_named(capsys):
    figures = _load("figures").Figures(at_least=0.95)
    figures.report("good", speed_over_plain=0.95, images_per_second=0.1)
    figures.check()
    figures.report("bad", speed_over_plain=0.9444444, images_per_second=9.0)
    figures.report("worse", speed_over_plain=math.nan)

    with pytest.raises(SystemExit) as ended:
        figures.check()

    assert ended.value.code == (
        "expected at least 0.95, but speed_over_plain of bad is 0.9444, "
        "speed_over_plain of worse is nan"
    )
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(("bound", "is_reached"), [("-1000000000", True), ("-1.0", False)])
def test_time_to_bound_reports_whether_the_bound_was_reached(bound, is_reached, tmp_path):
    epochs = 2 if is_reached else 1
    words = f"--bound {bound} --max_epochs {epochs}"
    code, printed, errors = _run(tmp_path, "time_to_bound.py", words)
    assert code == 0, errors
    (line,) = printed.splitlines()
    found = json.loads(line)

    assert 0 < found.pop("seconds") < math.inf
    assert (found.pop("last_bound") > float(bound)) == is_reached
    assert found == {
        "benchmark": "time_to_bound",
        "reached": is_reached,
        "epochs": 1,
        "bound": float(bound),
        "device": "cpu",
    }


def test_time_to_bound_names_a_missing_folder(tmp_path):
    code, _, errors = _run(tmp_path, "time_to_bound.py", "--root missing")

    assert code == 1
    assert errors.splitlines()[-1].startswith("root missing is missing, or not a folder;")


@pytest.mark.skipif(_HAS_GPU, reason="there is a GPU here, so that cuda is not refused")
@pytest.mark.parametrize("script", _ON_DEVICES)
def test_refuses_cuda_without_a_gpu(script, tmp_path):
    code, printed, errors = _run(tmp_path, script, "--device cuda")

    assert code == 2
    assert printed == ""
    assert errors.splitlines()[-1] == (
        f"{script}: error: argument --device: expected cpu, because PyTorch finds no CUDA device "
        "here, but got 'cuda'; leave --device out, or use a machine with a GPU and a PyTorch for it"
    )


@pytest.mark.parametrize("number", [0, 3])
def test_refuses_more_processes_than_images(number, tmp_path):
    code, _, errors = _run(tmp_path, "scaling.py", f"--batch 2 --processes 1 {number}")

    assert code == 2
    assert errors.splitlines()[-1] == (
        "scaling.py: error: argument --processes: expected numbers from 1 to 2, an image of the "
        f"batch for each, but got {number}; leave it out"
    )


class _StandInGPU:
    """The part of ``torch.cuda`` that measurements use."""

    def __init__(self, monkeypatch) -> None:
        self.waits = 0
        answers = {
            "is_initialized": lambda: True,
            "synchronize": self._wait,
            "reset_peak_memory_stats": lambda: None,
            "current_device": lambda: 1,
            "get_device_name": lambda: "a GPU",
            "max_memory_allocated": lambda: 3 * 2**20,
            "utilization": lambda number: {1: 50}[number],
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    def _wait(self) -> None:
        self.waits += 1


def test_timings_synchronise_with_the_gpu(monkeypatch):
    gpu = _StandInGPU(monkeypatch)

    _load("devices").clock()

    assert gpu.waits == 1


def test_the_use_of_a_gpu_is_measured(monkeypatch):
    _StandInGPU(monkeypatch)
    runs = []

    found = _load("devices").usage(lambda: runs.append(0), torch.device("cuda"), least=0.5)

    assert runs
    assert found == {"device": "a GPU", "peak_mebibytes": 3.0, "utilisation_percent": 50.0}


def test_the_use_of_a_gpu_is_measured_without_its_utilisation(monkeypatch):
    _StandInGPU(monkeypatch)
    monkeypatch.delattr(torch.cuda, "utilization")

    found = _load("devices").usage(lambda: None, torch.device("cuda"), least=0.5)

    assert found == {"device": "a GPU", "peak_mebibytes": 3.0}


def test_no_command_is_run_for_the_use_of_a_cpu():
    runs = []

    assert _load("devices").usage(lambda: runs.append(0), torch.device("cpu")) == {}
    assert not runs


def _run(folder, script, words):
    """Exit code, output and errors."""
    program = str(_ROOT / "benchmarks" / script)
    return Forked(program, *words.split(), folder=folder, apart=True).wait()


def _load(name):
    """Import a module of the benchmarks that imports no other of them."""
    specification = importlib.util.spec_from_file_location(
        f"benchmarks_{name}", _ROOT / "benchmarks" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
