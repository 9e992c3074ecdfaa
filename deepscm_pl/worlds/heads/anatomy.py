"""Anatomical variation between heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepscm_pl.worlds.heads.grid import Floats

__all__ = ["TRAITS", "Anatomy"]

_FOLDS = 3
"""Number of waves over the surface of the brain; their zeros are the sulci."""

_BIAS = 5
"""Number of coefficients of the bias field."""

TRAITS = 23 + 4 * _FOLDS + _BIAS
"""Number of standard normal traits that describe a head."""


@dataclass(frozen=True)
class Anatomy:
    """Traits of N heads, ``(N, 1)`` each unless another shape is given; lengths in mm."""

    half_axes: Floats  # to the right, forward and up, for a standard volume, (N, 3, 1)
    squareness: Floats  # exponent of the superellipse; 2 is an ellipse
    taper: Floats  # relative narrowing of the front
    dent: Floats  # amplitudes of slow waves of the outline, (N, 2, 1)
    turn: Floats  # in-plane rotation, in radians
    shift: Floats  # offset of the centre to the right and forward, (N, 2, 1)
    fold_directions: Floats  # wave vectors of the surface, (N, 3, folds, 1)
    fold_phases: Floats  # phases of these waves, in radians, (N, folds, 1)
    fold_depth: Floats  # depth of the sulci, relative to the radius
    ribbon: Floats  # thickness of the cortex
    spread: Floats  # factor of the distance between the horns of the ventricles
    asymmetry: Floats  # relative widening of the left ventricle
    gap: Floats  # thickness of the fluid between brain and skull, relative to the radius
    skull: Floats  # thickness of the skull, relative to the radius
    scalp: Floats  # thickness of the scalp, relative to the radius
    levels: Floats  # grey levels of fluid, grey and white matter, skull, scalp, (N, 5, 1)
    bias: Floats  # coefficients of the bias field, (N, 5, 1)
    noise: Floats  # standard deviation of the noise, in grey levels

    @classmethod
    def of(cls, traits: Floats) -> Anatomy:
        """Anatomies of heads with standard normal traits, ``(N, TRAITS)``."""
        soft = np.tanh(traits.astype(np.float32) / 2) * 2  # limits extreme anatomies
        columns = iter(np.split(soft, TRAITS, axis=1))

        def one(mean: float, deviation: float) -> Floats:
            return (mean + deviation * next(columns)).astype(np.float32)

        def several(*means: float, deviation: float) -> Floats:
            return np.stack([one(mean, deviation) for mean in means], axis=1)

        half_axes = np.stack([one(66, 2), one(84, 2.5), one(62, 2)], axis=1)
        directions = several(*[0.0] * 3 * _FOLDS, deviation=1.0).reshape(len(traits), 3, _FOLDS, 1)
        # Waves of one length in any direction; the constant avoids a division by zero.
        norm = np.linalg.norm(directions, axis=1, keepdims=True) + 0.1
        return cls(
            half_axes=half_axes,
            squareness=one(2.25, 0.08),
            taper=one(0.1, 0.03),
            dent=several(0.0, 0.0, deviation=0.012),
            turn=one(0, 0.03),
            shift=several(0.0, 0.0, deviation=1.5),
            fold_directions=(11 * directions / norm).astype(np.float32),
            fold_phases=several(*[0.0] * _FOLDS, deviation=np.pi / 2),
            fold_depth=one(0.07, 0.01),
            ribbon=one(5.0, 0.3),
            spread=one(1, 0.08),
            asymmetry=one(0, 0.08),
            gap=one(0.07, 0.012),
            skull=one(0.09, 0.008),
            scalp=one(0.06, 0.01),
            levels=np.stack(
                [one(42, 2), one(104, 3), one(172, 3), one(24, 2), one(200, 8)], axis=1
            ),
            bias=several(*[0.0] * _BIAS, deviation=0.03),
            noise=np.exp(one(np.log(2.5), 0.15)).astype(np.float32),
        )
