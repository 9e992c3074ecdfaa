"""Noise in cells: masses and truncated quantiles against SciPy, in the middle and in both tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from deepscm_pl.transforms.cells import log_mass, soft_ceiling, truncated_quantile

CELLS = [
    (-3.0, 3.0),
    (0.1, 0.2),
    (-math.inf, -1.0),
    (2.0, math.inf),
    (8.2, 8.4),
    (9.0, math.inf),
    (-32.0, -25.0),
    (29.5, 60.0),
    (-math.inf, -50.0),
    (60.0, 60.5),
    (1000.0, 1000.1),
]


@pytest.mark.parametrize("cell", CELLS[:-1])
def test_quantiles_are_those_of_the_truncated_normal_distribution(cell, double):
    """log Φ of the quantile is linear interpolation between those of the ends."""
    low, high = (torch.tensor(bound) for bound in cell)
    rank = torch.linspace(0.02, 0.98, 49)
    found = truncated_quantile(rank, low, high)
    assert bool((found.diff() > 0).all())
    flip = -1 if cell[0] + cell[1] > 0 else 1
    ends = sorted(flip * bound for bound in cell)
    above = special.log_ndtr(ends[1])
    below = special.log_ndtr(ends[0]) - above if math.isfinite(ends[0]) else -math.inf
    share = np.exp(special.log_ndtr(flip * found.numpy()) - above)
    ranks = (share - np.exp(below)) / -np.expm1(below)
    expected = rank if flip > 0 else 1 - rank
    # The margin at the ends of the cell takes a share of the mass far in a tail.
    tolerance = 1e-3 if abs(found).max() < 20 else 0.05
    torch.testing.assert_close(torch.tensor(ranks), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_masses_are_those_of_scipy(cell, double):
    found = float(log_mass(*(torch.tensor(bound) for bound in cell)))
    low, high = sorted((-cell[0], -cell[1])) if cell[0] + cell[1] > 0 else cell
    above, below = special.log_ndtr(high), special.log_ndtr(low)
    assert found == pytest.approx(above + np.log(-np.expm1(below - above)), rel=1e-9)
    if abs(cell[0]) < 8:
        exact = stats.norm.cdf(cell[1]) - stats.norm.cdf(cell[0])
        assert math.exp(found) == pytest.approx(exact, rel=1e-9)


def test_a_smooth_ceiling_changes_nothing_far_below_it(double):
    value = torch.cat([torch.linspace(-50, 60, 1101), torch.tensor([1e30])]).requires_grad_()
    found = soft_ceiling(value, largest=30.0)
    assert bool((found <= 30).all())
    assert bool((found[:-1].diff() >= 0).all())
    torch.testing.assert_close(found[:600], value[:600], rtol=1e-6, atol=1e-12)
    found.sum().backward()
    assert bool((value.grad >= 0).all())
    assert bool(value.grad.isfinite().all())
