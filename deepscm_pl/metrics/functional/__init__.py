"""Metrics as pure functions, with one value per image or per sample."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.metrics.functional.conformal import (
        conformal_factor as conformal_factor,
        rows_needed as rows_needed,
    )
    from deepscm_pl.metrics.functional.coverage import (
        RankInterval as RankInterval,
        rank_interval as rank_interval,
        widest_level as widest_level,
    )
    from deepscm_pl.metrics.functional.distances import (
        KolmogorovSmirnov as KolmogorovSmirnov,
        kolmogorov_smirnov as kolmogorov_smirnov,
        kolmogorov_smirnov_statistic as kolmogorov_smirnov_statistic,
        pearson_correlation as pearson_correlation,
        wasserstein_distance as wasserstein_distance,
    )
    from deepscm_pl.metrics.functional.image import (
        bits_per_dimension as bits_per_dimension,
        mean_absolute_error as mean_absolute_error,
        peak_signal_to_noise_ratio as peak_signal_to_noise_ratio,
        structural_similarity as structural_similarity,
    )
    from deepscm_pl.metrics.functional.latent import (
        gaussian_divergence as gaussian_divergence,
        latent_divergence_score as latent_divergence_score,
    )
    from deepscm_pl.metrics.functional.perceptual import (
        frechet_distance as frechet_distance,
        kernel_distance as kernel_distance,
        perceptual_distance as perceptual_distance,
    )

__getattr__ = first_use(__name__)
