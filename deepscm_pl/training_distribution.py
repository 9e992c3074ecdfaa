"""The distribution of the training split that a model keeps: quantiles and variances, not rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, constraints

from deepscm_pl.variables import Domain, Variables

__all__ = ["TrainingDistribution", "TrainingMarginal"]

_SCORES = torch.linspace(-4, 4, 81, dtype=torch.float64)
_MOST_IMAGES = 512


class TrainingDistribution(nn.Module):
    """Quantiles of the scalar variables of the training split, and the number of its rows.

    Checkpoints contain these, but no single rows. The quantiles are those at Φ(−4), …, Φ(4) in
    steps of 0.1. Of images, it keeps the variance over rows, averaged over pixels.

    Args:
        domains: The domain of each scalar variable.
        images: The names of the images.
    """

    rows: Tensor

    def __init__(self, domains: Mapping[str, Domain], images: Sequence[str] = ()) -> None:
        super().__init__()
        self.domains, self.images = dict(domains), tuple(images)
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))
        for name in self.domains:
            self.register_buffer(f"{name}_quantiles", torch.zeros_like(_SCORES))
            if domains[name].categories is not None:
                shares = torch.zeros(domains[name].categories or 0, dtype=torch.float64)
                self.register_buffer(f"{name}_shares", shares)
        for name in self.images:
            self.register_buffer(f"{name}_variance", torch.zeros((), dtype=torch.float64))

    @property
    def is_known(self) -> bool:
        """Whether the distribution is known; models of earlier versions have none."""
        return bool(self.rows > 0)

    def fit(self, variables: Variables) -> None:
        """Compute the quantiles of the training split, ``(N, *event)`` for each variable.

        Missing values, NaN, are left out.
        """
        self.rows.fill_(len(next(iter(variables.values()))))
        places = torch.special.ndtr(_SCORES)
        for name in self.domains:
            column = variables[name].double().flatten()
            if bool((unknown := column.isnan()).any()):
                column = column[~unknown]
            ordered = column.sort().values
            # The mid-rank of a value is its place; torch.quantile refuses more than 2²⁴ values.
            position = places.to(column) * len(column) - 0.5
            position = position.clamp(0, len(column) - 1)
            below = position.floor().long()
            above = (below + 1).clamp(max=len(column) - 1)
            share = position - below
            found = ordered[below] + share * (ordered[above] - ordered[below])
            self.get_buffer(f"{name}_quantiles").copy_(found)
            count = self.domains[name].categories
            if count is not None:
                shares = torch.bincount(column.long(), minlength=count) / len(column)
                self.get_buffer(f"{name}_shares").copy_(shares)
        for name in (name for name in self.images if name in variables):
            # At most 512 images, spread evenly over the split.
            some = variables[name][:: -(-len(variables[name]) // _MOST_IMAGES)].double()
            self.get_buffer(f"{name}_variance").copy_(some.var(dim=0, correction=0).mean())

    def marginal(self, name: str) -> Distribution:
        """The distribution of a scalar variable in the training split, to draw from.

        Classes have their shares, numbers the kept quantiles, with straight lines between them.

        Raises:
            ValueError: If the distribution is unknown, or the variable is an image.
        """
        if name not in self.domains:
            raise ValueError(
                f"do({name}): the distribution of images in the training data is not known; draw "
                "what causes them."
            )
        if not self.is_known:
            raise ValueError(
                f"do({name}): this model of an earlier version contains no training distribution; "
                "give one, such as normal(3, 0.5), or add it by scm.training_distribution.fit("
                "variables), the variables of its training split."
            )
        quantiles, domain = self.get_buffer(f"{name}_quantiles"), self.domains[name]
        if domain.categories is None:
            return TrainingMarginal(quantiles, domain)
        shares = self.get_buffer(f"{name}_shares")
        return TrainingMarginal(quantiles, domain, shares if bool(shares.any()) else None)

    def variance_of(self, name: str) -> float | None:
        """The variance of an image over rows, averaged over pixels; None if it is unknown."""
        variance = float(self.get_buffer(f"{name}_variance"))
        return variance if variance > 0 else None

    def deviation_of(self, name: str) -> float:
        """The standard deviation of a scalar variable, computed from its quantiles."""
        quantiles = self.get_buffer(f"{name}_quantiles")
        shares = torch.special.ndtr(_SCORES).diff().to(quantiles)
        # Between two quantiles, values are spread evenly.
        middles, widths = (quantiles[1:] + quantiles[:-1]) / 2, quantiles.diff()
        mean = (shares * middles).sum() / shares.sum()
        squares = (middles - mean).square() + widths.square() / 12
        return float(((shares * squares).sum() / shares.sum()).sqrt())

    def limits(self, name: str) -> tuple[float, float]:
        """The quantiles at Φ(−4) and Φ(4); with fewer than 15,000 rows, the extreme values."""
        quantiles = self.get_buffer(f"{name}_quantiles")
        return float(quantiles[0]), float(quantiles[-1])

    def scores(self, name: str, value: Tensor) -> Tensor:
        """Normal scores Φ⁻¹(quantile) of values ``(*batch, 1)``, ``(*batch,)``; classes unchanged.

        Beyond the training data, scores are linear, with the slope of the middle 80 % of the data.
        """
        flat = value.double().squeeze(-1)
        if self.domains[name].categories is not None:
            return flat
        quantiles = self.get_buffer(f"{name}_quantiles")
        grid = _SCORES.to(quantiles.device)
        first = int((quantiles <= quantiles[0]).sum()) - 1
        last = int((quantiles < quantiles[-1]).sum())
        middle = quantiles[[27, 53]].diff() / (grid[53] - grid[27])
        unit = middle if float(middle) > 0 else (quantiles[-1] - quantiles[0]).clamp(min=1e-300)
        found = 0.5 * sum(_interpolated(flat, quantiles, grid, right) for right in (True, False))
        low, high = quantiles[0], quantiles[-1]
        found = torch.where(flat < low, grid[first] - (low - flat) / unit, found)
        return torch.where(flat > high, grid[last] + (flat - high) / unit, found)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        """Load buffers, which models of earlier versions lack."""
        for name, buffer in self.named_buffers():
            if prefix + name not in state_dict:
                state_dict[prefix + name] = torch.zeros_like(buffer)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TrainingMarginal(Distribution):
    """The marginal distribution of a scalar variable in the training split.

    Args:
        quantiles: Its kept quantiles.
        domain: Its domain; values of classes, whole numbers and multiples of a step are rounded.
        shares: The shares of the classes; None if only their quantiles are known.
        shape: The shape of one set of independent draws.
    """

    name = "train"
    arg_constraints: Mapping[str, constraints.Constraint] = {}  # type: ignore[assignment]

    def __init__(
        self,
        quantiles: Tensor,
        domain: Domain,
        shares: Tensor | None = None,
        shape: torch.Size | tuple[int, ...] = (),
    ) -> None:
        super().__init__(torch.Size(shape), validate_args=False)
        self.quantiles, self.domain, self.shares = quantiles, domain, shares

    @property
    def support(self) -> constraints.Constraint:
        """All numbers between the smallest and the largest quantile."""
        return constraints.interval(float(self.quantiles[0]), float(self.quantiles[-1]))

    def expand(  # type: ignore[override]
        self, batch_shape: torch.Size, _instance: object = None
    ) -> TrainingMarginal:
        """The distribution of independent draws of another shape."""
        return TrainingMarginal(self.quantiles, self.domain, self.shares, batch_shape)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        """Draw values, ``(*sample_shape, *batch_shape)``."""
        if self.shares is not None:
            classes = Categorical(self.shares).expand(
                torch.Size((*sample_shape, *self._batch_shape))
            )
            return classes.sample().double()
        scores = torch.randn(*sample_shape, *self._batch_shape, dtype=torch.float64)
        grid = _SCORES.to(self.quantiles.device)
        place = (scores.to(grid.device).clamp(-4, 4) + 4) * 10
        below = place.floor().long().clamp(max=len(grid) - 2)
        low, high = self.quantiles[below], self.quantiles[below + 1]
        drawn = low + (place - below) * (high - low)
        step = 1.0 if self.domain.whole or self.domain.categories is not None else self.domain.step
        return drawn if step is None else (drawn / step).round() * step


def _interpolated(value: Tensor, quantiles: Tensor, grid: Tensor, right: bool) -> Tensor:
    place = torch.searchsorted(quantiles, value.contiguous(), right=right)
    place = place.clamp(1, len(quantiles) - 1)
    low, high = quantiles[place - 1], quantiles[place]
    share = ((value - low) / (high - low)).nan_to_num(nan=0.5).clamp(0, 1)
    return grid[place - 1] + share * (grid[place] - grid[place - 1])
