"""Answers are inside of their domain, so that they are observations of the next question."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import (
    AffineFlow,
    Bernoulli,
    Categorical,
    ConditionalVAE,
    Ordinal,
    SplineFlow,
    SteppedFlow,
    ZeroInflatedFlow,
)
from deepscm_pl.mechanisms.known import Known, Logistic
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.transforms import Interval, Positive
from deepscm_pl.variables import Domain

POSITIVE = partial(AffineFlow, constraint=Positive, hidden=())
INTERVAL = partial(Interval, 64, 255)
SCORES = partial(SteppedFlow, flow=partial(AffineFlow, constraint=partial(Interval, 1, 6)))


def _known(context):
    layers = [Logistic(64, 255)]
    return Known(context, lambda parents: layers, Domain(lower=64.0, upper=255.0, open=True))


MECHANISMS = {
    "real": AffineFlow,
    "positive": POSITIVE,
    "interval": partial(AffineFlow, constraint=INTERVAL),
    "fraction": partial(AffineFlow, constraint=partial(Interval, 0.1, 0.3)),
    "below zero": partial(AffineFlow, constraint=partial(Interval, -1, 0)),
    "spline": partial(SplineFlow, constraint=INTERVAL),
    "count": partial(SteppedFlow, flow=POSITIVE),
    "score": SCORES,
    "halves": partial(SteppedFlow, flow=AffineFlow, step=0.5),
    "grade": partial(Ordinal, categories=4),
    "dose": ZeroInflatedFlow,
    "binary": Bernoulli,
    "category": partial(Categorical, categories=3),
    "known": _known,
    "image": partial(ConditionalVAE, shape=(1, 4, 4), latent=2),
}


@pytest.mark.parametrize("name", MECHANISMS)
@torch.no_grad()
def test_extreme_answers_are_observations(name):
    """Noise far in the tails, as a shift of the causes produces it."""
    scm = StructuralCausalModel("x", {"x": MECHANISMS[name]})
    size = scm["x"].sample_noise((41,))
    scale = torch.linspace(-80, 80, 41)
    noise = {
        key: scale.view(-1, *[1] * (part.dim() - 1)).expand_as(part) for key, part in size.items()
    }
    answer = scm.predict({"x": noise})
    scm.check(answer)
    # As a table writes them, and reads them.
    values = answer["x"].flatten().tolist()
    written = torch.tensor([float(f"{value:.9g}") for value in values], dtype=torch.float32)
    scm.check({"x": written.view_as(answer["x"])})
    scm.counterfactual({"x": written.view_as(answer["x"])}, {"x": lambda value: value})


@torch.no_grad()
def test_an_answer_that_overflows_is_named():
    scm = StructuralCausalModel("age -> volume", {"age": AffineFlow, "volume": POSITIVE})
    last = next(m for m in scm["volume"].modules() if isinstance(m, torch.nn.Linear))
    last.weight[0] = 10.0
    with pytest.raises(ValueError, match=r"^volume: the model's answer is inf.*\(age\)"):
        scm.intervene({"age": 300.0}, 2)


def test_summaries_divide_by_the_particles_less_one():
    values = torch.randn(5, 3, 1)
    torch.testing.assert_close(summarise(values)[1], values.std(dim=0))
    assert torch.equal(summarise(values[:1])[1], torch.zeros(3, 1))


@torch.no_grad()
def test_shifts_of_values_on_a_bound_are_answered():
    """The value that a function replaces is inside, too."""
    scm = StructuralCausalModel("x", {"x": MECHANISMS["interval"]})
    answer = scm.act({"x": lambda value: value}).predict({"x": {"u": torch.tensor([[-80.0]])}})
    assert float(answer["x"]) > 64
