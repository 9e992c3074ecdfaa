"""The reversible solver: its inverse, order, gradients and log-determinants."""

from __future__ import annotations

import math

import pytest
import torch

from deepscm_pl.transforms import ImplicitMidpoint
from deepscm_pl.transforms.ode import log_determinants

EXACT = 1e-14


@pytest.fixture
def field(double):
    """A smooth velocity of five entries that depends on time, rows and all entries."""
    weight, shift = 0.4 * torch.randn(5, 5), torch.randn(3, 5)

    def velocity(state, time, rows):
        return torch.tanh(state @ weight + shift[rows]) + time * state

    return velocity


def test_a_step_back_is_the_inverse_of_a_step_forward(field):
    solver, start = ImplicitMidpoint(4, EXACT), torch.randn(3, 5)
    state = start
    for _ in range(10):
        state = solver.integrate(field, state)
        assert (state - start).abs().max() > 0.1
        state = solver.integrate(field, state, backwards=True)
    torch.testing.assert_close(state, start, atol=1e-12, rtol=0)


def test_the_error_falls_with_the_square_of_the_step_size(double):
    start = torch.ones(1, 1)
    errors = [
        abs(ImplicitMidpoint(n, EXACT).integrate(lambda x, s, _: -2 * s * x, start) - math.exp(-1))
        for n in (8, 16)
    ]
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.05)


def test_steps_end_at_the_same_times_in_both_directions(field):
    """They are smaller close to the time 1; the velocity 1/(1.01 − s) is steep there."""
    solver, start = ImplicitMidpoint(4, EXACT, grading=2), torch.randn(3, 5)
    there = [(step.time, step.size) for step in solver.path(field, start)]
    back = [(step.time, -step.size) for step in solver.path(field, start, backwards=True)]
    assert there == back[::-1]
    assert [size for _, size in there] == pytest.approx([7 / 16, 5 / 16, 3 / 16, 1 / 16])
    errors = [
        ImplicitMidpoint(8, EXACT, grading=grading).integrate(_steep, torch.zeros(1, 1)).item()
        - math.log(101)
        for grading in (1, 1.5)
    ]
    assert abs(errors[1]) < 0.6 * abs(errors[0])


def _steep(state, time, rows):
    return torch.full_like(state, 1 / (1.01 - time))


def test_a_row_does_not_depend_on_the_others(field):
    solver, start = ImplicitMidpoint(3, 1e-3), torch.randn(3, 5) * torch.tensor([[1.0], [9], [0]])
    together = solver.integrate(field, start)
    alone = solver.integrate(lambda x, s, rows: field(x, s, rows + 1), start[1:2])
    torch.testing.assert_close(alone, together[1:2], atol=1e-12, rtol=0)


def test_gradients_are_those_of_the_solution(field):
    solver, start = ImplicitMidpoint(3, EXACT), torch.randn(3, 5)

    def end(x):
        return solver.integrate(field, x).sum(dim=0)

    found = torch.autograd.functional.jacobian(end, start)
    step, direction = 1e-5, torch.randn(3, 5)
    with torch.no_grad():
        expected = (end(start + step * direction) - end(start - step * direction)) / (2 * step)
    torch.testing.assert_close((found * direction).sum(dim=(1, 2)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_gradient", [False, True])
def test_log_determinants_are_those_of_the_map(field, with_gradient):
    solver, start = ImplicitMidpoint(3, EXACT), torch.randn(3, 5)
    with torch.set_grad_enabled(with_gradient):
        given = start.clone().requires_grad_(with_gradient)
        path = solver.path(field, given, backwards=True)
        found = sum(log_determinants(field, step, None)[0] for step in path)
    for k in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, k=k: solver.integrate(lambda y, s, r: field(y, s, r + k), x, True)[0],
            start[k : k + 1],
        )
        expected = torch.linalg.slogdet(jacobian.squeeze(1)).logabsdet
        assert float(found[k].detach()) == pytest.approx(float(expected), abs=1e-5)


def test_estimates_are_unbiased(field):
    """The mean of many probes is the exact log-determinant, within its standard error."""
    step = next(iter(ImplicitMidpoint(3, EXACT).path(field, torch.randn(3, 5))))
    (exact,) = log_determinants(field, step, None)
    draws = log_determinants(field, step, 600, terms=9)
    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - exact).abs() < 4 * error).all()
    first = log_determinants(field, step, 600, terms=1).mean(dim=0)
    assert (first - exact).abs().max() < 0.1


@pytest.mark.parametrize(("terms", "powers"), [(1, [1]), (4, [1, 3]), (5, [1, 3, 5])])
def test_an_estimate_is_the_series_of_the_logarithm(double, terms, powers):
    """Random signs estimate the trace of a diagonal matrix without an error."""
    rates = torch.tensor([[0.9, -0.5, 0.3]])

    def velocity(state, time, rows):
        return rates * state

    (step,) = ImplicitMidpoint(1, EXACT).path(velocity, torch.ones(1, 3))
    expected = sum((2 / power * (rates / 2) ** power).sum() for power in powers)
    found = log_determinants(velocity, step, 2, terms)
    torch.testing.assert_close(found, expected.expand(2, 1))


def test_names_the_step_that_does_not_converge(double):
    """The second row has no midpoint: y = 12.5·(1 + y²) has no real solution."""
    solver, strength = ImplicitMidpoint(4, iterations=20, grading=1), torch.tensor([[0.0], [100.0]])
    with pytest.raises(ValueError, match=r"1 of 2 did not .* step size 0.25.* more than 4 steps"):
        solver.integrate(lambda x, s, r: strength[r] * (1 + x * x), torch.zeros(2, 1))


def test_converges_where_the_iteration_alone_diverges(double):
    """h/2 times the Lipschitz constant is 2; a step multiplies by (1 − 2)/(1 + 2)."""
    start = torch.tensor([[1.0, -2.0]])
    found = ImplicitMidpoint(4, 1e-12, grading=1).integrate(lambda x, s, _: -16 * x, start)
    torch.testing.assert_close(found, start / 81)


def test_a_velocity_that_is_not_finite_does_not_converge(double):
    with pytest.raises(ValueError, match=r"1 of 1 did not .* 0.5 .*velocity is not finite; train"):
        ImplicitMidpoint(2, grading=1).integrate(lambda x, s, _: x / 0, torch.ones(1, 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("tolerance", 0.0),
        ("tolerance", math.nan),
        ("iterations", 0),
        ("grading", 0.5),
    ],
)
def test_refuses_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        ImplicitMidpoint(**{name: value})


def test_a_row_ends_where_rounding_stops_it():
    """A velocity in single precision, whose rounding is larger than the tolerance."""
    start = torch.full((2, 3), 4.0, dtype=torch.float64)
    start[1] = 0.5

    def velocity(state, time, rows):
        rough = (state.float() * 1e4).round() / 1e4 + 3 * (rows[:, None] == 0)
        return -rough.double()

    solver = ImplicitMidpoint(4, 1e-6)
    end = solver.integrate(velocity, start)
    back = solver.integrate(velocity, end, backwards=True)
    torch.testing.assert_close(back, start, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="least change"):
        ImplicitMidpoint(4, 1e-12).integrate(velocity, start)
