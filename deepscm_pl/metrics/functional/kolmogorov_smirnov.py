"""Does a sample come from the standard normal distribution?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import kstwo
from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_finite

__all__ = ["KolmogorovSmirnov", "kolmogorov_smirnov"]


class KolmogorovSmirnov(NamedTuple):
    """The result of a Kolmogorov–Smirnov test, scalars in double precision.

    Attributes:
        statistic: The largest distance between the two distribution functions, 0 to 1.
        p_value: The probability of at least this statistic, were the N values independent draws
            from N(0, 1).
    """

    statistic: Tensor
    p_value: Tensor


def kolmogorov_smirnov(sample: Tensor) -> KolmogorovSmirnov:
    """sup |F_N(x) − Φ(x)|, F_N the distribution function of a sample and Φ that of N(0, 1).

    Args:
        sample: ``(N,)``.

    Raises:
        ValueError: If the sample is not one-dimensional, empty or not finite.

    Example:
        >>> kolmogorov_smirnov(torch.zeros(1)).statistic
        tensor(0.5000, dtype=torch.float64)
    """
    if sample.dim() != 1 or sample.numel() == 0:
        raise ValueError(
            f"sample: expected shape (N,), N of at least 1, but got {tuple(sample.shape)}; "
            "flatten it."
        )
    require_finite(sample=sample)
    size = sample.numel()
    probability = torch.special.ndtr(sample.double().sort().values)
    steps = torch.arange(size + 1, device=sample.device, dtype=torch.float64) / size
    statistic = torch.maximum((steps[1:] - probability).max(), (probability - steps[:-1]).max())
    p_value = float(kstwo.sf(statistic.item(), size))
    return KolmogorovSmirnov(statistic, statistic.new_tensor(p_value))
