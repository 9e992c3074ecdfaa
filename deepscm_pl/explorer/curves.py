"""Effect curves of the live page as pictures: every text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from deepscm_pl.escaping import for_terminal, shortened
from deepscm_pl.explorer.session import Curve, Curves
from deepscm_pl.numerals import MINUS
from deepscm_pl.variables import Variable

__all__ = ["CurvePictures"]

_WIDTH, _HEIGHT = 310, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 8, 38
_RADIUS = {"factual": 4.5, "asked": 5.0}


@dataclass(frozen=True)
class _Axes:
    """The ranges of cause and effect, and where their values are in the picture."""

    across: tuple[float, float]
    up: tuple[float, float]

    def x(self, value: float) -> float:
        share = (value - self.across[0]) / (self.across[1] - self.across[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.up[0]) / (self.up[1] - self.up[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def contain(self, x: float, y: float) -> bool:
        return self.across[0] <= x <= self.across[1] and self.up[0] <= y <= self.up[1]


class CurvePictures:
    """Writer of effect curves.

    Args:
        variables: The variables.
        plain: The text of a value of a variable, without its unit.
    """

    def __init__(
        self, variables: Mapping[str, Variable], plain: Callable[[str, float | None], str]
    ) -> None:
        self.variables, self.plain = variables, plain

    def picture(
        self, curves: Curves, curve: Curve, marks: Mapping[str, Mapping[str, float | None]]
    ) -> str:
        """One effect over the cause, with a heading.

        Args:
            curves: The cause and its values.
            curve: The effect, of this observation and of others.
            marks: Values of the variables ``factual`` and, if they are asked for, ``asked``.
        """
        axes = _Axes(
            self._range(curves.cause, curves.values),
            self._range(curve.name, [y for each in (curve.own, *curve.others) for y in each]),
        )
        shapes = self._frame(curves.cause, curve.name, axes)
        shapes += "".join(_line("other", axes, curves.values, each) for each in curve.others)
        shapes += _line("own", axes, curves.values, curve.own)
        for kind, values in marks.items():
            shapes += _dot(kind, axes, values[curves.cause], values[curve.name])
        told = "; ".join(
            f"{self.plain(curves.cause, x)}: {self.plain(curve.name, y)}"
            for x, y in zip(curves.values, curve.own, strict=True)
        )
        return (
            f"<div><h4>{escape(for_terminal(self.variables[curve.name].label))}</h4>"
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(told)}</title>'
            f"{shapes}</svg></div>"
        )

    def _frame(self, cause: str, effect: str, axes: _Axes) -> str:
        """Lines and numbers of both axes, and the name of the cause."""
        shapes = ""
        for value in self._ticks(effect, axes.up, 4):
            y = axes.y(value)
            shapes += (
                f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                f"{escape(self._tick(effect, value))}</text>"
            )
        for value in self._ticks(cause, axes.across, 5):
            shapes += (
                f'<text x="{axes.x(value):.1f}" y="{_HEIGHT - _BOTTOM + 15}" '
                f'text-anchor="middle">{escape(self._tick(cause, value))}</text>'
            )
        label = escape(for_terminal(self.variables[cause].label))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        return f'{shapes}<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{label}</text>'

    def _range(self, name: str, values: Sequence[float]) -> tuple[float, float]:
        finite = [each for each in values if math.isfinite(each)] or [0.0]
        low, high = min(finite), max(finite)
        room = 0.04 * (high - low) or max(abs(low) * 0.04, 0.5)
        if (count := self.variables[name].domain.categories) is not None:
            return -0.3, max(count - 1, 1) + 0.3
        return low - room, high + room

    def _ticks(self, name: str, ends: tuple[float, float], count: int) -> Iterable[float]:
        if (classes := self.variables[name].domain.categories) is not None:
            return (float(k) for k in range(0, classes, -(-classes // count)))
        size = (ends[1] - ends[0]) / count
        power = 10.0 ** math.floor(math.log10(size))
        step = next(f * power for f in (1, 2, 5, 10) if f * power >= size * 0.9999)
        first = math.ceil(ends[0] / step)
        return (k * step for k in range(first, math.floor(ends[1] / step) + 1))

    def _tick(self, name: str, value: float) -> str:
        if self.variables[name].domain.categories is not None:
            return shortened(self.plain(name, value), 11)
        return f"{value + 0.0:.6g}".replace("-", MINUS)


def _line(kind: str, axes: _Axes, values: Sequence[float], column: Sequence[float]) -> str:
    points = zip(values, column, strict=True)
    path = "L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in points)
    return f'<path class="{kind}" d="M{path}"/>'


def _dot(kind: str, axes: _Axes, x: float | None, y: float | None) -> str:
    if x is None or y is None or not axes.contain(x, y):
        return ""
    place = f'cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}"'
    return f'<circle class="{kind}" {place} r="{_RADIUS[kind]:g}"/>'
