"""p(y | decoder output): what noise a decoder's image carries, one family per file."""

from deepscm_pl.likelihoods.base import Likelihood
from deepscm_pl.likelihoods.discretised import (
    DiscretisedGaussian,
    DiscretisedLikelihood,
    DiscretisedLogisticMixture,
)
from deepscm_pl.likelihoods.gaussian import (
    FixedVarianceGaussian,
    GaussianLikelihood,
    PredictedVarianceGaussian,
    SharedVarianceGaussian,
)

__all__ = [
    "DiscretisedGaussian",
    "DiscretisedLikelihood",
    "DiscretisedLogisticMixture",
    "FixedVarianceGaussian",
    "GaussianLikelihood",
    "Likelihood",
    "PredictedVarianceGaussian",
    "SharedVarianceGaussian",
]
