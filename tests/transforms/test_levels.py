"""The map of grey levels with wider cells for frequent ones."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.transforms import LevelCells


@pytest.fixture
def fitted(double):
    recorded = torch.cat([torch.zeros(700), torch.randint(0, 16, (300,)).double()])
    cells = LevelCells(16, stretch=0.5)
    cells.fit(recorded)
    return cells, recorded


def test_is_a_bijection_with_its_slope(fitted):
    cells, _ = fitted
    x = torch.linspace(-2, 18, 400).requires_grad_()
    y = cells(x)
    torch.testing.assert_close(cells.inverse(y), x, atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(cells.log_slope(x), slope.log())
    assert (y.diff() > 0).all()


def test_frequent_levels_have_wider_cells_and_the_range_is_standardised(fitted):
    cells, recorded = fitted
    widths = cells.edges.diff()
    assert widths[0] > 8 * widths[1:].max()
    y = cells(recorded.repeat(200) + torch.rand(200 * len(recorded)))
    assert y.mean().abs() < 0.01
    assert float(y.var()) == pytest.approx(1, abs=0.01)


def test_without_stretch_it_is_affine(double):
    cells = LevelCells(16, stretch=0)
    cells.fit(torch.zeros(10))
    torch.testing.assert_close(cells.edges.diff(), cells.edges.diff()[:1].expand(16))


def test_refuses_settings_out_of_range():
    with pytest.raises(ValueError, match="levels: expected"):
        LevelCells(1)
    with pytest.raises(ValueError, match="stretch: expected"):
        LevelCells(stretch=1.0)
