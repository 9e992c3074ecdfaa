"""Which tissue is where in a head of given volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.worlds.heads.anatomy import Anatomy
from deepscm_pl.worlds.heads.grid import HeadGrid

__all__ = ["TISSUES", "draw_tissues"]

_Array = NDArray[np.float32]
_Exact = NDArray[np.float64]

TISSUES = ("background", "scalp", "skull", "fluid", "grey matter", "white matter", "ventricles")
"""What an element can consist of, in the order of the fractions."""

_STANDARD_VOLUME = 1.16e6
"""Of the brain whose half-axes the anatomy gives, in mm³."""

_HORNS = (
    # From and to, right and forward and up of the middle, in mm; how much thinner than the body.
    ((6.0, 8.0, 8.0), (11.0, 30.0, 2.0), 0.5),
    ((6.0, 8.0, 8.0), (8.0, -10.0, 11.0), 0.0),
    ((8.0, -10.0, 11.0), (21.0, -38.0, 1.0), 0.5),
    ((19.0, -28.0, 4.0), (30.0, -2.0, -17.0), 3.0),
)
"""The middle lines of the right lateral ventricle, in a brain of standard volume."""

_IN_PLANE = 3
"""How many of the horns meet the slice; the last one lies below it."""


def draw_tissues(
    anatomy: Anatomy, brain_volume: _Exact, ventricle_volume: _Exact, grid: HeadGrid
) -> _Array:
    """Fractions of each tissue in every element, of heads with the given volumes.

    The brain is what lies within its folded surface, ventricles included. Its surface is a level
    of a field, and so is that of the ventricles; the levels are found such that the volumes are
    those asked for. All else scales with the brain.

    Args:
        anatomy: Of N heads.
        brain_volume: ``(N, 1)``, in mm³.
        ventricle_volume: ``(N, 1)``, in mm³, less than a quarter of the brain.
        grid: Where the elements lie.

    Returns:
        ``(N, len(TISSUES), E)``, of sum 1 over tissues.
    """
    scale = ((brain_volume / _STANDARD_VOLUME) ** (1 / grid.dimensions)).astype(np.float32)
    place = _Place.of(anatomy, scale, grid)
    level = _level(
        place.brain, place.steepness, brain_volume / grid.brain_element, grid.spacing, start=1.0
    )
    brain = _cover(level, place.brain, place.steepness, grid.spacing)
    cortex = (anatomy.ribbon * scale) * place.steepness
    white = _cover(level, place.white + cortex, place.steepness, grid.spacing)
    millimetres = np.ones((1, 1), dtype=np.float32)
    reach = _level(
        place.ventricle, millimetres, ventricle_volume / grid.ventricle_element, grid.spacing,
        start=6.0, inside=brain,
    )  # fmt: skip
    ventricle = brain * _cover(reach, place.ventricle, millimetres, grid.spacing)
    shells = [
        np.maximum(_cover(level * share, place.smooth, place.steepness, grid.spacing), brain)
        for share in _shares(anatomy)
    ]
    inner, outer, skin = np.maximum.accumulate(np.stack(shells), axis=0)
    white = np.minimum(white, brain)
    return np.stack(
        [
            1 - skin,
            skin - outer,
            outer - inner,
            inner - brain,
            brain - np.maximum(white, ventricle),
            np.maximum(white - ventricle, 0),
            ventricle,
        ],
        axis=1,
    )


def _shares(anatomy: Anatomy) -> tuple[_Array, _Array, _Array]:
    """The surfaces of fluid, skull and scalp, as multiples of the brain's radius."""
    fluid = 1 + anatomy.gap
    bone = fluid + anatomy.skull
    return fluid, bone, bone + anatomy.scalp


@dataclass(frozen=True)
class _Place:
    """Fields over the elements of N heads, ``(N, E)``; each surface is a level of one of them.

    Attributes:
        smooth: 1 on a brain of standard shape without folds, growing outwards.
        steepness: How much it grows over a millimetre.
        brain: The same with sulci cut into it.
        white: With deeper ones.
        ventricle: Distance from the middle lines of the ventricles, in mm.
    """

    smooth: _Array
    steepness: _Array
    brain: _Array
    white: _Array
    ventricle: _Array

    @classmethod
    def of(cls, anatomy: Anatomy, scale: _Array, grid: HeadGrid) -> _Place:
        """The fields of heads that are ``scale`` times the standard, ``(N, 1)``."""
        right, forward, up = _placed(anatomy, grid)
        radius = np.sqrt(right**2 + forward**2 + up**2) + np.float32(1e-3)
        smooth = _outline(anatomy, right, forward, up)
        grooves = _grooves(anatomy, (right / radius, forward / radius, up / radius), smooth)
        return cls(
            smooth=smooth,
            steepness=smooth / radius,
            brain=smooth * (1 + anatomy.fold_depth * grooves),
            white=smooth * (1 + 2.6 * anatomy.fold_depth * grooves),
            ventricle=_horns(anatomy, right / scale, forward / scale, up / scale, grid) * scale,
        )


def _placed(anatomy: Anatomy, grid: HeadGrid) -> tuple[_Array, _Array, _Array]:
    """Right, forward and up of every element in each head's own frame, ``(N, E)``."""
    coordinates = grid.coordinates()
    right = coordinates[0] - anatomy.shift[:, 0]
    forward = coordinates[1] - anatomy.shift[:, 1]
    cosine, sine = np.cos(anatomy.turn), np.sin(anatomy.turn)
    turned = cosine * right + sine * forward, cosine * forward - sine * right
    up = coordinates[2] if grid.dimensions == 3 else np.zeros_like(coordinates[0])
    return *turned, np.broadcast_to(up, turned[0].shape)


def _outline(anatomy: Anatomy, right: _Array, forward: _Array, up: _Array) -> _Array:
    """The superellipsoid, narrower in front, with two slow waves."""
    across, along, height = (anatomy.half_axes[:, k] for k in range(3))
    narrow = 1 - anatomy.taper * np.tanh(forward / along)
    power = anatomy.squareness
    total = (
        np.abs(right / (across * narrow)) ** power
        + np.abs(forward / along) ** power
        + np.abs(up / height) ** power
    )
    angle = np.arctan2(right, forward)
    wave = anatomy.dent[:, 0] * np.cos(2 * angle) + anatomy.dent[:, 1] * np.sin(3 * angle)
    smooth: _Array = (total + np.float32(1e-9)) ** (1 / power) * (1 + wave)
    return smooth


def _grooves(anatomy: Anatomy, direction: tuple[_Array, _Array, _Array], smooth: _Array) -> _Array:
    """1 in sulci and in the fissure between the hemispheres, 0 between them."""
    waves = sum(
        component[:, None] * anatomy.fold_directions[:, k] for k, component in enumerate(direction)
    )
    crossing = np.cos(waves + anatomy.fold_phases).mean(axis=1)
    sulci = np.exp(-((crossing / np.float32(0.13)) ** 2))
    fissure = 2.2 * np.exp(-((direction[0] / np.float32(0.05)) ** 2))
    grooves: _Array = np.maximum(sulci, fissure) * np.clip((smooth - 0.55) / 0.2, 0, 1)
    return grooves


def _horns(anatomy: Anatomy, right: _Array, forward: _Array, up: _Array, grid: HeadGrid) -> _Array:
    """Distance from the middle lines of both lateral ventricles, less how thick they are."""
    left = right < 0
    width = anatomy.spread * np.where(left, 1 + anatomy.asymmetry, 1 - anatomy.asymmetry)
    outward = (np.abs(right) / width).astype(np.float32)
    horns = _HORNS if grid.dimensions == 3 else _HORNS[:_IN_PLANE]
    distances = [_distance((outward, forward, up), *horn, flat=grid.dimensions == 2)
                 for horn in horns]  # fmt: skip
    nearest: _Array = np.minimum.reduce(distances)
    return nearest


def _distance(
    place: tuple[_Array, _Array, _Array],
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    thinner: float,
    flat: bool,
) -> _Array:
    """Distance from a line between two points, in mm, plus how much thinner the horn is there."""
    axes = 2 if flat else 3
    length = sum((end[k] - start[k]) ** 2 for k in range(axes))
    along = sum((place[k] - start[k]) * (end[k] - start[k]) for k in range(axes)) / length
    along = np.clip(along, 0, 1)
    squares = sum((place[k] - start[k] - along * (end[k] - start[k])) ** 2 for k in range(axes))
    distance: _Array = np.sqrt(squares) + np.float32(thinner) * along
    return distance


def _cover(level: _Array, field: _Array, steepness: _Array, spacing: float) -> _Array:
    """The share of each element that lies below a level of a field, ``(N, E)``."""
    covered: _Array = np.clip(0.5 + (level - field) / (steepness * np.float32(spacing)), 0, 1)
    return covered


def _level(
    field: _Array,
    steepness: _Array,
    size: _Exact,
    spacing: float,
    start: float,
    inside: _Array | None = None,
    rounds: int = 40,
) -> _Array:
    """The level below which ``size`` elements lie, ``(N, 1)``, by bisection."""
    weight = np.float32(1) if inside is None else inside

    def holds_enough(level: _Array) -> NDArray[np.bool_]:
        covered = (weight * _cover(level, field, steepness, spacing)).sum(axis=1, keepdims=True)
        return covered.astype(np.float64) >= size

    # What is thinner than an element covers no more than a part of it, even along its middle.
    is_thin = holds_enough(np.zeros(size.shape, dtype=np.float32))
    low, high = np.where(is_thin, -spacing, 0.0), np.where(is_thin, 0.0, 8 * start)
    for _ in range(rounds):
        middle = ((low + high) / 2).astype(np.float32)
        enough = holds_enough(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return ((low + high) / 2).astype(np.float32)
