"""Every bijection obeys the laws."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.transforms import (
    Dequantise,
    Interval,
    Logit,
    Positive,
    RationalQuadraticSpline,
    Real,
)

import laws


def fitted(constraint, low, high):
    constraint.fit(torch.linspace(low, high, 50)[:, None])
    return constraint.transform()


CASES = {
    "spline": lambda: (
        RationalQuadraticSpline(2 * torch.randn(6, 23), bound=3.0),
        torch.linspace(-5, 5, 6)[:, None],
    ),
    "spline-many": lambda: (
        RationalQuadraticSpline(2 * torch.randn(4, 1, 14), bound=2.0),
        torch.linspace(-2.5, 2.5, 101)[:, None],
    ),
    "logit": lambda: (Logit(), torch.linspace(-10, 255.9, 100).view(4, 1, 5, 5)),
    "real": lambda: (fitted(Real(), -3, 9), torch.linspace(-4, 4, 9)[:, None]),
    "positive": lambda: (fitted(Positive(), 0.5, 9), torch.linspace(-4, 4, 9)[:, None]),
    "interval": lambda: (fitted(Interval(-2, 5), -1, 4), torch.linspace(-4, 4, 9)[:, None]),
}


@pytest.mark.parametrize("name", CASES)
def test_inverts(double, name):
    laws.bijection_inverts(*CASES[name]())


@pytest.mark.parametrize("name", CASES)
def test_log_determinant_is_that_of_autograd(double, name):
    transform, x = CASES[name]()
    if name == "spline-many":  # one input, many parameters: the sum over them is not the slope
        for _ in range(4):
            single = RationalQuadraticSpline(2 * torch.randn(14), bound=2.0)
            laws.log_determinant_is_autograd(single, x)
        return
    laws.log_determinant_is_autograd(transform, x)


def test_spline_is_smooth_at_its_ends(double):
    spline = RationalQuadraticSpline(2 * torch.randn(23), bound=3.0)
    for end in (-3.0, 3.0):
        x = torch.tensor([[end - 1e-9], [end + 1e-9]])
        slope = spline.log_abs_det_jacobian(x, spline(x))
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-4, rtol=0)
        torch.testing.assert_close(spline(x), x, atol=1e-8, rtol=0)


def test_spline_inverts_in_single_precision():
    torch.manual_seed(4)
    spline = RationalQuadraticSpline(torch.randn(2000, 23))
    x = 2 * torch.randn(2000, 1)
    torch.testing.assert_close(spline.inv(spline(x)), x, atol=1e-4, rtol=0)


def test_spline_passes_nan_on():
    """NaN passes without an error, so that a training can report it."""
    spline = RationalQuadraticSpline(torch.zeros(23))
    assert spline.inv(torch.tensor([[float("nan")]])).isnan().all()


def test_dequantisation_inverts_and_stays_in_its_cell():
    dequantise = Dequantise()
    levels = torch.arange(256.0).repeat(400)
    value = dequantise.sample(levels)
    remainder = value - levels
    assert torch.equal(dequantise.inverse(value), levels)
    assert remainder.min() > 0
    assert remainder.max() < 1
    assert remainder.mean() == pytest.approx(0.5, abs=0.01)
    assert remainder.var() == pytest.approx(1 / 12, abs=0.005)


def test_grey_levels_survive_single_precision():
    """The logit and its inverse always preserve a dequantised grey level."""
    dequantise, logit = Dequantise(), Logit()
    levels = torch.arange(256.0).repeat(4000)
    value = dequantise.sample(levels)
    assert torch.equal(dequantise.inverse(logit.inv(logit(value))), levels)


def test_constraint_standardises(double):
    values = torch.rand(500, 1) * 3 + 0.5
    for constraint in (Real(), Positive(), Interval(0, 4)):
        constraint.fit(values)
        free = constraint.transform().inv(values)
        assert free.mean().item() == pytest.approx(0, abs=1e-9)
        assert free.std(correction=0).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("constraint", "values", "message"),
    [
        (Positive(), [[1.0], [0.0]], r"in \(0, inf\), but got 0"),
        (Interval(0, 1), [[0.5], [2.0]], r"in \(0, 1\), but got 2"),
        (Real(), [[1.0], [float("nan")]], "but got nan"),
        (Real(), [[1.0], [1.0]], "values that differ"),
        (Positive(), [[2.7182818]] * 54000, "values that differ"),
    ],
)
def test_constraint_refuses(constraint, values, message):
    before = constraint.location.clone()
    with pytest.raises(ValueError, match=message):
        constraint.fit(torch.tensor(values))
    assert torch.equal(constraint.location, before)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_interval_needs_bounds(low, high):
    with pytest.raises(ValueError, match=r"low < high|(low|high): expected a finite number"):
        Interval(low, high)


@pytest.mark.parametrize("levels", [2, 256, 4096])
def test_dequantisation_noise_is_uniform_within_a_level(levels):
    recorded = torch.randint(0, levels, (20_000,)).float()
    remainder = Dequantise(levels).sample(recorded) - recorded
    assert float(remainder.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(12 * remainder.var()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("levels", [1, 65_536, 2.5])
def test_levels_that_leave_no_room_for_noise_are_refused(levels):
    with pytest.raises(ValueError, match="levels: expected a whole number from 2 to 4096"):
        Dequantise(levels)


@pytest.mark.parametrize("levels", [256, 4096])
def test_dequantisation_noise_has_no_atoms(levels):
    """No remainder is drawn more often than single precision makes it."""
    remainder = Dequantise(levels).sample(torch.zeros(50_000))
    assert int(remainder.unique(return_counts=True)[1].max()) < 5
    assert 0 < float(remainder.min()) < float(remainder.max()) < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 256, 4096])
def test_inverse_of_the_logit_stays_below_the_last_level(levels, dtype):
    """Also where the sigmoid rounds to 1; the log-density there is finite."""
    logit = Logit(levels=levels)
    y = torch.cat([torch.linspace(-200, 200, 4001), torch.tensor([-1e30, 1e30])]).to(dtype)
    x = logit.inv(y)
    assert float(x.max()) < levels
    assert bool(logit(x).isfinite().all())
    assert bool(logit.log_abs_det_jacobian(x, y).isfinite().all())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-13)])
def test_inverse_of_the_spline_is_precise_in_steep_bins(dtype, tolerance):
    """Both forms of the root are used where they do not cancel."""
    torch.manual_seed(0)
    parameters = (10 * torch.randn(200_000, 23, dtype=torch.float64)).to(dtype)
    spline = RationalQuadraticSpline(parameters)
    y = spline((8 * torch.rand(200_000, 1, dtype=torch.float64) - 4).to(dtype))
    assert float((spline(spline.inv(y)) - y).abs().max()) < tolerance
