"""Tables of answers keep the columns of the observations, short numbers, and changes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.cli import main
from deepscm_pl.cli.answers import _format_values


@pytest.fixture
def table(tmp_path) -> Path:
    pixels = np.full((8, 8), 50, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    path = tmp_path / "mine.csv"
    path.write_text(
        "patient,thickness,intensity,image,overlap,note\n"
        "P 1,3.6,100.1,i.png,x,\n"
        '=P2,2.2,90.5,i.png,y,"a, b"\n'
    )
    return path


def ask(checkpoint: Path, table: Path, out: Path, *words: str) -> list[dict[str, str]]:
    common = ["counterfactual", "--ckpt_path", str(checkpoint), "--observations", str(table)]
    assert main([*common, "--out", str(out), *words]) == 0
    with (out / "answers.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_identifiers_and_other_columns_are_kept(checkpoint, table, tmp_path):
    rows = ask(checkpoint, table, tmp_path / "a", "--do", "thickness=3", "--num_particles", "2")
    assert [row["patient"] for row in rows] == ["P 1", "'=P2", *["P 1"] * 2, *["'=P2"] * 2]
    assert [row["note"] for row in rows[:2]] == ["", "a, b"]
    # A column of the table that is called like one of the answers keeps its content, renamed.
    assert [row["overlap_given"] for row in rows[:2]] == ["x", "y"]
    assert rows[2]["overlap"] in ("supported", "edge", "extrapolated")
    assert list(rows[0])[:4] == ["observation", "patient", "overlap_given", "note"]


def test_answers_of_one_question_are_observations_of_the_next(checkpoint, table, tmp_path):
    first = ask(checkpoint, table, tmp_path / "a", "--do", "thickness=3")
    again = tmp_path / "a" / "answers.csv"
    second = ask(checkpoint, again, tmp_path / "b", "--do", "thickness+=0")
    assert list(second[0]) == list(first[0])
    assert [row["patient"] for row in second[:4]] == ["P 1", "'=P2"] * 2
    for name in ("thickness", "intensity"):
        assert [row[name] for row in second[:4]] == [row[name] for row in first]


def test_numbers_are_as_short_as_they_were_given(checkpoint, table, tmp_path):
    rows = ask(checkpoint, table, tmp_path / "a", "--do", "intensity+=1")
    assert [row["thickness"] for row in rows] == ["3.6", "2.2"] * 2
    assert [row["intensity"] for row in rows] == ["100.1", "90.5", "101.1", "91.5"]
    assert [row["intensity_change"] for row in rows] == ["", "", "1", "1"]
    assert "thickness_change" not in rows[0]  # intensity does not cause thickness


def test_every_affected_number_has_its_change(checkpoint, table, tmp_path):
    rows = ask(checkpoint, table, tmp_path / "a", "--do", "thickness=3")
    for factual, answer in zip(rows[:2], rows[2:], strict=True):
        assert answer["thickness_change"] == {"3.6": "-0.6", "2.2": "0.8"}[factual["thickness"]]
        expected = float(answer["intensity"]) - float(factual["intensity"])
        assert float(answer["intensity_change"]) == pytest.approx(expected, abs=1e-4)


def test_numbers_are_read_back_exactly():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)).exp() * 1e3
    some = torch.cat([values, 1 / values, torch.tensor([37.6, 3.0, 1e20, -1e-20, 16777216.0])])
    cells = list(_format_values(some[None, :, None]))
    assert torch.equal(torch.tensor([float(cell) for cell in cells]), some)
    assert cells[-5:-3] == ["37.6", "3"]


def test_what_changes_is_printed_in_words(checkpoint, table, tmp_path, capsys):
    ask(checkpoint, table, tmp_path / "a", "--do", "thickness=3", "intensity+=1")
    printed = capsys.readouterr().out
    assert "do(thickness = 3), means over 2 observations" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["intensity", "95.3", "96.3", "+1", "(+1", "%)"] in lines
    table.write_text("\n".join(table.read_text().splitlines()[:2]))
    ask(checkpoint, table, tmp_path / "b", "--do", "thickness=3")
    printed = capsys.readouterr().out
    assert "do(thickness = 3)\n" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["thickness", "3.6", "3", "−0.6", "(−17", "%)"] in lines


def test_refused_answers_are_not_in_the_printed_table(checkpoint, table, tmp_path, capsys):
    words = ["--do", "thickness=3", "thickness=60", "--refuse", "extrapolated"]
    rows = ask(checkpoint, table, tmp_path / "a", *words)
    printed = capsys.readouterr().out
    assert {row["intervention"] for row in rows} == {"factual", "do(thickness = 3)"}
    assert "do(thickness = 60), means" not in printed
