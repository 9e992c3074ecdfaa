"""``deepscm test --protocol NAME --compare``: models side by side."""

from __future__ import annotations

import json
import math

import pytest

from deepscm_pl.cli import main
from deepscm_pl.evaluation import Estimate
from deepscm_pl.evaluation.protocols import Figure, ProtocolResult
from deepscm_pl.reports.comparison import comparison_tables, read_protocols, summary
from deepscm_pl.reports.protocols import write_protocol

THICKER, BRIGHTER = "do(thickness ~ train)", "do(intensity ~ train)"


def figure(intervention, variable, quantity, mean, unit="", judge="", **fields):
    estimate = Estimate(mean, math.nan, 10)
    return Figure(intervention, variable, quantity, unit, judge, estimate, **fields)


def result(scale=1.0, protocol="ours", **fields):
    error, ratio = "mean absolute error", "error ÷ doing nothing"
    figures = [
        figure(THICKER, "thickness", error, 0.2 * scale, "px", "morphometry", floor=0.1),
        figure(THICKER, "thickness", error, 0.9, "px", "network"),
        figure(BRIGHTER, "thickness", error, 0.3, "px", "morphometry"),
        figure("do(digit ~ train)", "thickness", error, 0.4, "px", "morphometry"),
        figure("do(digit ~ train)", "digit", "accuracy", 0.95, "", "network"),
        figure(THICKER, "digit", "accuracy", 0.99, "", "network"),
        figure(BRIGHTER, "digit", "accuracy", 0.98, "", "network"),
        figure(THICKER, "image", ratio, 0.1),
        figure(BRIGHTER, "image", ratio, 0.3),
        figure("do(thickness = 5 px)", "image", ratio, 0.6),
        figure(BRIGHTER, "image", "error after 1 cycle", 0.1, "grey levels"),
        figure(BRIGHTER, "image", "error after 10 cycles", 2.0, "grey levels"),
        figure(THICKER, "image", "error after 10 cycles", 1.0, "grey levels", published=4.0),
        figure("", "image", "bits per dimension", 1.25),
        figure("", "image", "parameters", 1_530_000.0),
    ]
    return ProtocolResult(protocol, figures, 10, 20, [0, 1], ["a note"], **fields)


def test_the_summary_has_a_number_for_each_question():
    assert summary(result()) == {
        "thickness under do(thickness ~ train), px": "0.2",
        "thickness under others, at worst, px": "0.4",
        "digit under do(digit ~ train)": "0.95",
        "digit under others, at worst": "0.98",
        "error ÷ doing nothing, values of the data": "0.2",
        "error ÷ doing nothing, do(thickness = 5 px)": "0.6",
        "error after 10 cycles, at worst, grey levels": "2",
        "bits per dimension": "1.25",
        "parameters": "1.53 million",
    }


def test_results_can_be_read_again(tmp_path):
    before = result(judges={"digit": "abc"}, weights="def")
    write_protocol(before, tmp_path)
    assert read_protocols([tmp_path], "ours")[tmp_path.name].as_plain_data() == (
        before.as_plain_data()
    )


def test_models_have_columns_and_figures_have_rows():
    first, second = comparison_tables({"flow": result(), "vae": result(2.0)})
    assert first.columns == ["figure", "flow", "vae"]
    assert first.rows[0] == ["thickness under do(thickness ~ train), px", "0.2", "0.4"]
    assert len(first.rows) == 9
    assert len(second.rows) == 15
    assert list(second.columns[4:]) == [
        "floor",
        "flow",
        "flow, as published",
        "vae",
        "vae, as published",
    ]


@pytest.fixture
def tested(tmp_path):
    """Folders of two models that were tested."""
    found = []
    for name, each in (("flow", result(judges={"digit": "a"})), ("vae", result(2.0))):
        (tmp_path / name).mkdir()
        write_protocol(each, tmp_path / name)
        found.append(str(tmp_path / name))
    return found


def test_the_command_writes_one_table(tested, tmp_path, capsys):
    words = ["test", "--protocol", "ours", "--compare", *tested]
    assert main([*words, "--out", str(tmp_path / "all")]) == 0
    out = capsys.readouterr().out
    assert "different judges" in out
    text = (tmp_path / "all" / "comparison.md").read_text(encoding="utf-8")
    assert "| thickness under do(thickness \\~ train), px | 0.2 | 0.4 |" in text
    assert "tested with different judges; compare them with care" in text
    lines = (tmp_path / "all" / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "figure,flow,vae"
    assert len(lines) == 10
    assert main(words) == 0


def test_other_folders_are_refused(tested, tmp_path, capsys):
    def error(*folders, protocol="ours"):
        assert main(["test", "--protocol", protocol, "--compare", *map(str, folders)]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "expected figures of rasal, but flow has those of ours" in error(
        tested[0], protocol="rasal"
    )
    assert "expected one of causal-gen" in error(tested[0], protocol="theirs")
    assert "expected a folder with protocol.json" in error(tmp_path)
    assert "one is given twice" in error(tested[0], tested[0])
    (tmp_path / "protocol.json").write_text(json.dumps({"protocol": "ours", "figures": 3}))
    assert "expected the figures of a protocol" in error(tmp_path)
