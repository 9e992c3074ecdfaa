"""Metrics as pure functions, with one value per image or per sample."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.metrics.functional.coverage import RankInterval, rank_interval, widest_level
    from deepscm_pl.metrics.functional.distances import (
        KolmogorovSmirnov,
        kolmogorov_smirnov,
        pearson_correlation,
        wasserstein_distance,
    )
    from deepscm_pl.metrics.functional.image import (
        bits_per_dimension,
        mean_absolute_error,
        peak_signal_to_noise_ratio,
        structural_similarity,
    )

__all__ = [
    "KolmogorovSmirnov",
    "RankInterval",
    "bits_per_dimension",
    "kolmogorov_smirnov",
    "mean_absolute_error",
    "peak_signal_to_noise_ratio",
    "pearson_correlation",
    "rank_interval",
    "structural_similarity",
    "wasserstein_distance",
    "widest_level",
]

__getattr__ = first_use(__name__)
