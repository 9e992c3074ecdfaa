"""Metrics as pure functions, one value per image."""

from deepscm_pl.metrics.functional.image import bits_per_dimension, mean_absolute_error

__all__ = ["bits_per_dimension", "mean_absolute_error"]
