"""The pictures of a training and those of a report draw the same density of the same values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepscm_pl.evaluation.densities import DensityResult, Sample
from deepscm_pl.figures import DensityPanel, draw_marginal_densities, kernel_density
from deepscm_pl.reports import draw_densities
from deepscm_pl.variables import Domain, Variable

BOUNDS = (0.0, 1.0)


def sample_of(values, weights=None):
    weights = torch.ones(len(values)) if weights is None else weights
    return Sample(values.double(), weights.double() / weights.sum())


def reported(values, weights=None, bounds=BOUNDS):
    sample = sample_of(values, weights)
    variable = Variable("a", Domain((1,), *bounds))
    result = DensityResult("a", {"b": 1.0}, True, sample, sample, variables={"a": variable})
    return draw_densities([result]).axes[0].lines


def watched(values, bounds=BOUNDS):
    panel = DensityPanel("a", values, {"model": values}, *bounds)
    return draw_marginal_densities([panel]).axes[0].lines


@pytest.mark.parametrize("bounds", [BOUNDS, (0.0, np.inf), (-np.inf, np.inf)])
def test_report_and_training_draw_the_same_curve(bounds):
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0)) ** 2
    model, world = reported(values, bounds=bounds)
    (curve,) = watched(values, bounds)
    for line in (model, world):
        np.testing.assert_allclose(line.get_xdata(), curve.get_xdata())
        np.testing.assert_allclose(line.get_ydata(), curve.get_ydata(), rtol=1e-6)


def test_no_curve_reaches_beyond_what_is_possible():
    values = torch.rand(2000) ** 2
    for line in (*reported(values), *watched(values)):
        x, y = line.get_data()
        assert x.min() == 0
        assert x.max() == 1
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01)
        assert y[0] > y[128]  # the density is highest at its lower bound


def test_a_weight_of_two_is_the_value_twice():
    """But for the width of the kernels, for fewer values tell less."""
    values, points = torch.rand(3000), np.linspace(0, 1, 50)
    weights = torch.where(values > 0.5, 2.0, 1.0)
    twice = torch.cat([values, values[values > 0.5]])
    found = kernel_density(values, points, *BOUNDS, weights=weights)
    np.testing.assert_allclose(found, kernel_density(twice, points, *BOUNDS), atol=0.05)


def test_draws_without_weight_may_be_any_number():
    values = torch.cat([torch.rand(500), torch.tensor([torch.nan, torch.inf, 1e30])])
    weights = torch.cat([torch.ones(500), torch.zeros(3)])
    for line in reported(values, weights):
        x, y = line.get_data()
        assert np.isfinite(y).all()
        assert (x.min(), x.max()) == pytest.approx(BOUNDS, abs=0.1)


def test_values_that_are_all_equal_are_a_line():
    for line in (*reported(torch.full((9,), 0.5)), *watched(torch.full((9,), 0.5))):
        assert list(line.get_xdata()) == [0.5, 0.5]


def test_bounds_of_two_variables_may_differ():
    values = torch.rand(2, 400)
    side = np.linspace(-0.5, 1.5, 101)
    points = np.stack([each.ravel() for each in np.meshgrid(side, side)])
    density = kernel_density(values, points, lower=[0, -np.inf], upper=[1, np.inf])
    assert (density[(points[0] < 0) | (points[0] > 1)] == 0).all()
    assert (density[(points[1] < 0) & (points[0] > 0.2) & (points[0] < 0.8)] > 0).any()
    assert density.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.03)
