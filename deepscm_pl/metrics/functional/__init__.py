"""Metrics as pure functions: one value per image, or one per sample."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.metrics.functional.conformal import conformal_factor, rows_needed
    from deepscm_pl.metrics.functional.coverage import (
        RankInterval,
        rank_interval,
        widest_level,
    )
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
    "conformal_factor",
    "kolmogorov_smirnov",
    "mean_absolute_error",
    "peak_signal_to_noise_ratio",
    "pearson_correlation",
    "rank_interval",
    "rows_needed",
    "structural_similarity",
    "wasserstein_distance",
    "widest_level",
]

__getattr__ = first_use(__name__)
