"""All likelihoods, created as from a configuration, for the laws that they share."""

from __future__ import annotations

from functools import partial

from deepscm_pl.likelihoods import (
    DiscretisedGaussian,
    DiscretisedLogisticMixture,
    FixedVarianceGaussian,
    LaplaceLikelihood,
    PredictedCovarianceGaussian,
    PredictedLowRankGaussian,
    PredictedVarianceGaussian,
    SharedCovarianceGaussian,
    SharedLowRankGaussian,
    SharedVarianceGaussian,
)

LIKELIHOODS = {
    "fixed": FixedVarianceGaussian,
    "shared": SharedVarianceGaussian,
    "predicted": PredictedVarianceGaussian,
    "shared_covariance": SharedCovarianceGaussian,
    "predicted_covariance": partial(PredictedCovarianceGaussian, radius=1),
    "shared_low_rank": partial(SharedLowRankGaussian, rank=3),
    "predicted_low_rank": partial(PredictedLowRankGaussian, rank=3),
    "laplace": LaplaceLikelihood,
    "discretised": DiscretisedGaussian,
    "mixture": partial(DiscretisedLogisticMixture, num_components=3),
}
