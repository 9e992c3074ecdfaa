"""Likelihoods p(y | decoder output) of preprocessed images, one family per file."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.likelihoods.base import Likelihood
    from deepscm_pl.likelihoods.correlated import (
        CovarianceGaussian,
        LowRankGaussian,
        PredictedCovarianceGaussian,
        PredictedLowRankGaussian,
        SharedCovarianceGaussian,
        SharedLowRankGaussian,
    )
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
    from deepscm_pl.likelihoods.laplace import LaplaceLikelihood

__all__ = [
    "CovarianceGaussian",
    "DiscretisedGaussian",
    "DiscretisedLikelihood",
    "DiscretisedLogisticMixture",
    "FixedVarianceGaussian",
    "GaussianLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "LowRankGaussian",
    "PredictedCovarianceGaussian",
    "PredictedLowRankGaussian",
    "PredictedVarianceGaussian",
    "SharedCovarianceGaussian",
    "SharedLowRankGaussian",
    "SharedVarianceGaussian",
]

__getattr__ = first_use(__name__)
