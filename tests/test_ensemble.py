"""Laws of ensembles: mixtures of models whose particles keep what a single model keeps."""

from __future__ import annotations

from functools import partial
from itertools import islice

import pytest
import torch

from deepscm_pl.ensemble import Ensemble, stacking_weights
from deepscm_pl.mechanisms import AffineFlow, Bernoulli
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Positive
from deepscm_pl.variables import Variable

GRAPH = "a -> b"


def member(slope, deviation=1.0, graph=GRAPH):
    """b = slope·a + deviation·u."""
    names = ("a", "b", "c") if "c" in graph else ("a", "b")
    scm = StructuralCausalModel(graph, dict.fromkeys(names, partial(AffineFlow, hidden=())))
    with torch.no_grad():
        for parameter in scm.parameters():
            parameter.zero_()
        weight, bias = scm[names[-1]].parameters_of.parameters()
        weight.view(2, -1)[0] = slope
        bias.view(-1)[1] = torch.tensor(deviation).log()
    return scm


def test_variance_of_linear_gaussian_members_is_analytic():
    ensemble = Ensemble([member(1.0), member(3.0)])
    torch.manual_seed(0)
    drawn = ensemble.intervene({"a": 2.0}, 100_000)["b"]
    spread = ensemble.spread(drawn)
    assert float(spread.within) == pytest.approx(1, rel=0.01)
    assert float(spread.between) == pytest.approx(2, rel=0.01)  # means 2 and 6
    assert float(spread.total) == pytest.approx(5**0.5, rel=0.01)


def test_the_parts_of_the_variance_are_estimated_without_bias():
    """Noise of the means of few particles is no disagreement between members."""
    ensemble = Ensemble([member(1.0), member(3.0)], [1, 2])
    torch.manual_seed(0)
    shape = (100_000, 6)
    drawn = torch.cat(
        [
            member.intervene({"a": 2.0}, (n, shape[0]))["b"]
            for member, n in zip(ensemble.members, ensemble.share(6), strict=True)
        ]
    )
    spread = ensemble.spread(drawn)
    assert float(spread.within.square().mean()) == pytest.approx(1, rel=0.01)
    between = 16 * (1 / 3) * (2 / 3)  # means 2 and 6
    assert float(spread.between.square().mean()) == pytest.approx(between, rel=0.01)
    torch.testing.assert_close(
        spread.total.square(), spread.within.square() + spread.between.square()
    )
    agreeing = Ensemble([member(1.0), member(1.0)])
    drawn = agreeing.intervene({"a": 2.0}, 60)["b"]
    assert float(agreeing.spread(drawn).between) < 0.2
    assert bool(ensemble.spread(torch.randn(2, 5)).within.isnan().all())
    alone = Ensemble([member(1.0), member(3.0)], [1, 0]).spread(torch.randn(4, 5))
    assert torch.equal(alone.total, alone.within)
    assert bool(alone.between.isnan().all())


@pytest.mark.parametrize("weights", [None, [0.5, 0.3, 0.2], [0, 1, 0], [1, 1, 7]])
def test_any_number_of_turns_is_divided_by_the_weights(weights):
    ensemble = Ensemble([member(1.0)] * 3, weights)
    turns = torch.tensor(list(islice(ensemble.turns(), 500)))
    given = torch.nn.functional.one_hot(turns, 3).cumsum(dim=0)
    expected = torch.tensor(ensemble.weights) * torch.arange(1, 501)[:, None]
    assert float((given - expected).abs().max()) < 1.001


def test_shares_choose_the_members():
    ensemble = Ensemble([member(1.0), member(3.0)])
    factual = {"a": torch.zeros(6, 1), "b": torch.zeros(6, 1)}
    answer = ensemble.counterfactual(factual, {"a": 1.0}, 3, shares=[1, 2])
    assert answer["b"][:, 0, 0].tolist() == [1.0, 3.0, 3.0]
    assert torch.equal(ensemble.intervene({"b": 1.0}, 4, [0, 4])["b"], torch.ones(4, 1))


def test_counterfactuals_of_members_are_analytic_and_null_interventions_keep_everything():
    ensemble = Ensemble([member(1.0), member(3.0)], [1, 3])
    factual = {"a": torch.randn(6, 1), "b": torch.randn(6, 1)}
    answer = ensemble.counterfactual(factual, {"a": lambda a: a + 1}, num_particles=4)
    slopes = torch.tensor([1.0, 3.0])[ensemble.member_of(4)]
    assert ensemble.share(4) == [1, 3]
    expected = factual["b"] + slopes[:, None, None]
    torch.testing.assert_close(answer["b"], expected)
    null = ensemble.counterfactual(factual, {"a": factual["a"]}, num_particles=4)
    torch.testing.assert_close(null["b"], factual["b"].expand(4, -1, -1))
    other = ensemble.counterfactual(factual, {"b": 0.0}, num_particles=4)
    assert torch.equal(other["a"], factual["a"].expand(4, -1, -1))


def test_several_interventions():
    ensemble = Ensemble([member(1.0), member(3.0)])
    factual = {"a": torch.randn(6, 1), "b": torch.randn(6, 1)}
    dos = [{"a": 1.0}, {"a": 2.0}, {}]
    assert ensemble.counterfactual(factual, dos, 5)["b"].shape == (5, 3, 6, 1)
    assert ensemble.intervene(dos, 5)["b"].shape == (3, 5, 1)


def test_one_member_is_that_member():
    scm = member(2.0)
    factual = {"a": torch.randn(6, 1), "b": torch.randn(6, 1)}
    for ask in (
        lambda model: model.sample(9),
        lambda model: model.intervene({"a": 1.0}, 9),
        lambda model: model.counterfactual(factual, {"a": 1.0}, 2),
    ):
        torch.manual_seed(0)
        expected = ask(scm)
        torch.manual_seed(0)
        found = ask(Ensemble([scm]))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("count", range(1, 12))
def test_all_particles_are_shared(count):
    ensemble = Ensemble([member(1.0)] * 3, [0.5, 0.3, 0.2])
    shares = ensemble.share(count)
    assert sum(shares) == count
    assert all(abs(n - w * count) < 1 for n, w in zip(shares, ensemble.weights, strict=True))
    assert len(ensemble.member_of(count)) == count
    parts = [ensemble.share(count, first, min(4, count - first)) for first in range(0, count, 4)]
    joined = [torch.repeat_interleave(torch.tensor(part)) for part in parts]
    assert torch.equal(torch.cat(joined), ensemble.member_of(count))


def test_stacking_finds_the_mixture():
    torch.manual_seed(0)
    first = torch.rand(20_000) < 0.7
    rows = torch.where(first, torch.randn(20_000), torch.randn(20_000) + 6)
    log_probs = torch.stack([-0.5 * rows**2, -0.5 * (rows - 6) ** 2, -0.5 * (rows + 20) ** 2])
    assert stacking_weights(log_probs) == pytest.approx([0.7, 0.3, 0], abs=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ensemble([]), "at least one model"),
        (lambda: Ensemble([member(1.0), member(1.0, graph="b, a -> c")]), "models of one graph"),
        (lambda: Ensemble([member(1.0)], [0.0]), "weights: expected 1 numbers"),
        (lambda: Ensemble([member(1.0)] * 2, [1.0]), "weights: expected 2 numbers"),
        (lambda: Ensemble([member(1.0)] * 2).intervene({}, 3, [1, 1]), "expected 3 particles"),
        (lambda: stacking_weights(torch.zeros(2, 0)), "members, rows"),
        (lambda: stacking_weights(torch.full((2, 3), torch.nan)), "members, rows"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_variables_are_refused():
    positive = partial(AffineFlow, constraint=Positive)
    scm = StructuralCausalModel(GRAPH, {"a": AffineFlow, "b": positive})
    with pytest.raises(ValueError, match="b of number 2 differs"):
        Ensemble([member(1.0), scm])
    coin = StructuralCausalModel(GRAPH, {"a": Bernoulli, "b": AffineFlow})
    with pytest.raises(ValueError, match="a of number 2 differs"):
        Ensemble([member(1.0), coin])
    years = member(1.0)
    years.describe({"a": Variable("a", unit="years")})
    with pytest.raises(ValueError, match="a of number 2 differs"):
        Ensemble([member(1.0), years])
