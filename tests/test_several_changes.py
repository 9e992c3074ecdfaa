"""Several changes at once: functions of the natural value, and functions of the factual one."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl import AffineFlow, Bernoulli, OfFactual, StructuralCausalModel, Variable
from deepscm_pl.callbacks.images import CounterfactualGrid, InterventionGrid
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.interventions import Increase, Multiply, format_do, parse_do
from deepscm_pl.reports import Report
from deepscm_pl.variables import Domain

from oracle import make
from tiny import KnownTinyDataModule

VARIABLES = {"a": Variable("a"), "b": Variable("b", unit="ml")}


@pytest.mark.parametrize(
    ("text", "function", "title"),
    [
        ("b=factual+20", Increase(20.0), "do(b = factual + 20 ml)"),
        (" b = factual - 2.5", Increase(-2.5), "do(b = factual − 2.5 ml)"),
        ("b=factual+-2.5", Increase(-2.5), "do(b = factual − 2.5 ml)"),
        ("b=factual*1.1", Multiply(1.1), "do(b = factual × 1.1)"),
        ("b=factual", Increase(0.0), "do(b = factual)"),
    ],
)
def test_changes_of_factual_values_are_parsed_and_formatted(text, function, title):
    do = parse_do(text, VARIABLES)
    assert do == {"b": OfFactual(function)}
    assert format_do(do, VARIABLES) == title


def test_other_functions_and_classes_called_factual():
    assert format_do({"b": OfFactual(torch.exp)}, VARIABLES) == "do(b = factual, …)"
    named = {"s": Variable("s", Domain(categories=2), classes=("factual", "other"))}
    assert parse_do("s=factual", named) == {"s": 0.0}
    assert format_do(parse_do("b=factual/2", VARIABLES)) == "do(b = factual / 2)"
    with pytest.raises(ValueError, match=r"a change such as factual\+20.*'factual\+'"):
        parse_do("b=factual+", VARIABLES)


@pytest.fixture
def scm():
    """b := 10·a + u for a unit standard deviation of a."""
    made = StructuralCausalModel(
        "a -> b", {"a": AffineFlow, "b": partial(AffineFlow, hidden=())}
    ).double()
    layer = made["b"].parameters_of
    with torch.no_grad():
        next(p for p in layer.parameters() if p.shape == (2, 1)).copy_(
            torch.tensor([[10.0], [0.0]])
        )
    return made


def test_a_function_of_the_natural_value_and_of_the_factual_one_differ_under_another_change(scm):
    factual = {"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([[13.0], [18.0]])}
    factual = {name: value.double() for name, value in factual.items()}
    natural, kept, moved = (
        scm.counterfactual(factual, parse_do(f"a+=3, {text}"))["b"].flatten().tolist()
        for text in ("b+=20", "b=factual", "b=factual+20")
    )
    assert natural == pytest.approx([63, 68])
    assert kept == [13, 18]
    assert moved == pytest.approx([33, 38])
    alone = [scm.counterfactual(factual, parse_do(t))["b"] for t in ("b+=20", "b=factual+20")]
    torch.testing.assert_close(*alone)


def test_draws_have_no_factual_value(scm):
    for do in (parse_do("b=factual+20"), [{}, parse_do("b=factual")]):
        with pytest.raises(ValueError, match=r"do: b is a function of its factual value.*b\+=20"):
            scm.intervene(do, 3)
    images = partial(make)
    with pytest.raises(ValueError, match="factual value"):
        InterventionGrid(["intensity=factual+1"]).check(images())
    assert CounterfactualGrid(["intensity=factual+1"]).check(images()) is None


def test_factual_values_stay_inside_their_domain():
    scm = StructuralCausalModel("s", {"s": Bernoulli})
    with pytest.raises(ValueError, match="s: expected a class index"):
        scm.counterfactual({"s": torch.tensor([[1.0]])}, parse_do("s=factual+1"))


def test_the_evaluation_compares_both_readings_with_the_world():
    """The oracle is the world, so that its errors are zero under both."""
    texts = ["thickness-=0.5, intensity=factual+8", "thickness-=0.5, intensity+=8"]
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=40))
    settings = EvaluationSettings(texts, workers=1, num_particles=1, density_size=50)
    found = evaluate(model, settings, progress=False)
    factual, natural = found.counterfactuals
    for each in (factual, natural):
        assert each.quantities["error/mean_absolute_error/particle"].mean == 0
        assert each.quantities["error/mean_absolute_error/factual"].mean > 0.1
    # The intensity falls with the thickness, so that the natural value is further from white.
    assert natural.left_out < factual.left_out < 40
    assert any("factual" in name for name in Report(model, found).scalars())
