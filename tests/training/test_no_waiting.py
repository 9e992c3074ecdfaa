"""A training step never synchronises with the device."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from on_processes import RowsOfAllKinds, all_kinds, trainer_in
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deepscm_pl.mechanisms import AffineFlow, SplineFlow
from deepscm_pl.runs import finite
from deepscm_pl.runs.finite import FiniteCheck, gradient_norm
from deepscm_pl.training import DeepSCM
from deepscm_pl.training.objectives import (
    CounterfactualObjective,
    EvidenceLowerBoundObjective,
    ImportanceWeightedObjective,
    TrainingProgress,
)
from deepscm_pl.transforms import Interval, Positive

from likelihoods_of_all_kinds import LIKELIHOODS
from tiny import image_mechanism

_WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")


class NoWaiting(TorchDispatchMode):
    """Refuses operations that return a number, or a size that depends on values, to Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        assert not name.startswith(_WAITING), name
        masks = [
            e for e in tree_leaves(args) if isinstance(e, torch.Tensor) and e.dtype == torch.bool
        ]
        assert not (name.startswith("index") and len(masks)), "index of a mask"
        return func(*args, **(kwargs or {}))


def step(model, data):
    """The loss, its gradients and their norms."""
    model.scm.fit(data.variables("train"))
    batch = next(iter(data.train_dataloader()))
    with NoWaiting():
        model.objective(model.scm, batch, TrainingProgress(3, 0)).objective.neg().backward()
        norms = [gradient_norm(group) for group in model.gradient_groups().values()]
    assert all(torch.isfinite(norm) for norm in norms)


def test_every_kind_of_mechanism():
    step(all_kinds(), RowsOfAllKinds())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood(name):
    image = image_mechanism(likelihood=LIKELIHOODS[name])
    step(DeepSCM("image", {"image": image}), RowsOfAllKinds())


@pytest.mark.parametrize(
    "objective",
    [
        partial(EvidenceLowerBoundObjective, warmup_steps=8, free_bits=0.1),
        ImportanceWeightedObjective,
    ],
    ids=["warm-up", "importance-weighted"],
)
def test_objectives(objective):
    whole = all_kinds(partial(DeepSCM, num_particles=2, objective=objective))
    step(whole, RowsOfAllKinds())


class Counterfactual(CounterfactualObjective):
    """The draw of the variables, which runs on the CPU, is excluded."""

    def _drawn_variables(self):
        return self.variables[0]


def test_counterfactuals_of_the_batch():
    mechanisms = {
        "thickness": partial(SplineFlow, constraint=Positive),
        "intensity": partial(AffineFlow, constraint=partial(Interval, low=63, high=256)),
        "image": image_mechanism(),
    }
    graph = "thickness -> intensity; thickness, intensity -> image"
    objective = partial(Counterfactual, variables=[["thickness"]])
    step(DeepSCM(graph, mechanisms, objective=objective), RowsOfAllKinds())


class Arrival:
    """The event of a result that arrives after all steps are queued."""

    def synchronize(self):
        pass


class Guarded(DeepSCM):
    """A model whose whole step is watched: loss, logging, gradients, clipping and weights."""

    def optimizer_step(self, *arguments, **settings):
        with NoWaiting():
            super().optimizer_step(*arguments, **settings)


def test_whole_steps_that_are_logged(tmp_path, monkeypatch):
    check = finite._check
    monkeypatch.setattr(
        finite, "_check", lambda *arguments: check(*arguments)._replace(arrival=Arrival())
    )
    settings = {"limit_val_batches": 0, "gradient_clip_val": 1.0, "log_every_n_steps": 1}
    settings["callbacks"] = [FiniteCheck(delay=100)]
    trainer = trainer_in(tmp_path, max_steps=3, **settings)
    trainer.fit(all_kinds(Guarded), datamodule=RowsOfAllKinds())
    assert trainer.global_step == 3
    assert {
        "train/objective",
        "train/loss/relief",
        "train/kl/drawing",
    } <= trainer.logged_metrics.keys()


def test_synchronisation_is_detected():
    values = torch.ones(3)
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        values.sum().item()
    with NoWaiting(), pytest.raises(AssertionError, match="mask"):
        values[values > 0]
