"""Trainings of data with missing values, their files, evaluations and questions."""

from __future__ import annotations

import json
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import yaml

from deepscm_pl import DeepSCM, export_model, load
from deepscm_pl.cli.main import main
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.training.objectives import (
    CounterfactualObjective,
    EvidenceLowerBoundObjective,
    ImportanceWeightedObjective,
)
from deepscm_pl.transforms import Positive

from tiny import CONFIGURATION, IncompleteDataModule, TinyDataModule, image_mechanism


def make(**settings):
    from deepscm_pl.mechanisms import AffineFlow, SplineFlow

    return DeepSCM(
        "thickness -> intensity; thickness, intensity -> image",
        {
            "thickness": partial(SplineFlow, constraint=Positive),
            "intensity": partial(AffineFlow, constraint=Positive),
            "image": image_mechanism(),
        },
        optimizer=partial(torch.optim.Adam, lr=5e-3),
        **settings,
    )


def trained(folder, model=None, data=None, epochs=2):
    pl.seed_everything(0, verbose=False)
    model = make() if model is None else model
    data = IncompleteDataModule() if data is None else data
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return model, folder / "model.ckpt"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("trained"))


def test_a_file_has_the_networks_and_gives_the_same_answers(saved, tmp_path):
    model, path = saved
    exported = export_model(path, tmp_path / "model.safetensors")
    data = IncompleteDataModule()
    data.setup()
    rows = {name: data.variables("test")[name][:6].float() for name in model.scm.graph}
    model.eval()
    torch.manual_seed(5)
    with torch.no_grad():
        expected = model.scm.counterfactual(rows, {"thickness": 2.0}, 3)
    for file in (path, exported):
        found = load(file)
        assert found.scm.missing_values.names == ("thickness", "intensity")
        answer = found.counterfactual(rows, "thickness=2", num_particles=3, seed=5)
        assert all(torch.equal(answer[name], expected[name]) for name in expected)
    kept = found.counterfactual(rows, "thickness+=0", num_particles=3, seed=5)
    known = ~rows["intensity"].isnan()
    expected = rows["intensity"][known].expand(3, -1)
    torch.testing.assert_close(kept["intensity"][:, known], expected, rtol=1e-5, atol=0)
    assert kept.inferred["intensity"].tolist() == (~known[:, 0]).tolist()
    assert "Missing values are inferred: thickness of 1, intensity of 2 observations" in repr(kept)


def test_a_training_resumes_as_if_it_had_not_stopped(tmp_path):
    through, _ = trained(tmp_path, epochs=3)
    trained(tmp_path, epochs=2)
    resumed = make()
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(resumed, IncompleteDataModule(), ckpt_path=tmp_path / "model.ckpt")
    for (name, one), other in zip(
        through.scm.state_dict().items(), resumed.scm.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_model_of_complete_data_is_trained_further_on_incomplete_ones(tmp_path):
    model, _ = trained(tmp_path, data=TinyDataModule(), epochs=1)
    assert model.scm.missing_values.names == ()
    trained(tmp_path, model, epochs=2)
    assert model.scm.missing_values.names == ("thickness", "intensity")


@pytest.mark.parametrize(
    "objective",
    [
        partial(EvidenceLowerBoundObjective, divergence_weight=0.5, refit=0.5),
        ImportanceWeightedObjective,
        partial(CounterfactualObjective, variables=[["thickness"], ["intensity"]]),
    ],
)
def test_every_objective_accepts_missing_values(tmp_path, objective):
    model, _ = trained(tmp_path, make(objective=objective, num_particles=2), epochs=2)
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
    last = model.scm.missing_values.networks["intensity"].linear.weight
    assert bool((last != 0).any())


def test_a_weighted_divergence_is_not_that_of_missing_values():
    model = make()
    data = IncompleteDataModule()
    data.setup()
    batch = {name: value[:12].float() for name, value in data.variables("train").items()}
    model.scm.fit(data.variables("train"))
    network = model.scm.missing_values.networks["intensity"]
    torch.nn.init.normal_(network.linear.weight)
    values = []
    for weight in (1.0, 0.25):
        torch.manual_seed(0)
        objective = EvidenceLowerBoundObjective(1, divergence_weight=weight)
        values.append(objective(model.scm, batch, model.progress))
    found = values[0].elbo.evidence
    expected = 0.75 * found["image"].divergence.mean()
    found_change = values[1].objective - values[0].objective
    torch.testing.assert_close(found_change, expected, rtol=0.05, atol=0)
    assert found["intensity"].divergence.mean() > 0.2


def test_an_evaluation_takes_the_complete_rows(saved):
    model, _ = saved
    found = ModelOnData.of(model.scm, IncompleteDataModule())
    assert (found.available, len(found), found.incomplete) == (13, 13, 7)
    assert all(value.isfinite().all() for value in found.rows(0, 13).values())
    assert len(found.training["intensity"]) < 60


def test_an_evaluation_with_too_few_complete_rows_takes_inferred_values(saved):
    model, _ = saved
    data = IncompleteDataModule()
    data.setup()
    data.variables("test")["intensity"][:14] = torch.nan
    found = ModelOnData.of(model.scm, data)
    assert (len(found), found.incomplete, found.is_inferred) == (20, 16, True)
    values, given = found.rows(0, 20), data.variables("test")
    assert all(value.isfinite().all() for value in values.values())
    known = ~given["intensity"].isnan()
    assert torch.equal(values["intensity"][known], given["intensity"][known])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of a run of the program."""
    folder = tmp_path_factory.mktemp("run")
    configuration = {**CONFIGURATION, "data": {"class_path": "tiny.IncompleteDataModule"}}
    (folder / "fit.yaml").write_text(yaml.safe_dump(configuration))
    words = ["fit", "--config", str(folder / "fit.yaml"), "--trainer.max_epochs", "1"]
    assert main([*words, "--trainer.default_root_dir", str(folder)]) == 0
    return folder


def test_the_program_trains_evaluates_and_answers(run, capsys):
    checkpoint = next(run.rglob("last.ckpt"))
    report = json.loads(next(run.rglob("evaluation.json")).read_text())
    assert "7 rows of the test split with missing values" in " ".join(report["left_out"])
    out = run / "answers"
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "thickness=2"]
    assert main([*words, "--index", "0", "1", "--num_particles", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "missing values: thickness of test 0, intensity of test 0 inferred" in printed
    table = (out / "answers.csv").read_text().splitlines()
    columns = table[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in table[1:]]
    factual = [row for row in rows if row["intervention"] == "factual"]
    assert factual[0]["intensity"] == ""
    assert factual[1]["intensity"]
    assert all(float(row["intensity"]) > 0 for row in rows if row not in factual)
