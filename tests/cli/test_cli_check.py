"""``deepscm check`` writes a page with one verdict for each item."""

from __future__ import annotations

import json

import pytest
import yaml

from deepscm_pl.cli import main

from tiny import CONFIGURATION

QUICK = ["--permutations", "2"]


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(CONFIGURATION))
    return path


def test_a_configuration_is_checked_before_training(configuration, tmp_path, capsys):
    out = tmp_path / "check"
    words = ["check", "--config", str(configuration), "--out", str(out), *QUICK]
    assert main([*words, "--do", "thickness=3", "intensity=100, thickness=5"]) == 0
    printed = capsys.readouterr().out
    assert "not testable" in printed
    assert "written: " in printed
    found = json.loads((out / "check.json").read_text())
    assert set(found["overlap"]) == {"thickness=3", "intensity=100, thickness=5"}
    assert found["graph"]["edges"][0]["shown"]
    assert found["noise"] == {}
    page = (out / "check.md").read_text()
    assert "- **leakage**: none: no row is in more than one split." in page
    for picture in out.glob("*.png"):
        assert f"({picture.name})" in page
    assert (out / "graph.png").is_file()


def test_a_checkpoint_is_checked_with_its_noise(checkpoint, tmp_path, capsys):
    out = tmp_path / "check"
    assert main(["check", "--ckpt_path", str(checkpoint), "--out", str(out), *QUICK]) == 0
    found = json.loads((out / "check.json").read_text())
    assert set(found["noise"]) >= {"thickness/u", "intensity/u"}
    assert (out / "noise.png").is_file()
    assert "noise" in capsys.readouterr().out


def refused(words, capsys) -> str:
    assert main(words) != 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "has no section model"),
        ({"data": None}, "has no section data"),
        ({"model": {"class_path": "ImageClassifier"}}, "expected a causal model"),
    ],
)
def test_configurations_of_something_else_are_refused(change, message, tmp_path, capsys):
    settings = {k: v for k, v in {**CONFIGURATION, **change}.items() if v is not None}
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(settings))
    out = tmp_path / "check"
    assert message in refused(["check", "--config", str(path), "--out", str(out)], capsys)
    assert not out.exists()


def test_bad_input_is_one_line(configuration, tmp_path, capsys):
    words = ["check", "--config", str(configuration), "--out", str(tmp_path / "check")]
    assert "thicknes" in refused([*words, "--do", "thicknes=3"], capsys)
    assert "level" in refused([*words, "--level", "2"], capsys)
    assert "permutations" in refused([*words, "--permutations", "-1"], capsys)
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "mine.txt").write_text("")
    assert "not an empty folder" in refused(words, capsys)


def test_a_graph_with_a_variable_that_the_data_lack(tmp_path, capsys):
    model = CONFIGURATION["model"]
    mechanisms = {**model["mechanisms"], "weight": "deepscm_pl.AffineFlow"}
    changed = {**model, "graph": f"{model['graph']}; weight", "mechanisms": mechanisms}
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**CONFIGURATION, "model": changed}))
    words = ["check", "--config", str(path), "--out", str(tmp_path / "check")]
    assert "but got weight" in refused(words, capsys)
