"""A map from grey levels to a standardised range in which frequent levels have wider cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepscm_pl.checks import real_number, whole_number

__all__ = ["LevelCells"]


class LevelCells(nn.Module):
    """A piecewise linear bijection y(x) of continuous grey levels in [0, L), with exact slope.

    The cell of level k, [k, k + 1), gets a width in proportion to (1 − ρ)/L + ρ·f_k, where f_k is
    the frequency of the level in the training split: a background that fills half of all pixels
    gets a wide cell instead of 1/L of the range, so that a network of y need not resolve it, and a
    density of y is not concentrated there. Beyond both ends it continues linearly. Over the
    training split, y has mean zero and variance one.

    Args:
        levels: L, the number of grey levels.
        stretch: ρ in [0, 1); 0 for an affine map.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> cells = LevelCells(levels=4, stretch=0.5)
        >>> cells.fit(torch.tensor([0.0, 0.0, 0.0, 3.0]))
        >>> x = torch.tensor([0.5, 2.25], dtype=torch.float64)
        >>> cells.inverse(cells(x))
        tensor([0.5000, 2.2500], dtype=torch.float64)
    """

    edges: Tensor

    def __init__(self, levels: int = 256, stretch: float = 0.3) -> None:
        super().__init__()
        self.levels = whole_number("levels", levels, least=2)
        self.stretch = real_number("stretch", stretch, least=0, below=1)
        self.register_buffer("edges", torch.linspace(-1.0, 1.0, self.levels + 1))

    @torch.no_grad()
    def fit(self, recorded: Tensor) -> None:
        """Set the widths, the mean and the variance from recorded whole grey levels."""
        whole = recorded.flatten().long().clamp(0, self.levels - 1)
        share = torch.bincount(whole, minlength=self.levels).double() / len(whole)
        widths = (1 - self.stretch) / self.levels + self.stretch * share
        edges = torch.cat([widths.new_zeros(1), widths.cumsum(0)])
        middle = (edges[1:] + edges[:-1]) / 2
        mean = (share * middle).sum()
        variance = (share * ((middle - mean).square() + widths.square() / 12)).sum()
        self.edges.copy_((edges - mean) / variance.sqrt())

    def forward(self, value: Tensor) -> Tensor:
        """Return y of x, elementwise, in the precision of x."""
        level = self._level(value)
        edges = self.edges.to(value)
        return edges[level] + (value - level) * (edges[level + 1] - edges[level])

    def inverse(self, found: Tensor) -> Tensor:
        """Return x of y, elementwise, in the precision of y."""
        edges = self.edges.to(found)
        level = torch.searchsorted(edges, found.detach().contiguous(), right=True) - 1
        level = level.clamp(0, self.levels - 1)
        return level + (found - edges[level]) / (edges[level + 1] - edges[level])

    def log_slope(self, value: Tensor) -> Tensor:
        """Return log dy/dx, elementwise."""
        level = self._level(value)
        edges = self.edges.to(value)
        return (edges[level + 1] - edges[level]).log()

    def _level(self, value: Tensor) -> Tensor:
        return value.detach().floor().clamp(0, self.levels - 1).long()
