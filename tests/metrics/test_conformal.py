"""Conformal factors hold what they promise, on rows that they have not seen."""

from __future__ import annotations

import math

import pytest
import torch

from deepscm_pl.metrics.functional.conformal import conformal_factor, rows_needed


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("rows", [9, 40])
def test_new_rows_of_dependent_pixels_are_held(level, rows):
    """Pixels of a row share their error; 600 calibrations of few rows, each tried on new ones."""
    torch.manual_seed(0)

    def draw(count):
        common = torch.randn(count, 1).exp()
        return (common * torch.randn(count, 30)).abs(), 0.3 + torch.rand(count, 30)

    held = []
    for _ in range(600):
        factor = conformal_factor(*draw(rows), level)
        errors, scales = draw(200)
        held.append(float((errors <= factor * scales).float().mean()))
    mean = sum(held) / len(held)
    assert mean >= level - 0.01
    assert mean <= level + 1 / (rows + 1) + 0.02


@pytest.mark.parametrize("rows", [19, 100, 101])
def test_of_one_number_per_row_it_is_split_conformal_prediction(rows):
    errors = torch.rand(rows, 1)
    rank = math.ceil(0.9 * (rows + 1) - 1e-9)
    expected = float(errors.flatten().sort().values[rank - 1])
    assert conformal_factor(errors, torch.ones(rows, 1), 0.9) == pytest.approx(expected)


def test_factor_scales_with_the_errors():
    errors, scales = torch.rand(50, 7), 0.1 + torch.rand(50, 7)
    once = conformal_factor(errors, scales)
    assert conformal_factor(3 * errors, scales) == pytest.approx(3 * once)
    assert conformal_factor(errors, 3 * scales) == pytest.approx(once / 3)


def test_too_few_rows_and_wrong_scales_are_refused():
    assert (rows_needed(0.5), rows_needed(0.9), rows_needed(0.95)) == (1, 9, 19)
    with pytest.raises(ValueError, match="from 9 rows on, but there are 8"):
        conformal_factor(torch.rand(8, 3), torch.ones(8, 3))
    with pytest.raises(ValueError, match="a positive number for each error"):
        conformal_factor(torch.rand(20, 3), torch.zeros(20, 3))
    with pytest.raises(ValueError, match="level: expected"):
        conformal_factor(torch.rand(20, 3), torch.ones(20, 3), 1.0)
