"""``deepscm effect``: what is printed and written, and what is refused."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from deepscm_pl import load
from deepscm_pl.cli import main

FEW = ["--rows", "200"]


def ask(checkpoint, out, *words):
    return main(
        ["effect", *words[:1], "--ckpt_path", str(checkpoint), "--out", str(out), *words[1:]]
    )


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_average_effect_in_groups(checkpoint, tmp_path, capsys):
    out = tmp_path / "effect"
    words = ["--do", "thickness=4", "--versus", "thickness=2", "--outcome", "intensity"]
    assert ask(checkpoint, out, "average", *words, "--by", "thickness:2", *FEW) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "effect of do(thickness = 4) against do(thickness = 2) on intensity\n"
    )
    assert "effect, thickness below" in printed
    for file in ("effect.csv", "effect.json", "effect.png"):
        assert f"written: {out / file}" in printed
    rows = read(out / "effect.csv")
    assert [row["estimate"] for row in rows][:3] == [
        "under do(thickness = 4)", "under do(thickness = 2)", "effect",
    ]  # fmt: skip
    found = json.loads((out / "effect.json").read_text())
    assert found["asked"]["do"] == "thickness=4"
    effect = found["estimates"]["effect"]
    assert float(rows[2]["value"]) == pytest.approx(effect["value"])
    assert Image.open(out / "effect.png").width > 300
    assert not (out / "rows.csv").exists()
    settings = {"rows": 200, "seed": 0}
    model = load(checkpoint)
    same = model.effect("intensity", "thickness=4", "thickness=2", **settings)["effect"]
    assert same.value == pytest.approx(effect["value"])
    # Without the name of a kind, the question is the average effect.
    assert main(["effect", "--ckpt_path", str(checkpoint), "--out", f"{out}2", *words, *FEW]) == 0


def test_individual_effects_of_test_rows_on_images(checkpoint, tmp_path, capsys):
    out = tmp_path / "effect"
    words = ["--do", "thickness+=1", "--outcome", "image", "--num_particles", "4"]
    assert ask(checkpoint, out, "individual", *words, "--index", "0", "3") == 0
    rows = read(out / "rows.csv")
    assert [row["observation"] for row in rows] == ["test 0", "test 3"]
    for row in rows:
        change = float(row["do(thickness + 1)"]) - float(row["no intervention"])
        assert float(row["effect"]) == pytest.approx(change, abs=1e-4)
    assert "grey levels" in capsys.readouterr().out


def test_observations_need_only_the_columns_of_the_question(checkpoint, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("thickness,intensity\n2,100\n3,150\n")
    out = tmp_path / "effect"
    words = ["--do", "thickness=4", "--outcome", "intensity", "--observations", str(table)]
    assert ask(checkpoint, out, "average", *words) == 0
    assert len(read(out / "rows.csv")) == 2


def test_mediation_necessity_and_contributions(checkpoint, tmp_path, capsys):
    words = ["--do", "thickness=4", "--versus", "thickness=2"]
    image = ["--outcome", "image", "--rows", "64"]
    assert ask(checkpoint, tmp_path / "a", "mediation", *words, *image) == 0
    printed = capsys.readouterr().out
    assert "Indirect: through intensity." in printed
    event = ["--outcome", "intensity > 150", "--exposed", "thickness > 3"]
    assert ask(checkpoint, tmp_path / "b", "necessity", *words, *event, *FEW) == 0
    assert {row["estimate"] for row in read(tmp_path / "b" / "effect.csv")} >= {
        "necessity", "sufficiency", "both",
    }  # fmt: skip
    asked = {
        "variance": [],
        "group": ["--group", "thickness > 3"],
        "change": words,
        "rows": ["--index", "0", "1"],
    }
    for name, options in asked.items():
        folder = tmp_path / name
        assert (
            ask(checkpoint, folder, "contributions", "--outcome", "intensity", *options, *FEW) == 0
        )
        found = {row["estimate"]: float(row["value"]) for row in read(folder / "effect.csv")}
        total = found.pop("total")
        assert sum(found.values()) == pytest.approx(total, rel=1e-4)
    assert list(read(tmp_path / "rows" / "rows.csv")[0]) == [
        "observation", "thickness", "intensity", "total",
    ]  # fmt: skip


def test_reach(checkpoint, tmp_path, capsys):
    words = ["--outcome", "thickness >= 3", "--change", "intensity", "--index", "0"]
    assert ask(checkpoint, tmp_path / "a", "reach", *words) == 1
    assert "no directed path from intensity to thickness" in capsys.readouterr().err
    words = ["--outcome", "intensity >= 160", "--change", "thickness", "--index", "0", "1"]
    assert ask(checkpoint, tmp_path / "b", "reach", *words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("smallest change of thickness for intensity ≥ 160")
    rows = read(tmp_path / "b" / "effect.csv")
    assert [row["observation"] for row in rows] == ["test 0", "test 1"]
    assert {"thickness_before", "thickness_after", "distance", "reached"} <= set(rows[0])


def test_several_models_and_extrapolation(checkpoint, tmp_path, capsys):
    other = tmp_path / "other.ckpt"
    other.write_bytes(checkpoint.read_bytes())
    words = ["--do", "thickness=40", "--outcome", "intensity", *FEW]
    arguments = ["effect", "average", "--ckpt_path", str(checkpoint), str(other)]
    assert main([*arguments, "--out", str(tmp_path / "a"), *words]) == 0
    printed = capsys.readouterr().out
    assert "and over the models" in printed
    assert "answers extrapolate; thickness is from" in printed
    assert {"model 1", "model 2"} <= set(read(tmp_path / "a" / "effect.csv")[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("average --do thickness=3 --outcome thickness", "effect of a variable on itself"),
        ("average --do thickness=3 --outcome intensty", "did you mean 'intensity'?"),
        ("average --do thicknes=3 --outcome intensity", "did you mean 'thickness'?"),
        ("average --do thickness=-3 --outcome intensity", "do(thickness): expected values in"),
        ("average --do thickness=3 --outcome intensity>999", "within its domain"),
        ("average --do thickness=3 --outcome intensity --by thick", "by: expected one of"),
        ("average --do thickness=3 --outcome intensity --level 2", "level: expected a number"),
        ("individual --do thickness=3 --outcome intensity", "got neither; add one"),
        ("reach --outcome intensity>99 --change thickness", "got neither; add one"),
        ("mediation --do thickness=3 --outcome image --through image", "through: expected"),
        ("contributions --outcome image --reference thickness>1", "together with --group"),
        ("contributions --outcome image --do thickness=1 --group thickness>1", "leave one out"),
        ("necessity --do thickness=3 --versus thickness=1 --outcome intensity", "an event"),
    ],
)
def test_one_line_for_impossible_questions(checkpoint, tmp_path, capsys, words, message):
    out = tmp_path / "effect"
    assert ask(checkpoint, out, *words.split()) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not out.exists()
