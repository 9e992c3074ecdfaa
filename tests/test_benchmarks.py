from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_TINY = {
    "train_step.py": "--batch 2 --rounds 1 --steps 1 --particles 1 2",
    "epoch.py": "--images 4 --batch 2 --rounds 1",
    "counterfactual.py": "--images 1 --particles 2 --interventions 2 --rounds 1",
    "generate.py": "--images 2 --naive 1 --heads 2 --size 32",
    "options.py": "--batch 2 --rounds 1 --steps 1 --options fused bf16 channels_last",
    "scaling.py": "--steps 1 --batch 2 --doublings 2 --images 4 --rounds 1",
}


def test_every_benchmark_is_run_here():
    scripts = {path.name for path in (_ROOT / "benchmarks").glob("*.py")}
    assert scripts == {*_TINY, "measuring.py"}


@pytest.mark.parametrize("script", _TINY)
def test_prints_lines_of_json_with_finite_numbers(script, tmp_path):
    figures = [json.loads(line) for line in _run(script, tmp_path).splitlines()]

    assert len({figure["figure"] for figure in figures}) == len(figures) > 0
    for figure in figures:
        numbers = [value for name, value in figure.items() if name != "figure"]
        assert numbers
        assert all(math.isfinite(number) for number in numbers)


def _run(script, folder):
    done = subprocess.run(
        [sys.executable, str(_ROOT / "benchmarks" / script), *_TINY[script].split()],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
