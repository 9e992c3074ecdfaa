"""Questions to several models of one graph, which answer together."""

from __future__ import annotations

import contextlib
import csv
import io

import numpy as np
import pytest
import torch

from deepscm_pl import Ensemble, load
from deepscm_pl.cli import batches, main
from deepscm_pl.ensemble import stacking_weights
from deepscm_pl.numerals import format_number

from tiny import UNEVALUATED, write_configuration

BRIEF = [*UNEVALUATED, "--trainer.callbacks", "[]"]


@pytest.fixture(scope="module")
def members(checkpoint, tmp_path_factory):
    """Three checkpoints of trainings that differ in their seed."""
    found = [checkpoint]
    for seed in ("4", "5"):
        root = tmp_path_factory.mktemp("member")
        words = ["fit", "--config", str(write_configuration(root)), "--seed_everything", seed]
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*words, *BRIEF, "--trainer.default_root_dir", str(root)]) == 0
        found.append(next(root.rglob("epoch=*.ckpt")))
    return [str(path) for path in found]


@pytest.fixture
def ask(tmp_path):
    """Asks a question; the rows of the table and the arrays."""

    def run(name, question, paths, *words):
        out = tmp_path / name
        assert main([question, "--ckpt_path", *paths, "--out", str(out), "--npz", *words]) == 0
        with (
            (out / "answers.csv").open(encoding="utf-8") as file,
            np.load(out / "answers.npz") as npz,
        ):
            return list(csv.DictReader(file)), dict(npz)

    return run


def altered(path, folder, **entries):
    """Write a checkpoint with other entries."""
    content = torch.load(path, weights_only=True)
    torch.save({**content, **entries}, folder / "altered.ckpt")
    return str(folder / "altered.ckpt")


INDEX = ("--index", "0", "3", "--do", "thickness=3")


def test_particles_come_from_all_members(members, ask):
    rows, _ = ask("all", "counterfactual", members, *INDEX, "--num_particles", "7")
    assert [row["member"] for row in rows] == ["", "", *"1112233" * 2]
    for k, path in enumerate(members, 1):
        alone, _ = ask(f"{k}", "counterfactual", [path], *INDEX)
        for n, row in enumerate(alone[2:]):
            own = [r for r in rows[2 + 7 * n :][:7] if r["member"] == str(k)]
            assert {r["intensity"] for r in own} == {row["intensity"]}
            assert {r["thickness"] for r in own} == {"3"}
        assert not {"member", "intensity_between", "image_within"} & alone[0].keys()
    assert len({row["intensity"] for row in rows[2:9]}) == 3


def test_two_particles_of_each_member_by_default(members, ask):
    rows, _ = ask("a", "counterfactual", members[:2], *INDEX)
    assert [row["member"] for row in rows[2:]] == list("1122" * 2)


@pytest.mark.parametrize("numbers", [2**24, 3 * 8 * 8])
def test_disagreement_is_apart_from_noise(members, ask, monkeypatch, numbers, capsys):
    monkeypatch.setattr(batches, "_BATCH_NUMBERS", numbers)  # one or many parts
    rows, arrays = ask("a", "counterfactual", members, *INDEX, "--num_particles", "8")
    ensemble = load(members).ensemble
    for name in ("intensity", "image"):
        spread = ensemble.spread(torch.from_numpy(arrays[f"1/{name}"]).double())
        for kind in ("between", "within"):
            expected = getattr(spread, kind).square().flatten(1).mean(dim=1).sqrt()
            for n in (0, 1):
                cells = {row[f"{name}_{kind}"] for row in rows[2 + 8 * n :][:8]}
                assert [float(cell) for cell in cells] == [
                    pytest.approx(float(expected[n]), rel=1e-4)
                ]
    assert all(float(row["intensity_within"]) == 0 for row in rows[2:])
    assert all(float(row["image_within"]) > 0 for row in rows[2:])
    assert all(float(row["intensity_between"]) > 0 for row in rows[2:])
    assert {row["image_between"] + row["intensity_within"] for row in rows[:2]} == {""}
    assert "thickness_between" not in rows[0]
    printed = capsys.readouterr().out
    squares = [float(row["intensity_between"]) ** 2 for row in rows[2:]]
    expected = format_number(np.mean(squares) ** 0.5)
    sentence = f"models disagree on intensity by {expected} (noise within a model: 0), image by "
    assert f"do(thickness = 3): {sentence}" in printed


def test_one_particle_of_each_member_leaves_the_noise_unknown(members, ask):
    rows, _ = ask("a", "counterfactual", members, *INDEX, "--num_particles", "3")
    assert {row["image_within"] + row["image_between"] for row in rows} == {""}


def test_the_disagreement_of_one_model_is_unknown(members, ask, capsys):
    rows, _ = ask("a", "counterfactual", members, *INDEX, "--weights", "0", "1", "0")
    assert {row["image_between"] for row in rows} == {""}
    assert all(float(row["image_within"]) > 0 for row in rows[2:])
    printed = capsys.readouterr().out
    assert "disagreement: unknown, because only one model has a weight above 0." in printed
    assert "models disagree" not in printed


def test_draws_of_members_take_turns(members, ask, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_ROWS", 4)
    do = ("--do", "thickness=3", "intensity=100")
    rows, _ = ask("a", "intervene", members, *do, "--size", "10")
    assert [row["member"] for row in rows[:10]] == list("1231231231")
    fewer, _ = ask("b", "intervene", members, *do, "--size", "7")
    same = [row for row in rows if int(row["observation"].split()[1]) < 7]
    assert [row["intensity"] for row in same] == [row["intensity"] for row in fewer]
    sampled, _ = ask("c", "sample", members, "--size", "10", "--weights", "0", "2", "1")
    assert [row["member"] for row in sampled] == list("2322322322")
    assert [row["observation"] for row in sampled] == [f"noise {k}" for k in range(10)]


def test_weights_of_the_validation_split(members, ask, capsys):
    ask("a", "sample", members, "--weights", "validation")
    printed = capsys.readouterr().out
    model = load(members)
    rows = model.data().variables("validation")
    values = {name: rows[name].float() for name in model.variables}
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = torch.stack([scm.elbo(values).bound for scm in model.ensemble.members])
    for k, weight in enumerate(stacking_weights(bounds), 1):
        assert f"member {k}, weight {weight:.3g}: {members[k - 1]}" in printed


def test_python_answers_as_the_program_does(members, ask):
    _, arrays = ask("a", "counterfactual", members, *INDEX, "--num_particles", "4", "--seed", "5")
    model = load(members)
    factual = {n: v[[0, 3]].float() for n, v in model.data().variables("test").items()}
    factual = {name: factual[name] for name in model.variables}
    found = model.counterfactual(factual, ["thickness=3"], num_particles=4, seed=5)
    for name, value in found.items():
        assert np.array_equal(value[:, 0].numpy(), arrays[f"1/{name}"])
    assert model.counterfactual(factual, "thickness=3")["image"].shape[0] == 6
    assert len(model.intervene("thickness=3", 5, seed=1)["image"]) == 5
    assert len(model.sample(5)["image"]) == 5
    assert [str(each.path) for each in model.checkpoints] == members
    assert model.ensemble.weights == pytest.approx([1 / 3] * 3)
    weighted = load(members, weights=[1, 0, 1])
    assert weighted.ensemble.share(4) == [2, 0, 2]
    with pytest.raises(ValueError, match="expected at least 3, one for each model"):
        model.counterfactual(factual, "thickness=3", num_particles=2)
    with pytest.raises(ValueError, match="at least one model"):
        load([])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_particles", "2"], "num_particles: expected at least 3, one for each model, but"),
        (["--num_particles", "0"], "num_particles: expected a whole number of at least 1"),
        (["--weights", "1", "2"], "weights: expected 3 numbers of at least 0"),
        (["--weights", "1", "2", "-1"], "weights: expected 3 numbers of at least 0"),
        (["--weights", "1", "2", "nan"], "weights: expected 3 numbers of at least 0"),
        (["--weights", "best"], "weights: expected 3 numbers, or validation, but got best"),
    ],
)
def test_bad_numbers_are_refused(members, tmp_path, capsys, words, message):
    common = ["counterfactual", "--ckpt_path", *members, "--out", str(tmp_path / "a"), *INDEX]
    assert main([*common, *words]) == 1
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def other_data(content):
    content["data"]["init_args"]["validation_size"] = 30


def other_class(content):
    content["data"]["class_path"] = "tiny.KnownTinyDataModule"


def other_unit(content):
    content["variables"]["thickness"]["unit"] = "miles"


def other_rows(content):
    content["state_dict"]["scm.training_distribution.thickness_quantiles"] += 0.1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_data, "their training data differ (validation_size); train all members on the"),
        (other_class, "their training data differ (class"),
        (
            other_unit,
            "members: expected models of the same variables, but thickness of number 2 differs",
        ),
        (other_rows, "their training data differ (the distribution of the training split)"),
    ],
)
def test_members_of_other_models_are_refused(members, tmp_path, capsys, change, reason):
    content = torch.load(members[1], weights_only=True)
    change(content)
    other = altered(members[1], tmp_path, **content)
    out = ["--out", str(tmp_path / "a")]
    assert main(["sample", "--ckpt_path", members[0], members[2], other, *out]) == 1
    assert f"{members[0]} and {other} cannot answer together: {reason}" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_loading_and_folders_of_the_data_may_differ(members, tmp_path):
    content = torch.load(members[1], weights_only=True)
    content["data"]["init_args"] |= {"batch_size": 7, "num_workers": 1, "root": "/elsewhere"}
    other = altered(members[1], tmp_path, **content)
    assert isinstance(load([members[0], other]).ensemble, Ensemble)


def test_models_of_other_graphs_are_refused(members, tmp_path):
    root = tmp_path / "run"
    words = ["fit", "--config", str(write_configuration(tmp_path))]
    graph = ["--model.graph", "intensity -> thickness; thickness, intensity -> image"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*words, *graph, *BRIEF, "--trainer.default_root_dir", str(root)]) == 0
    other = next(root.rglob("epoch=*.ckpt"))
    with pytest.raises(ValueError, match=r"epoch=1\.ckpt and .* models of one graph"):
        load([members[0], other])


def test_a_file_is_no_ensemble_with_itself(members):
    with pytest.raises(ValueError, match="they are one file"):
        load([members[0], members[1], members[0]])
