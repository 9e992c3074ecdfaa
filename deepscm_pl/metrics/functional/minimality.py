"""Does a counterfactual change more than it has to?"""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.metrics.functional.image import mean_absolute_error

__all__ = ["minimality_ratio"]


def minimality_ratio(
    counterfactual: Tensor, factual: Tensor, truth: Tensor, spatial_dims: int = 2
) -> Tensor:
    """d(counterfactual, factual) / d(truth, factual), d the mean absolute error, for each image.

    One if as much changed as had to, above one if more did, below one if less.

    Args:
        counterfactual: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``, in grey levels.
        factual: The same shape.
        truth: The true counterfactual, the same shape.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``; where the truth is the factual, infinite, or NaN if the counterfactual is
        the factual, too.

    Raises:
        ValueError: If shapes or devices differ, or ``spatial_dims`` is neither.

    Example:
        >>> import torch
        >>> black = torch.zeros(1, 1, 8, 8)
        >>> minimality_ratio(black + 30, black, truth=black + 20)
        tensor([1.5000])
    """
    needed = mean_absolute_error(truth, factual, spatial_dims)
    return mean_absolute_error(counterfactual, factual, spatial_dims) / needed
