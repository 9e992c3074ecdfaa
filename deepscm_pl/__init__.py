"""Deep structural causal models of images, with PyTorch Lightning and Pyro."""

from deepscm_pl.graph import CausalGraph
from deepscm_pl.likelihoods import (
    DiscretisedGaussian,
    DiscretisedLogisticMixture,
    FixedVarianceGaussian,
    Likelihood,
    PredictedVarianceGaussian,
    SharedVarianceGaussian,
)
from deepscm_pl.mechanisms import (
    AffineFlow,
    ConditionalVAE,
    Constant,
    Context,
    Mechanism,
    MultiscaleFlow,
    SplineFlow,
)
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.training import DeepSCM
from deepscm_pl.transforms import Interval, Positive, Real
from deepscm_pl.variables import Domain, Noise, Variable, Variables

__all__ = [
    "AffineFlow",
    "CausalGraph",
    "ConditionalVAE",
    "Constant",
    "Context",
    "DeepSCM",
    "DiscretisedGaussian",
    "DiscretisedLogisticMixture",
    "Domain",
    "FixedVarianceGaussian",
    "Interval",
    "Likelihood",
    "Mechanism",
    "MultiscaleFlow",
    "Noise",
    "Positive",
    "PredictedVarianceGaussian",
    "Real",
    "SharedVarianceGaussian",
    "SplineFlow",
    "StructuralCausalModel",
    "Variable",
    "Variables",
    "summarise",
]
