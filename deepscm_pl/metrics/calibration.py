"""Calibration of predicted intervals and of abducted noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepscm_pl.metrics.functional import (
    kolmogorov_smirnov,
    pearson_correlation,
    rank_interval,
)
from deepscm_pl.metrics.functional.checks import require_finite_values, require_same_device
from deepscm_pl.metrics.statistics import (
    CollectingMetric,
    PerImageMetric,
    Statistic,
    concatenate,
    require_metric_device,
)
from deepscm_pl.variables import Variables

__all__ = ["IntervalCoverage", "NoiseCalibration"]


class IntervalCoverage(PerImageMetric):
    """Fraction of the truth inside central intervals of the particles, at several levels.

    For each level α, this is the mean over images of the fraction of covered values (pixels), see
    :func:`~deepscm_pl.metrics.functional.RankInterval.coverage`. It is α for an exact predictive
    distribution, also of whole grey levels, below α if the particles vary too little, and above α
    if they vary too much.

    - ``all/α``: over all values;
    - ``varying/α``: over the values in which the P particles and the truth are not all equal, as
      the many pixels that are always black would hide the others. It is α for an exact predictive
      distribution, too: the selection is symmetric in all P + 1 images;
    - ``varying``: the fraction of these values.

    Args:
        levels: The levels α, each strictly between 0 and 1. Levels above
            :func:`~deepscm_pl.metrics.functional.widest_level` of the number of particles overrate
            coverage.

    Example:
        >>> import torch
        >>> metric = IntervalCoverage(levels=[0.5])
        >>> particles = torch.arange(99.0)[:, None, None].expand(99, 2, 4)
        >>> metric.update(particles, torch.full((2, 4), 48.5))
        >>> metric.compute()["all/0.5"].mean
        1.0
    """

    def __init__(self, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)) -> None:
        for level in levels:
            if not 0 < level < 1:
                raise ValueError(f"levels: expected numbers between 0 and 1, but got {level}.")
        if not levels or len({f"{level:g}" for level in levels}) < len(levels):
            raise ValueError(
                "levels: expected at least one number, all different in the first six digits, but "
                f"got {list(levels)}."
            )
        self.levels = tuple(levels)
        kinds = [f"{kind}/{level:g}" for kind in ("all", "varying") for level in levels]
        super().__init__([*kinds, "varying"])

    def update(self, particles: Tensor, truth: Tensor) -> None:
        """Add a batch.

        Args:
            particles: Images in grey levels, or values of a scalar, ``(P, B, *event)``.
            truth: ``(B, *event)``.

        Raises:
            ValueError: If shapes or devices do not match, or a value is not finite.
        """
        interval = rank_interval(particles, truth)
        varying = ((particles != truth).any(dim=0)).double().flatten(1)
        quantities = {"varying": varying.mean(dim=1)}
        for level in self.levels:
            covered = interval.coverage(level).flatten(1)
            quantities[f"all/{level:g}"] = covered.mean(dim=1)
            quantities[f"varying/{level:g}"] = (covered * varying).mean(dim=1)
        self._add(quantities)

    def compute(self) -> dict[str, Statistic]:
        """Return the fractions above, with standard errors over images."""
        return super().compute() | {
            f"varying/{level:g}": self._ratio(f"varying/{level:g}", "varying")
            for level in self.levels
        }


class NoiseCalibration(CollectingMetric):
    """Comparison of the abducted noise of one variable with its prior N(0, I).

    If the model is correct, each component of the noise u that it infers from data is standard
    normal and independent of the parents of the variable; otherwise the mechanism does not fit or
    the causal assumptions are violated. With one draw of the noise for each observation:

    - ``kolmogorov_smirnov`` and ``p_value``: test of all components of all observations, pooled,
      against N(0, 1). The p-value is valid for independent components only, such as scalar noise;
    - ``mean`` and ``standard_deviation``: of all components, pooled;
    - ``mean/largest`` and ``standard_deviation/furthest``: over components, the mean furthest from
      zero and the standard deviation furthest from one;
    - ``correlation/<parent>``: over components, the linear correlation with the parent furthest
      from zero.

    The metric stores all values, and is exact over several processes.

    Args:
        parents: Names of the parents, which are scalars.

    Example:
        >>> noise, parents = torch.randn(2000, 1), {"age": torch.rand(2000, 1)}
        >>> metric = NoiseCalibration(parents=["age"])
        >>> metric.update(noise, parents)
        >>> result = metric.compute()
        >>> result["kolmogorov_smirnov"] < 0.05, abs(result["correlation/age"]) < 0.1
        (True, True)
    """

    noise: list[Tensor]
    values: list[Tensor]

    def __init__(self, parents: Sequence[str] = ()) -> None:
        super().__init__()
        self.parents = tuple(parents)
        self.add_state("noise", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, noise: Tensor, parents: Variables) -> None:
        """Add a batch.

        Args:
            noise: One draw for each observation, ``(B, *event)``: ``(B, 1)`` for a scalar,
                ``(B, L)`` for a latent, ``(B, C, H, W)`` for pixels.
            parents: Values ``(B, 1)`` of each parent; other variables are ignored.

        Raises:
            ValueError: If a parent is missing, shapes or devices do not match, the size of the
                noise differs from earlier batches, or a value is not finite.
        """
        if noise.dim() < 2:
            raise ValueError(f"noise: expected shape (B, *event), but got {tuple(noise.shape)}.")
        missing = [name for name in self.parents if name not in parents]
        if missing:
            raise ValueError(f"parents: {', '.join(missing)} is missing.")
        used = {name: parents[name] for name in self.parents}
        require_same_device(noise=noise, **used)
        require_metric_device(self, noise)
        for name, value in used.items():
            if value.shape != (len(noise), 1):
                raise ValueError(
                    f"{name}: expected shape ({len(noise)}, 1), a value for each row of noise, "
                    f"{tuple(noise.shape)}, but got {tuple(value.shape)}."
                )
        require_finite_values(noise=noise, **used)
        flat = noise.detach().double().flatten(1)
        if self.noise and self.noise[0].shape[1] != flat.shape[1]:
            raise ValueError(
                f"noise: expected {self.noise[0].shape[1]} numbers in each row, as before, but got "
                f"{flat.shape[1]} in rows of shape {tuple(noise.shape[1:])}; use a separate metric "
                "for each variable."
            )
        columns = [value.detach().double() for value in used.values()]
        empty = noise.new_empty(len(noise), 0, dtype=torch.float64)
        self.noise.append(flat)
        self.values.append(torch.cat([empty, *columns], dim=1))

    def compute(self) -> dict[str, float]:
        """Return the quantities above; raise RuntimeError for fewer than two observations."""
        noise, values = concatenate(self, self.noise), concatenate(self, self.values)
        if len(noise) < 2:
            raise RuntimeError("NoiseCalibration: expected at least two observations, but got one.")
        test = kolmogorov_smirnov(noise.flatten())
        quantities: dict[str, Tensor | float] = {
            "kolmogorov_smirnov": test.statistic,
            "p_value": test.p_value,
            "mean": noise.mean(),
            "standard_deviation": noise.std(),
            "mean/largest": _furthest(noise.mean(dim=0), 0.0),
            "standard_deviation/furthest": _furthest(noise.std(dim=0), 1.0),
        }
        for name, value in zip(self.parents, values.T[..., None], strict=True):
            quantities[f"correlation/{name}"] = _furthest(pearson_correlation(noise, value), 0.0)
        return {name: float(value) for name, value in quantities.items()}


def _furthest(values: Tensor, reference: float) -> Tensor:
    values = values.flatten()
    return values[(values - reference).abs().nan_to_num(nan=torch.inf).argmax()]
