"""Every argument of every component, changed in many ways: accepted, or refused by name."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from mutations import MUTATIONS
from torch import nn

from deepscm_pl import callbacks, likelihoods
from deepscm_pl.data import DigitsDataModule
from deepscm_pl.data.synthetic_brain import SyntheticBrainDataModule
from deepscm_pl.mechanisms import (
    AffineFlow,
    Bernoulli,
    Categorical,
    ConditionalVAE,
    Context,
    MultiscaleFlow,
    SplineFlow,
)
from deepscm_pl.nn import (
    ConvolutionalConditioner,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Overlay,
    ParameterNetwork,
    PyramidDecoder,
    PyramidEncoder,
    ResidualClassifier,
    ResidualDecoder,
    ResidualEncoder,
    TemplateDecoder,
)
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import ImageClassifier, OneCycle
from deepscm_pl.training.objectives import CounterfactualObjective, EvidenceLowerBoundObjective
from deepscm_pl.transforms import Interval
from deepscm_pl.variables import Domain

SHAPE = (1, 8, 8)
CONTEXT = Context({"a": Domain(), "b": Domain()})
LIKELIHOODS = [
    made
    for name in likelihoods.__all__
    if not inspect.isabstract(made := getattr(likelihoods, name))
]
FIGURES = [
    made
    for name in callbacks.__all__
    if not inspect.isabstract(made := getattr(callbacks, name))
    and issubclass(made, callbacks.FigureCallback)
]


def rows(factory):
    """Name of the first required argument of a grid."""
    grid = "interventions" in inspect.signature(factory).parameters
    return partial(factory, interventions=["a=1"]) if grid else factory


FACTORIES = [
    partial(AffineFlow, CONTEXT),
    partial(SplineFlow, CONTEXT),
    partial(Bernoulli, CONTEXT),
    partial(Categorical, CONTEXT, categories=3),
    partial(ConditionalVAE, CONTEXT, shape=SHAPE, latent=2),
    partial(MultiscaleFlow, CONTEXT, shape=SHAPE, steps=(1, 1)),
    partial(ConvolutionalEncoder, SHAPE, 2),
    partial(ConvolutionalDecoder, 2, 2, SHAPE),
    partial(ResidualEncoder, SHAPE, 2),
    partial(ResidualDecoder, 2, 2, SHAPE),
    partial(PyramidEncoder, SHAPE, 2),
    partial(PyramidDecoder, 2, 2, SHAPE),
    partial(TemplateDecoder, 2, 2, SHAPE),
    partial(Overlay, 2, 2, SHAPE),
    partial(ConvolutionalConditioner, 2, 2, 2),
    partial(ParameterNetwork, 2, 3),
    partial(ResidualClassifier, SHAPE, 3),
    *(partial(make, SHAPE) for make in LIKELIHOODS),
    partial(Interval, low=0.0, high=1.0),
    partial(EvidenceLowerBoundObjective, num_particles=1),
    partial(CounterfactualObjective, 1, [["a"]]),
    partial(OneCycle, torch.optim.Adam([nn.Parameter(torch.zeros(1))])),
    partial(ImageClassifier, shape=SHAPE),
    DigitsDataModule,
    SyntheticBrainDataModule,
    callbacks.AssociationReport,
    callbacks.EvaluationReport,
    callbacks.SkipSteps,
    *map(rows, FIGURES),
]


def class_of(factory):
    return factory.func if isinstance(factory, partial) else factory


def numeric_arguments(factory):
    """Names of the arguments whose defaults are numbers or lists of numbers."""
    for name, parameter in inspect.signature(factory).parameters.items():
        value = parameter.default
        is_list = isinstance(value, tuple | list) and value and isinstance(value[0], int | float)
        if (isinstance(value, int | float) and not isinstance(value, bool)) or is_list:
            yield name, value


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: class_of(factory).__name__)
def test_a_wrong_number_is_refused_by_its_name(factory):
    """Only ValueError is raised, and no value of another type is accepted as a number."""
    for argument, default in numeric_arguments(factory):
        for kind, value in MUTATIONS.items():
            if kind == "huge":
                continue
            if isinstance(default, tuple | list) and kind != "list":
                value = [value, *default[1:]]
            message = refusal(factory, **{argument: value})
            if message is None:
                assert kind not in ("text", "empty", "nan", "truth"), (argument, value)
                assert kind != "null" or argument in may_be_null(factory), argument
            else:
                assert argument in message, (argument, kind, message)
                assert "NoneType" not in message


def refusal(factory, **arguments):
    """Message with which the arguments are refused; None if they are accepted."""
    try:
        factory(**arguments)
    except ValueError as error:
        return str(error)
    return None


def may_be_null(factory):
    annotations = inspect.get_annotations(class_of(factory).__init__)
    return {name for name, annotation in annotations.items() if "None" in str(annotation)}


@pytest.mark.parametrize(
    ("key", "mechanism"),
    [
        ("latent", partial(ConditionalVAE, shape=SHAPE, latent=10**12)),
        ("hidden", partial(ConditionalVAE, shape=SHAPE, hidden=10**12)),
        ("shape", partial(ConditionalVAE, shape=(1, 10**6, 10**6))),
        ("shape", partial(ConditionalVAE, shape=(1, 10**12, 10**12))),
        (
            "encoder.features",
            partial(ConditionalVAE, encoder=partial(ConvolutionalEncoder, features=10**12)),
        ),
        (
            "decoder.channels",
            partial(ConditionalVAE, decoder=partial(PyramidDecoder, channels=[8, 10**9])),
        ),
        (
            "num_components",
            partial(
                ConditionalVAE,
                likelihood=partial(likelihoods.DiscretisedLogisticMixture, num_components=10**10),
            ),
        ),
        ("bins", partial(SplineFlow, bins=10**12)),
        ("hidden", partial(SplineFlow, hidden=(10**12,))),
        ("categories", partial(Categorical, categories=10**13)),
    ],
)
def test_networks_beyond_the_memory_are_refused_before_they_are_built(key, mechanism):
    with pytest.raises(ValueError, match=rf"{key}: (\d+ takes at least|expected)"):
        StructuralCausalModel("a -> x", {"a": AffineFlow, "x": mechanism})


def test_many_scales_are_refused_at_once():
    with pytest.raises(ValueError, match="channels: expected at most 6 numbers"):
        ConvolutionalEncoder(SHAPE, 0, channels=[1] * 200_000)


def test_estimates_draw_no_random_number():
    torch.manual_seed(3)
    StructuralCausalModel("x", {"x": partial(ConditionalVAE, shape=SHAPE, latent=2)})
    after = torch.rand(1)
    torch.manual_seed(3)
    ConditionalVAE(Context(), shape=SHAPE, latent=2)
    assert torch.equal(after, torch.rand(1))
