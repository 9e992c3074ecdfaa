"""Are predicted intervals as wide as they should be?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepscm_pl.metrics.functional import (
    kolmogorov_smirnov,
    pearson_correlation,
    rank_interval,
)
from deepscm_pl.metrics.functional.checks import require_finite, require_same_device
from deepscm_pl.metrics.statistics import (
    CollectingMetric,
    PerImageMetric,
    Statistic,
    joined,
    require_metric_device,
)
from deepscm_pl.variables import Variables

__all__ = ["IntervalCoverage", "NoiseCalibration"]


class IntervalCoverage(PerImageMetric):
    """How often the truth lies in the central interval of the particles, at several levels.

    For each level α the mean over images of the share of values (pixels) that are covered, in the
    sense of :func:`~deepscm_pl.metrics.functional.RankInterval.coverage`: α for an exact
    predictive distribution, of whole grey levels too; below α if the particles spread too little,
    above if too much.

    - ``all/α``: over all values;
    - ``varying/α``: over the values in which the P particles and the truth are not all the same.
      Pixels that are always black say nothing and would hide the others. For an exact predictive
      distribution this is α, too: which values are left out does not depend on which of the P + 1
      is the truth;
    - ``varying``: the share of these values.

    Args:
        levels: The levels α, each strictly between 0 and 1; beyond
            :func:`~deepscm_pl.metrics.functional.widest_level` of the number of particles coverage
            is never zero, and says little.

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
                "levels: expected at least one number, all different in the six digits that they "
                f"are named by, but got {list(levels)}."
            )
        self.levels = tuple(levels)
        kinds = [f"{kind}/{level:g}" for kind in ("all", "varying") for level in levels]
        super().__init__([*kinds, "varying"])

    def update(self, particles: Tensor, truth: Tensor) -> None:
        """Add a batch.

        Args:
            particles: Counterfactual images in grey levels, or values of a scalar, ``(P, B,
                *event)``.
            truth: The true ones, ``(B, *event)``.

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
        """The shares above, with standard errors over images.

        Raises:
            RuntimeError: If there was no image so far.
        """
        return self._statistics() | {
            f"varying/{level:g}": self._ratio(f"varying/{level:g}", "varying")
            for level in self.levels
        }


class NoiseCalibration(CollectingMetric):
    r"""The abducted noise of one variable, over data, against its prior N(0, I).

    If the model is right, the noise :math:`u` that it infers from data is standard normal, each of
    its entries, and independent of the variable's parents; if it is not, the mechanism does not fit
    or the causal assumptions do not hold. With one draw of the noise for each observation:

    - ``kolmogorov_smirnov`` and ``p_value``: the test of all entries of all observations, pooled,
      against N(0, 1). Only where entries are independent, as those of a scalar are, is the p-value
      to be taken as such;
    - ``mean`` and ``standard_deviation``: of all entries pooled;
    - ``mean/largest`` and ``standard_deviation/furthest``: of the single entries, the mean that is
      furthest from zero and the standard deviation that is furthest from one;
    - ``correlation/<parent>``: of the single entries, the linear correlation with the parent that
      is furthest from zero.

    Keeps all values; exact over processes.

    Args:
        parents: Names of the variable's parents, scalars.

    Example:
        >>> noise, parents = torch.randn(2000, 1), {"age": torch.rand(2000, 1)}
        >>> metric = NoiseCalibration(parents=["age"])
        >>> metric.update(noise, parents)
        >>> found = metric.compute()
        >>> found["kolmogorov_smirnov"] < 0.05, abs(found["correlation/age"]) < 0.1
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
            noise: One draw of the variable's noise for each observation, ``(B, *event)``: ``(B,
                1)`` of a scalar, ``(B, L)`` of a latent, ``(B, C, H, W)`` of pixels.
            parents: For each parent its values, ``(B, 1)``; others are ignored.

        Raises:
            ValueError: If a parent is missing, shapes or devices do not match, the noise of a row
                is of another size than before, or a value is not finite.
        """
        if noise.dim() < 2:
            raise ValueError(f"noise: expected shape (B, *event), but got {tuple(noise.shape)}.")
        missing = [name for name in self.parents if name not in parents]
        if missing:
            raise ValueError(f"parents: {', '.join(missing)} is missing.")
        own = {name: parents[name] for name in self.parents}
        require_same_device(noise=noise, **own)
        require_metric_device(self, noise)
        for name, value in own.items():
            if value.shape != (len(noise), 1):
                raise ValueError(
                    f"{name}: expected shape ({len(noise)}, 1), a value for each row of noise, "
                    f"{tuple(noise.shape)}, but got {tuple(value.shape)}."
                )
        require_finite(noise=noise, **own)
        flat = noise.detach().double().flatten(1)
        if self.noise and self.noise[0].shape[1] != flat.shape[1]:
            raise ValueError(
                f"noise: expected {self.noise[0].shape[1]} numbers in each row, as before, but got "
                f"{flat.shape[1]} in rows of shape {tuple(noise.shape[1:])}; take another metric "
                "for the noise of another variable."
            )
        columns = [value.detach().double() for value in own.values()]
        nothing = noise.new_empty(len(noise), 0, dtype=torch.float64)
        self.noise.append(flat)
        self.values.append(torch.cat([nothing, *columns], dim=1))

    def compute(self) -> dict[str, float]:
        """The quantities above.

        Raises:
            RuntimeError: If there were fewer than two observations so far.
        """
        noise, values = joined(self, self.noise), joined(self, self.values)
        if len(noise) < 2:
            raise RuntimeError("NoiseCalibration: expected at least two observations, but got one.")
        test = kolmogorov_smirnov(noise.flatten())
        means, deviations = noise.mean(dim=0), noise.std(dim=0)
        found: dict[str, Tensor | float] = {
            "kolmogorov_smirnov": test.statistic,
            "p_value": test.p_value,
            "mean": noise.mean(),
            "standard_deviation": noise.std(),
            "mean/largest": _furthest(means, 0.0),
            "standard_deviation/furthest": _furthest(deviations, 1.0),
        }
        for name, value in zip(self.parents, values.T[..., None], strict=True):
            found[f"correlation/{name}"] = _furthest(pearson_correlation(noise, value), 0.0)
        return {name: float(value) for name, value in found.items()}


def _furthest(values: Tensor, reference: float) -> Tensor:
    values = values.flatten()
    return values[(values - reference).abs().nan_to_num(nan=torch.inf).argmax()]
