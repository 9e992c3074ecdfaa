"""Objectives: their values from the bounds of the model, and their use in training."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.configuration import describe
from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE, HierarchicalVAE
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder, Ladder
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import (
    CounterfactualObjective,
    DeepSCM,
    EvidenceLowerBoundObjective,
    ImportanceWeightedObjective,
)
from deepscm_pl.training.objectives import TrainingProgress
from deepscm_pl.transforms import Interval, Positive

from tiny import TinyDataModule

START = TrainingProgress(step=0, epoch=0)
GRAPH = "thickness -> intensity; thickness, intensity -> image"
MECHANISMS = {
    "thickness": partial(AffineFlow, constraint=Positive),
    "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
    "image": partial(
        ConditionalVAE,
        shape=(1, 8, 8),
        latent=3,
        hidden=8,
        encoder=partial(ConvolutionalEncoder, features=8, channels=(4, 8)),
        decoder=partial(ConvolutionalDecoder, hidden=16, channels=(8, 4)),
    ),
}


@pytest.fixture
def scm():
    made = StructuralCausalModel(GRAPH, MECHANISMS)
    made.fit(TinyDataModule().variables("train"))
    return made


@pytest.fixture
def batch():
    return next(iter(TinyDataModule().val_dataloader()))


def evaluate(objective, scm, batch, progress=START):
    """The objective and, by the same draws, the model's own bound."""
    torch.manual_seed(4)
    value = objective(scm, batch, progress)
    torch.manual_seed(4)
    return value, scm.elbo(batch, objective.num_particles)


@pytest.mark.parametrize("particles", [1, 3])
def test_default_is_the_evidence_lower_bound(scm, batch, particles):
    value, elbo = evaluate(EvidenceLowerBoundObjective(particles), scm, batch)
    torch.testing.assert_close(value.objective, elbo.bound.mean())
    torch.testing.assert_close(value.elbo.bound, elbo.bound)
    assert value.logged["kl_weight"] == 1


def test_importance_weighted_objective_is_the_mean_weight(scm, batch):
    value, elbo = evaluate(ImportanceWeightedObjective(5), scm, batch)
    weights = elbo.evidence["image"].latent.log_weights.double()
    image = weights.logsumexp(0) - math.log(5)
    others = sum(elbo.evidence[name].log_prob for name in ("thickness", "intensity"))
    assert float(value.objective) == pytest.approx(float((image + others).mean()), rel=1e-6)
    assert float(value.objective) > float((weights.mean(0) + others).mean())
    torch.testing.assert_close(value.elbo.bound, elbo.bound)
    value.objective.backward()
    assert scm["image"].posterior_head[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "progress", "expected"),
    [
        ({"warmup_steps": 10}, (0, 3), 0.0),
        ({"warmup_steps": 10}, (4, 0), 0.4),
        ({"warmup_steps": 10}, (10, 0), 1.0),
        ({"warmup_steps": 10}, (99, 0), 1.0),
        ({"warmup_epochs": 4}, (99, 1), 0.25),
        ({"warmup_epochs": 4}, (0, 9), 1.0),
        ({"divergence_weight": 0.3}, (0, 0), 0.3),
        ({"divergence_weight": 0.3, "warmup_steps": 10}, (4, 0), 0.12),
        ({"divergence_weight": 0.3, "warmup_steps": 10}, (99, 0), 0.3),
    ],
)
def test_weight_and_warm_up_are_of_the_divergence_alone(scm, batch, settings, progress, expected):
    objective = EvidenceLowerBoundObjective(**settings)
    value, elbo = evaluate(objective, scm, batch, TrainingProgress(*progress))
    assert value.logged["kl_weight"] == pytest.approx(expected)
    log_prob = sum(each.log_prob for each in elbo.evidence.values()).mean()
    divergence = elbo.evidence["image"].divergence.mean()
    torch.testing.assert_close(value.objective, log_prob - expected * divergence)
    torch.testing.assert_close(value.elbo.bound, elbo.bound)


def test_free_bits_floor_each_dimension_of_the_batch_mean(scm, batch):
    with torch.no_grad():  # one dimension far above the floor, one near, one at zero
        head = scm["image"].posterior_head[2]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([2.0, 0.5, 0, 0, 0, 0]))
        head.weight[0, 0] = 3.0
    value, elbo = evaluate(EvidenceLowerBoundObjective(free_bits=0.2), scm, batch)
    dimensions = elbo.evidence["image"].latent.divergences.mean(0)
    assert dimensions[0] > 2
    assert dimensions[1:].tolist() == pytest.approx([0.125, 0])
    expected = elbo.bound.mean() + dimensions.sum() - (dimensions[0] + 0.2 + 0.2)
    torch.testing.assert_close(value.objective, expected)
    scm["image"].posterior_head.zero_grad()
    (value.objective - sum(e.log_prob.mean() for e in value.elbo.evidence.values())).backward()
    slope = head.bias.grad
    assert slope[0].abs() > 0.1
    assert slope[1:3].abs().max() == 0


def test_counterfactual_objective_adds_its_own_of_permuted_values(scm, batch, monkeypatch):
    objective = CounterfactualObjective(2, [["thickness"]], weight=0.3)
    imagined = []
    counterfactuals = objective.counterfactuals
    monkeypatch.setattr(
        objective, "counterfactuals", lambda *a: imagined.append(counterfactuals(*a)) or imagined[0]
    )
    torch.manual_seed(4)
    value = objective(scm, batch, START)
    torch.manual_seed(4)
    base = EvidenceLowerBoundObjective(2)
    factual = base(scm, batch, START)
    counterfactuals(scm, batch)  # the same draws
    other = base(scm, imagined[0], START)
    expected = factual.objective + 0.3 * other.objective
    torch.testing.assert_close(value.objective, expected)
    torch.testing.assert_close(value.logged["counterfactual_objective"], other.objective)
    torch.testing.assert_close(value.elbo.bound, factual.elbo.bound)
    assert value.logged["kl_weight"] == 1


def test_counterfactuals_are_those_of_the_model(scm, batch):
    objective = CounterfactualObjective(1, [["thickness"]])
    imagined = objective.counterfactuals(scm, batch)
    assert set(imagined) == set(scm.graph.nodes)
    assert not any(value.requires_grad for value in imagined.values())
    thickness = batch["thickness"]
    assert not torch.equal(imagined["thickness"], thickness)
    assert torch.equal(imagined["thickness"].sort(0).values, thickness.sort(0).values)
    observed = {name: batch[name] for name in scm.graph.nodes}
    answer = scm.counterfactual(observed, {"thickness": imagined["thickness"]})
    torch.testing.assert_close(imagined["intensity"], answer["intensity"][0].detach())


def test_sets_are_drawn_in_turn_and_permuted_apart(scm, batch):
    sets = [["intensity"], ["thickness", "intensity"]]
    objective = CounterfactualObjective(1, sets)
    kept = apart = 0
    for _ in range(20):
        imagined = objective.counterfactuals(scm, batch)
        if torch.equal(imagined["thickness"], batch["thickness"]):
            kept += 1
            continue
        origin = [
            (imagined[name] == batch[name].T).int().argmax(1) for name in ("thickness", "intensity")
        ]
        apart += not torch.equal(*origin)
    assert 3 <= kept <= 17
    assert apart == 20 - kept


def test_rows_with_values_on_the_edge_stay_factual(scm, batch, monkeypatch):
    objective = CounterfactualObjective(1, [["thickness"]])
    rows = torch.arange(len(batch["image"])) == 3
    quantise = scm["intensity"].quantise
    monkeypatch.setattr(
        scm["intensity"], "quantise", lambda value: quantise(value).masked_fill(rows[:, None], 255)
    )
    imagined = objective.counterfactuals(scm, batch)
    for name in scm.graph.nodes:
        assert torch.equal(imagined[name][3], batch[name][3])
    assert not torch.equal(imagined["image"], batch["image"])
    monkeypatch.setattr(scm["intensity"], "quantise", lambda value: torch.full_like(value, 64.0))
    assert torch.isfinite(objective(scm, batch, START).objective)


LADDER = partial(Ladder, channels=(4, 4, 4), latents=(1, 2, 3), embedding=4)


@pytest.mark.parametrize(
    ("settings", "step", "weights"),
    [
        ({"warmup_steps": 10, "fine_weight": 8}, 0, (0, 4, 8)),
        ({"warmup_steps": 10, "fine_weight": 8}, 5, (0.5, 2.5, 4.5)),
        ({"warmup_steps": 10, "fine_weight": 8}, 10, (1, 1, 1)),
        ({"warmup_steps": 10, "fine_weight": 8, "divergence_weight": 0.5}, 5, (0.25, 2.25, 4.25)),
        ({"warmup_steps": 10, "fine_weight": 8, "divergence_weight": 0.5}, 99, (0.5, 0.5, 0.5)),
        ({"warmup_steps": 10, "free_bits": 0.5, "fine_weight": 8}, 5, (0.5, 2.5, 4.5)),
    ],
)
def test_fine_scales_weigh_more_at_first(batch, settings, step, weights):
    image = partial(HierarchicalVAE, shape=(1, 8, 8), ladder=LADDER)
    scm = StructuralCausalModel(GRAPH, MECHANISMS | {"image": image})
    scm.fit(TinyDataModule().variables("train"))
    objective = EvidenceLowerBoundObjective(1, **settings)
    value, elbo = evaluate(objective, scm, batch, TrainingProgress(step, 0, total_steps=1000))
    latent = elbo.evidence["image"].latent
    assert latent.scales == (3, 8, 16)
    dimensions = latent.divergences.mean(dim=0).clamp(min=settings.get("free_bits", 0))
    parts = [part.sum() for part in dimensions.split(latent.scales)]
    expected = sum(each.log_prob.mean() for each in elbo.evidence.values())
    expected = expected - sum(w * part for w, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(value.objective, expected)


def test_a_latent_of_one_scale_has_no_fine_weight(scm, batch):
    progress = TrainingProgress(4, 0)
    found, _ = evaluate(EvidenceLowerBoundObjective(1, 10, fine_weight=8), scm, batch, progress)
    expected, _ = evaluate(EvidenceLowerBoundObjective(1, 10), scm, batch, progress)
    assert torch.equal(found.objective, expected.objective)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partial(EvidenceLowerBoundObjective, 0),
            "num_particles: expected a whole",
        ),
        (partial(EvidenceLowerBoundObjective, 1, warmup_steps=-1), "warmup_steps: expected a"),
        (
            partial(EvidenceLowerBoundObjective, 1, free_bits=math.nan),
            "free_bits: expected",
        ),
        (partial(EvidenceLowerBoundObjective, divergence_weight=0), "divergence_weight: expected"),
        (partial(EvidenceLowerBoundObjective, 1, fine_weight=2), "fine_weight: expected a warm-up"),
        (
            partial(EvidenceLowerBoundObjective, 1, warmup_steps=3, fine_weight=-2),
            "fine_weight: expected",
        ),
        (partial(EvidenceLowerBoundObjective, 1, 3, 4), "expected one of them, but got 3 and 4"),
        (partial(ImportanceWeightedObjective, 1), "set the model's num_particles"),
        (partial(CounterfactualObjective, 1, []), "lists of variables"),
        (partial(CounterfactualObjective, 1, [["a"], []]), "lists of variables"),
        (partial(CounterfactualObjective, 1, [["a"]], weight=0), "weight: expected a number above"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_variables_are_named(scm, batch):
    with pytest.raises(ValueError, match="unknown variable 'colour'; expected some of thickness"):
        CounterfactualObjective(1, [["colour"]])(scm, batch, START)


OBJECTIVES = {
    "warm-up": partial(EvidenceLowerBoundObjective, warmup_steps=8, free_bits=0.1),
    "importance": ImportanceWeightedObjective,
    "counterfactual": partial(
        CounterfactualObjective,
        variables=[["thickness"], ["intensity"]],
        weight=0.5,
        objective=partial(EvidenceLowerBoundObjective, warmup_epochs=2),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_maximises_it_and_a_checkpoint_keeps_it(tmp_path, name):
    model = DeepSCM(GRAPH, MECHANISMS, num_particles=2, objective=OBJECTIVES[name])
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append({key: float(v) for key, v in trainer.callback_metrics.items()})

    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        log_every_n_steps=1,
        callbacks=[Watch()],
    )
    trainer.fit(model, datamodule=TinyDataModule())
    assert {"train/objective", "train/bound", "train/kl/image", "train/log_prob/image"} <= {
        *seen[0]
    }
    if name == "warm-up":
        assert [each["train/kl_weight"] for each in seen] == [0, 1 / 8, 2 / 8, 3 / 8]
        first = seen[0]
        terms = sum(first[f"train/log_prob/{each}"] for each in ("thickness", "intensity", "image"))
        assert first["train/objective"] == pytest.approx(terms, rel=1e-5)
        assert first["train/bound"] < first["train/objective"]
    if name == "counterfactual":
        assert "train/counterfactual_objective" in seen[0]
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    again = DeepSCM.load_from_checkpoint(path)
    assert type(again.objective) is type(model.objective)
    described = torch.load(path, weights_only=True)["hyper_parameters"]["objective"]
    json.dumps(described)
    assert described == describe(OBJECTIVES[name])
    assert again.objective.num_particles == 2


def test_an_objective_that_is_not_finite_is_named(scm):
    class Broken(EvidenceLowerBoundObjective):
        def forward(self, *arguments):
            value = super().forward(*arguments)
            return type(value)(value.objective * float("nan"), value.elbo)

    model = DeepSCM(GRAPH, MECHANISMS, objective=Broken)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(FloatingPointError, match="objective is not finite for 16 of 16"):
        trainer.fit(model, datamodule=TinyDataModule())


def test_older_checkpoints_have_no_objective():
    settings = dict(DeepSCM(GRAPH, MECHANISMS).hparams)
    del settings["objective"]
    from deepscm_pl.configuration import restore

    assert isinstance(DeepSCM(**restore(settings)).objective, EvidenceLowerBoundObjective)
