"""What published code computes beside what is defined: scaled noise, sigmoid, batches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.protocols import Judge, ProtocolSettings, morphometry, run_protocol
from deepscm_pl.evaluation.protocols.answering import Task, repeated_images
from deepscm_pl.evaluation.protocols.benchmark import published_statistic
from deepscm_pl.evaluation.protocols.drawing import DrawnDo, random_subset
from deepscm_pl.evaluation.protocols.effectiveness import effectiveness_figures, f1_score, mean_f1
from deepscm_pl.evaluation.protocols.judging import Reading
from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE
from deepscm_pl.scm import StructuralCausalModel

import oracle
from tiny import KnownTinyDataModule, image_mechanism

SETTINGS = ProtocolSettings(
    seeds=(0,), batch_size=9, workers=1, progress=False, particles=5, detail_rows=10
)
MEAN = "mean absolute error"


@pytest.fixture(scope="module")
def data():
    return KnownTinyDataModule()


@pytest.fixture(scope="module")
def latent(data):
    """A task on a VAE that has seen the statistics of the data only."""
    torch.manual_seed(0)
    mechanisms = {"thickness": AffineFlow, "intensity": AffineFlow, "image": image_mechanism()}
    scm = StructuralCausalModel(oracle.GRAPH, mechanisms)
    scm.fit({name: data.variables("train")[name].float() for name in scm.graph})
    model = ModelOnData.of(scm.eval(), data)
    return Task(model, morphometry(model, 1), SETTINGS, data.variables("train"))


def known(data, **fields):
    model = ModelOnData.of(oracle.make(), data)
    judges = fields.pop("judges", morphometry(model, 1))
    return Task(model, judges, SETTINGS, data.variables("train"), **fields)


def reading(value, target, variable="intensity", judge="network", is_class=False):
    return Reading(variable, judge, torch.tensor(value), torch.tensor(target), is_class)


def test_the_sigmoid_of_the_published_code(data):
    """A network that reads the largest intensity, 1 of [-1, 1], is taken to read 0.731 of it."""
    task = replace(known(data), training={"intensity": torch.tensor([[0.0], [4.0], [10.0]])})
    found = published_statistic(task, reading([10.0, 10.0], [10.0, 10.0]))
    assert found == pytest.approx(10 - (0.7310586 + 1) / 2 * 10)
    assert published_statistic(task, reading([10.0], [10.0], judge="morphometry")) == 0
    assert published_statistic(task, reading([10.0], [10.0], variable="thickness")) == 0


def test_floors_as_published_and_as_defined_are_beside_each_other(data):
    """A perfect network of the intensity is floored by the sigmoid, and only by it."""
    task = known(data)
    recorded = dict(task.factual())

    def read(images):  # the first row of an image of the world has its brightest pixel
        return {"intensity": images[:, 0, 0, 0], "thickness": recorded["thickness"].flatten()}

    judge = Judge("network", ("thickness", "intensity"), read, "digest")
    found = run_protocol("benchmark", replace(task, judges=[judge]))
    title = "do(intensity ~ another bin)"
    bright = found.figure(title, "intensity", MEAN, "network")
    assert bright.floor < 1
    assert bright.published_floor > 20
    assert bright.published > 20 > bright.defined.mean
    thick = found.figure(title, "thickness", MEAN, "network")
    assert thick.published_floor == pytest.approx(thick.floor, abs=1e-9)
    assert found.judges == {"thickness": "digest", "intensity": "digest"}
    assert any("the latent divergence was left out; give --embedding" in n for n in found.notes)


def test_published_noise_is_scaled(latent):
    """As published, composition is inexact: a tenth of the pixel noise is kept."""
    null = [DrawnDo.null()]
    recorded = latent.factual()["image"]
    exact, kept = repeated_images(latent, null, [1, 3])
    scaled, _ = repeated_images(latent, null, [1, 3], is_published=True)
    assert bool(kept.all())
    assert (exact[3] - recorded).abs().max() < 1
    scm, names = latent.model.scm, ("thickness", "intensity")
    parents = {name: latent.factual()[name] for name in names}
    free = scm["image"].reconstruct(recorded, parents)
    mean, own = ((each - recorded).abs().mean() for each in (free, scaled[1]))
    assert 0.5 * mean < own < mean
    assert (scaled[3] - recorded).abs().mean() > own


def test_answers_without_scaling_are_those_defined(latent, monkeypatch):
    do = DrawnDo.constant("do", {"thickness": 3.0}, len(latent.model))
    torch.manual_seed(0)
    defined, published = latent.both_answers(do)
    assert (defined["image"] - published["image"]).abs().mean() > 1
    assert torch.equal(defined["intensity"], published["intensity"])
    monkeypatch.setattr("deepscm_pl.evaluation.protocols.answering.PUBLISHED_SCALE", 1.0)
    torch.manual_seed(0)
    unscaled = latent.published_answer(do)
    assert torch.equal(unscaled["image"], defined["image"])


def test_a_latent_has_figures_as_published(latent):
    found = run_protocol("causal-gen", latent)
    assert all(each.published is not None for each in found.figures)
    composition = run_protocol("benchmark", latent).figure("null, 10 times", "image", MEAN)
    assert composition.defined.mean < 1 < composition.published


def test_an_exact_mechanism_has_nothing_to_scale(data):
    task = known(data)
    found = run_protocol("causal-gen", task)
    assert all(each.published is None for each in found.figures)
    do = DrawnDo.constant("do", {"thickness": 3.0}, len(task.model))
    defined, published = task.both_answers(do)
    assert published is defined


def test_a_random_subset_is_never_empty():
    columns = {name: torch.arange(50.0)[:, None] for name in ("age", "sex")}
    do = random_subset(columns, 3000, torch.Generator().manual_seed(0), batch=50)
    age, sex = do.chosen["age"], do.chosen["sex"]
    assert bool((age | sex).all())
    for share in (age & sex, age & ~sex, sex & ~age):
        assert 900 < int(share.sum()) < 1100


def test_groups_are_rows_with_the_same_changes():
    chosen = {"age": torch.tensor([True, False, True, False])}
    values = {name: torch.zeros(4, 1) for name in ("age", "sex")}
    found = {
        tuple(names): rows.tolist()
        for names, rows in DrawnDo("", values, chosen).groups(4, slice(1, 4))
    }
    assert found == {("sex",): [True, False, True], ("age", "sex"): [False, True, False]}
    ((names, rows),) = DrawnDo.null().groups(3, slice(0, 2))
    assert (names, rows.tolist()) == ([], [True, True])


def test_f1_scores_of_batches(data):
    """Of the batches [1 of 1 found], [none of 1 found] it is 1/2; of all images 2/3."""
    task = known(data)
    found = reading([1.0, 0.0, 0.0], [1.0, 0.0, 1.0], "sex", is_class=True)
    assert f1_score(task, found) == pytest.approx(2 / 3)
    settings = replace(SETTINGS, batch_size=2)
    assert mean_f1(replace(task, settings=settings), found) == pytest.approx(1 / 2)
    images = task.factual()["image"]
    binary = torch.zeros(len(images), 1)
    binary[::3] = 1

    class Binary(Task):
        causes, categories = ["intensity"], {"intensity": 2}

        def both_answers(self, do):
            answer = {**self.factual(), "intensity": binary}
            return answer, answer

        def factual(self):
            return {**super().factual(), "intensity": binary}

    judge = Judge("network", ("intensity",), lambda images: {"intensity": torch.zeros(len(images))})
    part = Binary(task.model, [judge], settings, task.training)
    figures = effectiveness_figures(part, {"null": [DrawnDo.null()]}, published_statistic)
    assert [each.quantity for each in figures] == ["accuracy", "F1 score"]
    assert figures[0].defined.mean == pytest.approx(2 / 3)
    assert figures[1].defined.mean == figures[1].published == figures[1].floor == 0


def test_costs_are_further_figures(latent):
    found = run_protocol("ours", replace(latent, training_seconds=12.5))
    parameters = sum(each.numel() for each in latent.model.scm["image"].parameters())
    assert found.figure("", "image", "parameters").defined.mean == parameters
    assert 0 < found.figure("", "image", "seconds per counterfactual").defined.mean < 1
    assert found.figure("", "image", "seconds of training").defined.mean == 12.5
    assert any("parameters are those of the mechanism of the image" in n for n in found.notes)


def test_importance_weights_tighten_the_bound(latent):
    found = run_protocol("ours", latent)
    bound, tighter = (
        found.figure("", "image", f"bits per dimension{count}").defined.mean
        for count in ("", f", K = {latent.settings.particles}")
    )
    assert tighter < bound


def test_the_bound_is_that_of_the_mean_weight(latent, monkeypatch):
    def weights(mechanism, value, parents, count):
        return torch.arange(1.0, count + 1).log()[:, None].expand(count, len(value))

    monkeypatch.setattr(ConditionalVAE, "recorded_log_weights", weights)
    count = latent.settings.particles
    found = run_protocol("ours", latent).figure("", "image", f"bits per dimension, K = {count}")
    assert found.defined.mean == pytest.approx(-math.log2((count + 1) / 2) / 64)
