"""Counterfactual latent divergence: minimality in the latent space of an unconditional model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["gaussian_divergence", "latent_divergence_score"]

_AT_A_TIME = 64
_WEIGHTS = (0.8, 0.2)


def gaussian_divergence(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], published: bool = False
) -> Tensor:
    r"""Compute the mean over D independent latents of KL(N(m, s²) ‖ N(m', s'²)), in nats.

    Args:
        first: Mean m and log-scale log s, ``(*batch, D)``.
        second: m' and log s', which broadcast with the first.
        published: Take the mean for the log-scale, too, as the code of Melistas et al. (2024,
            arXiv:2403.20287) does.

    Example:
        >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2)
        >>> gaussian_divergence((one, zero), (zero, zero))
        tensor([0.5000])
    """
    (mean, scale), (other, other_scale) = first, second
    if published:
        scale, other_scale = mean, other
    ratio = (2 * (scale - other_scale)).exp()
    shift = ((mean - other) / other_scale.exp()).square()
    return (other_scale - scale + 0.5 * (ratio + shift - 1)).mean(dim=-1)


def latent_divergence_score(
    factual: tuple[Tensor, Tensor],
    counterfactual: tuple[Tensor, Tensor],
    bins: NDArray[np.int64],
    target_bins: NDArray[np.int64],
    published: bool = False,
) -> Tensor:
    r"""Compute CLD = log(0.8 exp P(S_cf ≤ d) + 0.2 exp P(S_f ≥ d)) of each image, ``(N,)``.

    d is the divergence of the counterfactual from its factual image; S_f are those of recorded
    images with the attribute of the factual, S_cf those of recorded images with the attribute of
    the counterfactual (Sanchez and Tsaftaris 2022, arXiv:2202.10166; Melistas et al. 2024,
    arXiv:2403.20287). It is zero at best, if the counterfactual is closer to its factual than
    others with the new attribute are, and further away than others with the old one.

    Args:
        factual: Mean and log-scale of the latents of recorded images, ``(N, D)``.
        counterfactual: Those of the counterfactual of each image.
        bins: The bin of the attribute of each recorded image, ``(N,)``.
        target_bins: The bin of the attribute of each counterfactual, ``(N,)``.
        published: As for :func:`gaussian_divergence`.

    Returns:
        ``(N,)``, NaN where no recorded image has the attribute of the counterfactual.

    Example:
        >>> means = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> scales, bins = torch.zeros(4, 1), np.array([0, 0, 1, 1])
        >>> score = latent_divergence_score((means, scales), (means + 1, scales), bins, 1 - bins)
        >>> [round(each, 2) for each in score.tolist()]
        [0.0, 0.0, 0.0, 0.0]
    """
    distance = gaussian_divergence(counterfactual, factual, published)
    found = torch.full_like(distance, float("nan"), dtype=torch.float64)
    for own in np.unique(bins):
        for target in np.unique(target_bins[bins == own]):
            rows = torch.from_numpy(np.flatnonzero((bins == own) & (target_bins == target)))
            same, other = (torch.from_numpy(np.flatnonzero(bins == each)) for each in (own, target))
            if len(other):
                found[rows] = _score(factual, distance, rows, same, other, published)
    return found


def _score(
    factual: tuple[Tensor, Tensor],
    distance: Tensor,
    rows: Tensor,
    same: Tensor,
    other: Tensor,
    published: bool,
) -> Tensor:
    parts = []
    for some in rows.split(_AT_A_TIME):
        ends = tuple(each[some][:, None] for each in factual)
        limit = distance[some][:, None]
        near, far = (
            gaussian_divergence((factual[0][each], factual[1][each]), (ends[0], ends[1]), published)
            for each in (other, same)
        )
        first = (near <= limit).double().mean(dim=1).exp()
        second = (far >= limit).double().mean(dim=1).exp()
        parts.append((_WEIGHTS[0] * first + _WEIGHTS[1] * second).log())
    return torch.cat(parts)
