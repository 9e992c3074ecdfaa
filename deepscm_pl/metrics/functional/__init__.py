"""Metrics as pure functions: one value per image, or one per sample."""

from deepscm_pl.metrics.functional.correlation import distance_correlation, pearson_correlation
from deepscm_pl.metrics.functional.coverage import (
    RankInterval,
    central_interval_coverage,
    rank_interval,
    widest_level,
)
from deepscm_pl.metrics.functional.image import (
    bits_per_dimension,
    mean_absolute_error,
    peak_signal_to_noise_ratio,
)
from deepscm_pl.metrics.functional.kolmogorov_smirnov import KolmogorovSmirnov, kolmogorov_smirnov
from deepscm_pl.metrics.functional.minimality import minimality_ratio
from deepscm_pl.metrics.functional.structural_similarity import structural_similarity
from deepscm_pl.metrics.functional.wasserstein import wasserstein_distance

__all__ = [
    "KolmogorovSmirnov",
    "RankInterval",
    "bits_per_dimension",
    "central_interval_coverage",
    "distance_correlation",
    "kolmogorov_smirnov",
    "mean_absolute_error",
    "minimality_ratio",
    "peak_signal_to_noise_ratio",
    "pearson_correlation",
    "rank_interval",
    "structural_similarity",
    "wasserstein_distance",
    "widest_level",
]
