"""Questions far from the training data are called extrapolations."""

from __future__ import annotations

import csv
from functools import partial

import numpy as np
import pytest
import torch

from deepscm_pl import load
from deepscm_pl.cli import batches, main
from deepscm_pl.cli.answers import Column, Output, Part, write_answers
from deepscm_pl.cli.observations import observations_from_csv
from deepscm_pl.figures import draw_grid
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.overlap import OverlapThresholds
from deepscm_pl.scm import StructuralCausalModel

READ = "--read_training_data"
REFUSE = ["--refuse", "extrapolated"]
PARTICLES = {"counterfactual": ["--num_particles", "2"], "intervene": []}


def ask(checkpoint, tmp_path, capsys, *do, command="counterfactual", more=()):
    out = tmp_path / "answers"
    which = ["--index", "0", "1", "2"] if command == "counterfactual" else ["--size", "3"]
    words = [command, "--ckpt_path", str(checkpoint), "--out", str(out), *which, *more]
    assert main([*words, *(["--do", *do] if do else [])]) == 0
    return capsys.readouterr().out


def read(folder, name="answers"):
    with (folder / name / "answers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def older_checkpoint(checkpoint, folder):
    """The checkpoint without the distribution of the training data."""
    content = torch.load(checkpoint, weights_only=False)
    kept = {k: v for k, v in content["state_dict"].items() if "training_distribution" not in k}
    assert len(kept) < len(content["state_dict"])
    torch.save({**content, "state_dict": kept}, folder / "older.ckpt")
    return folder / "older.ckpt"


def test_values_beyond_the_training_data_extrapolate(checkpoint, tmp_path, capsys):
    printed = ask(checkpoint, tmp_path, capsys, "thickness=400", "thickness+=0.01")
    assert "do(thickness = 400): 3 of 3 answers extrapolate; thickness is from " in printed
    assert "in the training data." in printed
    assert "do(thickness + 0.01): 3 of 3 answers extrapolate" not in printed


def test_interventions_on_a_population_have_verdicts(checkpoint, tmp_path, capsys):
    printed = ask(checkpoint, tmp_path, capsys, "thickness=400", command="intervene")
    assert "3 of 3 answers extrapolate" in printed


def test_samples_have_no_verdict(checkpoint, tmp_path, capsys):
    printed = ask(checkpoint, tmp_path, capsys, command="sample")
    assert "extrapolate" not in printed
    assert "overlap" not in printed


def test_a_model_without_training_distribution_says_so(checkpoint, tmp_path, capsys):
    older = older_checkpoint(checkpoint, tmp_path)
    printed = ask(older, tmp_path, capsys, "thickness=400")
    assert "overlap: unknown, because this model of an earlier version contains no" in printed
    assert "--read_training_data" in printed
    assert {row["overlap"] for row in read(tmp_path)} == {""}


def test_the_training_data_make_up_for_a_missing_distribution(checkpoint, tmp_path, capsys):
    older = older_checkpoint(checkpoint, tmp_path)
    ask(older, tmp_path / "old", capsys, "thickness=400", "thickness=3", more=[READ])
    ask(checkpoint, tmp_path / "new", capsys, "thickness=400", "thickness=3", more=[READ])
    assert read(tmp_path / "old") == read(tmp_path / "new")
    assert "extrapolated" in {row["overlap"] for row in read(tmp_path / "new")}


def test_tables_have_the_overlap_of_each_answer(checkpoint, tmp_path, capsys):
    ask(checkpoint, tmp_path, capsys, "thickness=400", "thickness+=0.01", "intensity=100")
    factual, far, near, other = (read(tmp_path)[start : start + 3] for start in (0, 3, 6, 9))
    assert {
        row["overlap"] + row["overlap_rows"] + row["thickness_quantile"] for row in factual
    } == {""}
    assert {row["overlap"] for row in far} == {"extrapolated"}
    assert {row["thickness_quantile"] for row in far} <= {"1", ""}
    assert all(float(row["overlap_rows"]) < 1 for row in far)
    assert "extrapolated" not in {row["overlap"] for row in near}
    kept = load(checkpoint).data()
    kept.setup()
    train = kept.variables("train")["thickness"]
    for row in near:
        share = (train < float(row["thickness"])).double().mean().item()
        assert float(row["thickness_quantile"]) == pytest.approx(share, abs=0.3)
        assert row["intensity_quantile"] == ""
    assert all(
        0 <= float(row["intensity_quantile"]) <= 1 for row in other if row["overlap_rows"] > "1"
    )


def test_answers_of_a_question_with_overlap_are_observations_of_the_next(
    checkpoint, tmp_path, capsys
):
    ask(checkpoint, tmp_path / "first", capsys, "thickness+=0.1")
    table = tmp_path / "first" / "answers" / "answers.csv"
    words = ["--ckpt_path", str(checkpoint), "--do", "thickness+=0", "--out", str(tmp_path / "b")]
    assert main(["counterfactual", *words, "--observations", str(table)]) == 0
    first, second = read(tmp_path / "first"), read(tmp_path / "b", "")
    for name in ("thickness", "intensity"):
        assert [row[name] for row in second[:6]] == [row[name] for row in first]


def test_a_variable_called_overlap_keeps_its_column(tmp_path):
    scm = StructuralCausalModel("overlap -> b", {"overlap": AffineFlow, "b": AffineFlow})
    values = {"overlap": torch.tensor([[[0.5], [0.25]]]), "b": torch.zeros(1, 2, 1)}
    output = Output(tmp_path / "a", [Column("factual", "factual")], quantiles=["overlap"])
    write_answers(scm, [Part(["x", "y"], [values])], output)
    (found,) = observations_from_csv(scm, tmp_path / "a" / "answers.csv").read(2)
    assert torch.equal(found.values["overlap"], values["overlap"][0])


@pytest.mark.parametrize("command", ["counterfactual", "intervene"])
def test_extrapolated_answers_are_refused(checkpoint, tmp_path, capsys, command):
    refuse = ["--refuse", "extrapolated", "--npz", *PARTICLES[command]]
    do = ("thickness=400", "thickness=3.5")
    printed = ask(checkpoint, tmp_path, capsys, *do, command=command, more=refuse)
    assert "refused: 3 of 6 answers, which are not written." in printed
    rows = read(tmp_path)
    assert "do(thickness = 400)" not in {row["intervention"] for row in rows}
    assert sum(row["intervention"] == "do(thickness = 3.5)" for row in rows) == 3 * len(
        {row["particle"] for row in rows}
    )
    assert len(list((tmp_path / "answers" / "images").iterdir())) == len(rows)
    with np.load(tmp_path / "answers" / "answers.npz") as arrays:
        k = list(arrays["titles"]).index("do(thickness = 400)")
        assert np.isnan(arrays[f"{k}/image"]).all()
        assert np.isfinite(arrays[f"{k + 1}/image"]).all()


def test_edge_refuses_both(checkpoint, tmp_path, capsys, monkeypatch):
    thresholds = partial(OverlapThresholds, extrapolated=0.5, edge=5.0)  # of 60 training rows
    monkeypatch.setattr("deepscm_pl.overlap.OverlapThresholds", thresholds)
    do = ("thickness=400", "thickness=3.5", "thickness=1.1", "thickness=1.12")
    ask(checkpoint, tmp_path / "all", capsys, *do)
    ask(checkpoint, tmp_path / "some", capsys, *do, more=["--refuse", "edge"])
    expected = [row for row in read(tmp_path / "all") if row["overlap"] in ("", "supported")]
    assert read(tmp_path / "some") == expected
    verdicts = {row["overlap"] for row in read(tmp_path / "all")}
    assert verdicts == {"", "supported", "edge", "extrapolated"}


def test_particles_that_come_in_parts_have_one_verdict(checkpoint, tmp_path, capsys, monkeypatch):
    do, more = ("thickness=400", "thickness=3.5"), [*REFUSE, "--num_particles", "5"]
    ask(checkpoint, tmp_path / "a", capsys, *do, more=more)
    monkeypatch.setattr(batches, "_BATCH_NUMBERS", 2 * 3 * 8 * 8 + 20)
    printed = ask(checkpoint, tmp_path / "b", capsys, *do, more=more)
    assert "refused: 3 of 6 answers" in printed
    names = ("observation", "intervention", "particle", "overlap", "overlap_rows", "intensity")
    whole, parts = (
        [[row[name] for name in names] for row in read(tmp_path / folder)] for folder in "ab"
    )
    assert parts == whole
    assert len(parts) == 3 + 3 * 5


def test_pictures_name_extrapolated_and_refused_answers(checkpoint, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "deepscm_pl.cli.answers.draw_grid",
        lambda columns, *rest, **options: (
            drawn.append(columns) or draw_grid(columns, *rest, **options)
        ),
    )
    ask(checkpoint, tmp_path / "a", capsys, "thickness=400")
    ask(checkpoint, tmp_path / "b", capsys, "thickness=400", "thickness=3.5", more=REFUSE)
    (factual, far), (_, refused, near) = drawn
    assert all(caption.endswith("\nextrapolated") for caption in far.captions)
    assert not any("extrapolated" in caption for caption in factual.captions)
    assert refused.labels == ["refused"] * 3
    assert near.labels == [""] * 3
    assert (tmp_path / "b" / "answers" / "image.png").is_file()


@pytest.mark.parametrize("command", ["counterfactual", "intervene"])
def test_no_folder_remains_if_all_answers_are_refused(checkpoint, tmp_path, capsys, command):
    out = tmp_path / "answers"
    which = ["--index", "0"] if command == "counterfactual" else ["--size", "2"]
    words = ["--ckpt_path", str(checkpoint), "--out", str(out), *which, "--do", "thickness=400"]
    assert main([command, *words, *REFUSE]) == 1
    assert "are refused (do(thickness = 400): " in capsys.readouterr().err
    older = older_checkpoint(checkpoint, tmp_path)
    assert main([command, *words, *REFUSE, "--ckpt_path", str(older)]) == 1
    assert "refuse: expected a model with a known overlap" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["older.ckpt"]
