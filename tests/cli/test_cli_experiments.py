"""Experiments by name: listed, copied, trained, and a part of what is installed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.main import main
from deepscm_pl.cli.yaml_files import experiments

ROOT = Path(__file__).parents[2]


def test_every_experiment_is_listed_with_its_first_line(capsys):
    assert main(["experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = sorted(ROOT.glob("experiments/*/*.yaml"))
    assert len(lines) == len(files) > 30
    for line, path in zip(lines, files, strict=True):
        name, _, about = line.partition(" ")
        assert name == f"{path.parent.name}/{path.stem}"
        assert f"# {about.strip()}" == path.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("name", ["digits/full", "brain/best_scans"])
def test_a_copy_is_complete(name, tmp_path, capsys):
    path = tmp_path / "my.yaml"
    assert main(["experiments", name, "--out", str(path)]) == 0
    copied = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "base" not in copied
    assert copied == Configuration.read([str(ROOT / f"experiments/{name}.yaml")]).settings
    assert copied == Configuration.read([name]).settings
    assert os.listdir(tmp_path) == ["my.yaml"]


def test_a_file_is_not_replaced(tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text("mine")
    assert main(["experiments", "digits/full", "--out", str(path)]) == 1
    assert "exists; name a new file" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["experiments", "digits/full", "--out", str(tmp_path / "no" / "my.yaml")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["experiments", "--out", str(tmp_path / "other.yaml")]) == 1
    assert "expected the name of an experiment" in capsys.readouterr().err


def test_an_unknown_experiment_names_the_nearest(capsys):
    for words in (["experiments", "digit/ful"], ["fit", "--config", "digit/ful"]):
        assert main(words) == 1
        assert "did you mean 'digits/full'?" in capsys.readouterr().err
    assert main(["graph", "--config", "moon"]) == 1
    assert "deepscm experiments lists them" in capsys.readouterr().err


def test_a_graph_is_drawn_from_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["graph", "--config", "digits/full"]) == 0
    assert (tmp_path / "graph.svg").exists()


def test_the_wheel_contains_them(tmp_path):
    pytest.importorskip("setuptools")
    source, installed, empty = (tmp_path / name for name in ("source", "installed", "empty"))
    for folder in (source, empty):
        folder.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in ("deepscm_pl", "experiments"):
        (source / name).symlink_to(ROOT / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    for words in (["experiments", "digits/full"], ["fit", "--help"]):
        result = subprocess.run(
            [sys.executable, "-m", "deepscm_pl", *words],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "SplineFlow" in result.stdout or "--model.graph" in result.stdout
    found = sorted(path.name for path in (installed / "deepscm_pl/experiments").glob("*/*.yaml"))
    assert found == sorted(path.name for path in experiments().values())


@pytest.mark.skipif(os.name != "posix", reason="a pipe that closes")
def test_a_reader_that_has_read_enough_is_no_error():
    program = f"{sys.executable} -m deepscm_pl fit --help | head -1"
    result = subprocess.run(program, shell=True, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert result.stdout.startswith("usage: deepscm fit")


def test_another_broken_pipe_is_an_error(monkeypatch, capsys):
    def fail(*_):
        raise BrokenPipeError("a worker has died")

    monkeypatch.setattr(sys.modules["deepscm_pl.cli.main"], "_run_command", fail)
    assert main(["experiments"]) == 1
    assert "a worker has died" in capsys.readouterr().err
