"""Shapes of known measurements, drawn with smooth edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FINE = 8
_SIDE = 28


def ring(radius: float, thickness: float) -> NDArray[np.uint8]:
    """A ring with a given mean radius and thickness: a stroke without ends, ``(28, 28)``."""
    y, x = _grid()
    return _draw(np.abs(np.hypot(x - _SIDE / 2, y - _SIDE / 2) - radius) <= thickness / 2)


def bar(width: float, height: float, shear: float = 0.0) -> NDArray[np.uint8]:
    """A parallelogram in the centre, sheared by ``shear`` columns per row, ``(28, 28)``."""
    y, x = _grid()
    along, across = y - _SIDE / 2, x - _SIDE / 2 - shear * (y - _SIDE / 2)
    return _draw((np.abs(along) <= height / 2) & (np.abs(across) <= width / 2))


def _grid() -> NDArray[np.float64]:
    return (np.mgrid[: _SIDE * _FINE, : _SIDE * _FINE] + 0.5) / _FINE


def _draw(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    cells = mask.reshape(_SIDE, _FINE, _SIDE, _FINE)
    return np.rint(255 * cells.mean(axis=(1, 3))).astype(np.uint8)
