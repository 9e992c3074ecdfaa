"""Reversible integration of dx/ds = v(x, s), and the log-determinant of the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from deepscm_pl.checks import real_number, whole_number

__all__ = ["ImplicitMidpoint", "MidpointStep", "Velocity", "log_determinants"]

_MEMORY = 5  # iterates that are mixed
_PATIENCE = 8  # iterations without a smaller change, after which rounding limits it
_ROUNDING = 100  # times the tolerance that is accepted then
_RIDGE = 1e-12  # relative to the sum of squares
_SMALLEST = 1e-300

Velocity: TypeAlias = Callable[[Tensor, float, Tensor], Tensor]
"""v(x, s, rows): velocities of the states x ``(R, *event)`` of some rows ``(R,)`` at the time s."""


@dataclass(frozen=True)
class MidpointStep:
    """One step of the solver: the end x', the midpoint y, its time, and the signed step size h."""

    end: Tensor
    midpoint: Tensor
    time: float
    size: float


@dataclass(frozen=True)
class ImplicitMidpoint:
    """The implicit midpoint rule x' = x + h·v((x + x')/2, s + h/2), of order two.

    It is symmetric: a step of −h from x' solves the same equation, so that it returns to x. The
    equation y = x + h/2·v(y) of the midpoint y has one solution, and the step is a bijection, if
    h/2 times the Lipschitz constant of v is below 1. It is solved by fixed-point iteration with
    Anderson's acceleration (Walker and Ni 2011, SIAM J. Numer. Anal. 49, equation 2.1). Each row
    stops at its own tolerance, so that no row depends on the others. Where the rounding of large
    velocities does not let it come as close, it ends with the best of its iterates, up to a
    hundred times the tolerance.

    Step k of n ends at the time 1 − (1 − k/n)^g, in both directions. Between noise and images, the
    velocity changes the faster the closer it is to the time 1, where a pixel is nearly determined.

    Args:
        steps: n, number of steps between the times 0 and 1.
        tolerance: The largest change of an entry of y in the last iteration, relative to the
            largest entry of the row if that is above 1.
        iterations: The largest number of iterations of a step.
        grading: g, 1 for equal steps; the larger, the smaller are the steps close to the time 1.

    Raises:
        ValueError: If a number is not positive; in use, if a row does not converge.

    Example:
        >>> solver = ImplicitMidpoint(steps=4, tolerance=1e-12)
        >>> start = torch.tensor([[1.0]], dtype=torch.float64)
        >>> end = solver.integrate(lambda x, s, rows: -x, start)
        >>> back = solver.integrate(lambda x, s, rows: -x, end, backwards=True)
        >>> round(end.item(), 3), round(back.item(), 9)
        (0.365, 1.0)
    """

    steps: int = 16
    tolerance: float = 5e-7
    iterations: int = 100
    grading: float = 1.5

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, least=1, most=10_000)
        real_number("tolerance", self.tolerance, above=0)
        whole_number("iterations", self.iterations, least=1)
        real_number("grading", self.grading, least=1, most=4)

    def integrate(self, velocity: Velocity, start: Tensor, backwards: bool = False) -> Tensor:
        """Return the state at time 1 from that at time 0, or the reverse, ``(batch, *event)``.

        Raises:
            ValueError: If a step does not converge.
        """
        state = start
        for step in self.path(velocity, start, backwards):
            state = step.end
        return state

    def path(
        self, velocity: Velocity, start: Tensor, backwards: bool = False
    ) -> Iterator[MidpointStep]:
        """Yield the steps of :meth:`integrate`."""
        state = start
        seen: list[tuple[float, Tensor]] = []  # times and velocities of the last two midpoints
        for begin, end in pairwise(self._times(backwards)):
            time, size = (begin + end) / 2, end - begin
            middle = self._midpoint(velocity, state, _extrapolated(seen, state, time), time, size)
            if torch.is_grad_enabled():
                middle = _with_gradient(velocity, state, middle, time, size)
            seen = [*seen[-1:], (time, ((middle - state) * (2 / size)).detach())]
            state = 2 * middle - state
            yield MidpointStep(state, middle, time, size)

    def _times(self, backwards: bool) -> list[float]:
        times = [1 - (1 - k / self.steps) ** self.grading for k in range(self.steps + 1)]
        return times[::-1] if backwards else times

    @torch.no_grad()
    def _midpoint(
        self, velocity: Velocity, state: Tensor, guess: Tensor, time: float, size: float
    ) -> Tensor:
        """Solve y = x + h/2·v(y) for every row, from a guess of v(y)."""
        place = state + size / 2 * guess
        best, rows = place.clone(), torch.arange(len(state), device=state.device)
        least = torch.full((len(state),), math.inf, dtype=state.dtype, device=state.device)
        stale, mixing = torch.zeros_like(rows), _Mixing()
        for _ in range(self.iterations):
            found = state[rows] + size / 2 * velocity(place, time, rows).to(state)
            largest = found.abs().flatten(1).amax(dim=1).clamp(min=1)
            change = (found - place).abs().flatten(1).amax(dim=1) / largest
            better = change < least[rows]
            best[rows[better]] = found[better]
            least[rows] = torch.where(better, change, least[rows])
            stale[rows] = torch.where(better, 0, stale[rows] + 1)
            active = least[rows] > self._accepted(stale[rows])
            rows = rows[active]
            if len(rows) == 0:
                return best
            place = mixing.next(place, found, active)
        rows = rows[least[rows] > self._accepted(stale.new_tensor(_PATIENCE))]
        if len(rows) == 0:
            return best
        advice = f"use more than {self.steps} steps, or values nearer to the training data"
        if not velocity(state[rows], time, rows).isfinite().all():
            advice = "the velocity is not finite; train with a lower learning rate"
        raise ValueError(
            f"solver: expected every image to converge in {self.iterations} iterations, but "
            f"{len(rows)} of {len(state)} did not at time {time:.3g} with the step size "
            f"{abs(size):.3g} (least change {least[rows].max().item():.2g}); {advice}."
        )

    def _accepted(self, stale: Tensor) -> Tensor:
        """The largest change of rows that end after some iterations without a smaller one."""
        return self.tolerance * torch.where(stale < _PATIENCE, 1.0, _ROUNDING)


def _extrapolated(seen: Sequence[tuple[float, Tensor]], state: Tensor, time: float) -> Tensor:
    """A guess of the velocity at a time: zero, the last one, or on the line of the last two."""
    if not seen:
        return torch.zeros_like(state)
    if len(seen) == 1:
        return seen[0][1]
    (first, before), (second, last) = seen
    return last + (time - second) / (second - first) * (last - before)


class _Mixing:
    """Anderson's acceleration of y ↦ g(y), separately for each row."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self.residuals: list[Tensor] = []

    def next(self, place: Tensor, found: Tensor, active: Tensor) -> Tensor:
        """Return the next y of the active rows, after g(y) was found at the last ones."""
        self.found = [*self.found, found][-_MEMORY:]
        self.residuals = [*self.residuals, found - place][-_MEMORY:]
        self.found, self.residuals = (
            [each[active] for each in kept] for kept in (self.found, self.residuals)
        )
        if len(self.found) == 1:
            return self.found[0]
        last, residual = self.found[-1].flatten(1), self.residuals[-1].flatten(1)
        steps, changes = (
            torch.stack([b - a for a, b in pairwise(kept)], dim=-1).flatten(1, -2)
            for kept in (self.found, self.residuals)
        )
        products = changes.mT @ changes
        ridge = _RIDGE * products.diagonal(dim1=-2, dim2=-1).sum(dim=-1) + _SMALLEST
        products = products + torch.diag_embed(ridge[:, None].expand(products.shape[:-1]))
        weights = torch.linalg.solve(products, changes.mT @ residual[..., None])
        mixed = last - (steps @ weights).squeeze(-1)
        return mixed.view_as(self.found[-1])


def _with_gradient(
    velocity: Velocity, state: Tensor, middle: Tensor, time: float, size: float
) -> Tensor:
    """The midpoint with the gradient of the equation that it solves, by the implicit function.

    The gradient w of y satisfies w = g + h/2·Aᵀw with A = ∂v/∂y, and is found by as many iterations
    as bring its change below 1e-6 of its size, or 50.
    """
    rows = torch.arange(len(state), device=state.device)
    found = state + size / 2 * velocity(middle, time, rows).to(state)
    if not found.requires_grad:
        return middle
    place = middle.detach().requires_grad_()
    image = size / 2 * velocity(place, time, rows).to(state)

    def implicit(gradient: Tensor) -> Tensor:
        total = gradient
        for _ in range(50):
            (pulled,) = torch.autograd.grad(image, place, total, retain_graph=True)
            change, total = (gradient + pulled - total).abs().amax(), gradient + pulled
            if change <= 1e-6 * total.abs().amax():
                break
        return total

    found.register_hook(implicit)
    return found


def log_determinants(
    velocity: Velocity, step: MidpointStep, probes: int | None, terms: int = 5
) -> Tensor:
    """log |det ∂x'/∂x| of a step, log det(1 + h/2·A) − log det(1 − h/2·A), ``(probes, batch)``.

    A = ∂v/∂y at the midpoint. Without probes it is exact, ``(1, batch)``. Otherwise it is the
    series 2·Σ_k tr((h/2·A)^k)/k over odd k up to ``terms``, with each trace estimated by eᵀA^k e of
    random signs e (Hutchinson 1989), by several probes.
    """
    keeps = torch.is_grad_enabled()
    half = step.size / 2
    rows = torch.arange(len(step.midpoint), device=step.midpoint.device)
    with torch.inference_mode(False), torch.enable_grad():
        # A new tensor: the hook of the midpoint must not act on gradients with respect to it.
        place = step.midpoint.clone()
        if not place.requires_grad:
            place.requires_grad_()
        found = velocity(place, step.time, rows).to(place)

        def pulled(vectors: Tensor) -> Tensor:
            (result,) = torch.autograd.grad(
                found, place, vectors, create_graph=keeps, retain_graph=True
            )
            return half * result

        if probes is None:
            return _exact(pulled, place)[None]
        return torch.stack([_estimated(pulled, place, terms) for _ in range(probes)])


def _exact(pulled: Callable[[Tensor], Tensor], place: Tensor) -> Tensor:
    size = place[0].numel()
    basis = torch.eye(size, dtype=place.dtype, device=place.device)
    columns = [
        pulled(vector.view(1, *place.shape[1:]).expand_as(place)).flatten(1) for vector in basis
    ]
    matrix = torch.stack(columns, dim=1)
    plus, minus = torch.linalg.slogdet(basis + matrix), torch.linalg.slogdet(basis - matrix)
    return plus.logabsdet - minus.logabsdet


def _estimated(pulled: Callable[[Tensor], Tensor], place: Tensor, terms: int) -> Tensor:
    total = torch.zeros(len(place), dtype=place.dtype, device=place.device)
    signs = torch.randint(0, 2, place.shape, device=place.device).to(place) * 2 - 1
    vector = signs
    for power in range(1, terms + 1):
        vector = pulled(vector)
        if power % 2:
            total = total + 2 / power * (vector * signs).flatten(1).sum(dim=1)
    return total
