"""Tissue fractions in heads with given volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.worlds.heads.anatomy import Anatomy
from deepscm_pl.worlds.heads.grid import Floats, HeadGrid

__all__ = ["TISSUES", "draw_tissues"]


TISSUES = ("background", "scalp", "skull", "fluid", "grey matter", "white matter", "ventricles")
"""Tissues in the order of their fractions."""

_STANDARD_VOLUME = 1.16e6
"""Volume of a brain with the half-axes of the anatomy, in mm³."""

_HORNS = (
    # Start and end (right, forward and up from the centre) and thinning towards the end, in mm.
    ((6.0, 8.0, 8.0), (11.0, 30.0, 2.0), 0.5),
    ((6.0, 8.0, 8.0), (8.0, -10.0, 11.0), 0.0),
    ((8.0, -10.0, 11.0), (21.0, -38.0, 1.0), 0.5),
    ((19.0, -28.0, 4.0), (30.0, -2.0, -17.0), 3.0),
)
"""Centre lines of the right lateral ventricle in a brain of standard volume."""

_IN_PLANE = 3
"""Number of horns that meet the slice; the last one lies below it."""


def draw_tissues(
    anatomy: Anatomy, brain_volume: ArrayLike, ventricle_volume: ArrayLike, grid: HeadGrid
) -> Floats:
    """Fraction of each tissue in every pixel or voxel, ``(N, len(TISSUES), E)``, with the sum 1.

    The brain is the interior of its folded surface, ventricles included. The surfaces of brain and
    ventricles are level sets of fields; their levels are chosen to give the requested volumes, in
    mm³, ``(N,)``. All other structures scale with the brain.
    """
    brain_volume = np.asarray(brain_volume, dtype=np.float64)[:, None]
    ventricle_volume = np.asarray(ventricle_volume, dtype=np.float64)[:, None]
    scale = ((brain_volume / _STANDARD_VOLUME) ** (1 / grid.dimensions)).astype(np.float32)
    place = _Place.of(anatomy, scale, grid)
    level = _level(
        place.brain, place.steepness, brain_volume / grid.brain_per_voxel, grid.spacing, start=1.0
    )
    brain = _cover(level, place.brain, place.steepness, grid.spacing)
    cortex = (anatomy.ribbon * scale) * place.steepness
    white = _cover(level, place.white + cortex, place.steepness, grid.spacing)
    millimetres = np.ones((1, 1), dtype=np.float32)
    reach = _level(
        place.ventricle,
        millimetres,
        ventricle_volume / grid.ventricle_per_voxel,
        grid.spacing,
        start=6.0,
        inside=brain,
    )
    ventricle = brain * _cover(reach, place.ventricle, millimetres, grid.spacing)
    # Radii of the surfaces of fluid, skull and scalp, relative to the brain.
    fluid = 1 + anatomy.gap
    bone = fluid + anatomy.skull
    shells = [
        np.maximum(_cover(level * radius, place.smooth, place.steepness, grid.spacing), brain)
        for radius in (fluid, bone, bone + anatomy.scalp)
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


@dataclass(frozen=True)
class _Place:
    """Fields over N heads, ``(N, E)``, whose level sets are the surfaces of tissues."""

    smooth: Floats  # 1 on the surface of a standard brain without folds, increasing outwards
    steepness: Floats  # increase of `smooth` per millimetre
    brain: Floats  # `smooth` with sulci
    white: Floats  # `smooth` with deeper sulci
    ventricle: Floats  # distance from the centre lines of the ventricles, in mm

    @classmethod
    def of(cls, anatomy: Anatomy, scale: Floats, grid: HeadGrid) -> _Place:
        """Fields of heads of ``scale`` times the standard size, ``(N, 1)``."""
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


def _placed(anatomy: Anatomy, grid: HeadGrid) -> tuple[Floats, Floats, Floats]:
    """Positions (right, forward, up) in the coordinate system of each head, ``(N, E)``."""
    coordinates = grid.coordinates()
    right = coordinates[0] - anatomy.shift[:, 0]
    forward = coordinates[1] - anatomy.shift[:, 1]
    cosine, sine = np.cos(anatomy.turn), np.sin(anatomy.turn)
    turned = cosine * right + sine * forward, cosine * forward - sine * right
    up = coordinates[2] if grid.dimensions == 3 else np.zeros_like(coordinates[0])
    return *turned, np.broadcast_to(up, turned[0].shape)


def _outline(anatomy: Anatomy, right: Floats, forward: Floats, up: Floats) -> Floats:
    """Radius relative to a superellipsoid that is narrower in front and has two slow waves."""
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
    return (total + np.float32(1e-9)) ** (1 / power) * (1 + wave)


def _grooves(anatomy: Anatomy, direction: tuple[Floats, Floats, Floats], smooth: Floats) -> Floats:
    """Depth of sulci (1) and of the fissure between the hemispheres; 0 elsewhere."""
    waves = sum(
        component[:, None] * anatomy.fold_directions[:, k] for k, component in enumerate(direction)
    )
    crossing = np.cos(waves + anatomy.fold_phases).mean(axis=1)
    sulci = np.exp(-((crossing / np.float32(0.13)) ** 2))
    fissure = 2.2 * np.exp(-((direction[0] / np.float32(0.05)) ** 2))
    return np.maximum(sulci, fissure) * np.clip((smooth - 0.55) / 0.2, 0, 1)


def _horns(anatomy: Anatomy, right: Floats, forward: Floats, up: Floats, grid: HeadGrid) -> Floats:
    """Distance from the centre lines of both lateral ventricles, plus their thinning, in mm."""
    left = right < 0
    width = anatomy.spread * np.where(left, 1 + anatomy.asymmetry, 1 - anatomy.asymmetry)
    outward = (np.abs(right) / width).astype(np.float32)
    horns = _HORNS if grid.dimensions == 3 else _HORNS[:_IN_PLANE]
    place = (outward, forward, up)
    return np.minimum.reduce([_line_distance(place, *horn, grid.dimensions) for horn in horns])


def _line_distance(
    place: tuple[Floats, Floats, Floats],
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    thinner: float,
    axes: int,
) -> Floats:
    """Distance from a line between two points, plus the thinning of the horn, in mm."""
    length = sum((end[k] - start[k]) ** 2 for k in range(axes))
    along = sum((place[k] - start[k]) * (end[k] - start[k]) for k in range(axes)) / length
    along = np.clip(along, 0, 1)
    squares = sum((place[k] - start[k] - along * (end[k] - start[k])) ** 2 for k in range(axes))
    return np.sqrt(squares) + np.float32(thinner) * along


def _cover(level: Floats, field: Floats, steepness: Floats, spacing: float) -> Floats:
    """Share of each pixel or voxel that lies below a level of a field, ``(N, E)``."""
    return np.clip(0.5 + (level - field) / (steepness * np.float32(spacing)), 0, 1)


def _level(
    field: Floats,
    steepness: Floats,
    size: NDArray[np.float64],
    spacing: float,
    start: float,
    inside: Floats | None = None,
    rounds: int = 40,
) -> Floats:
    """Level below which ``size`` pixels or voxels lie, ``(N, 1)``, by bisection."""
    weight = np.float32(1) if inside is None else inside

    def holds_enough(level: Floats) -> NDArray[np.bool_]:
        covered = (weight * _cover(level, field, steepness, spacing)).sum(axis=1, keepdims=True)
        return covered.astype(np.float64) >= size

    # A structure thinner than a voxel covers only part of it, and has a negative level.
    is_thin = holds_enough(np.zeros(size.shape, dtype=np.float32))
    low, high = np.where(is_thin, -spacing, 0.0), np.where(is_thin, 0.0, 8 * start)
    for _ in range(rounds):
        middle = ((low + high) / 2).astype(np.float32)
        enough = holds_enough(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return ((low + high) / 2).astype(np.float32)
