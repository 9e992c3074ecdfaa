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
    """Traits of N heads, ``(N, 1)`` each unless another shape is given; lengths in mm.

    Attributes:
        half_axes: Half-axes of the brain to the right, forward and up, before the brain is scaled
            to its volume, ``(N, 3, 1)``.
        squareness: Exponent of the superellipse; 2 is an ellipse.
        taper: Relative narrowing of the front.
        dent: Amplitudes of slow waves of the outline, ``(N, 2, 1)``.
        turn: In-plane rotation, in radians.
        shift: Offset of the centre to the right and forward, ``(N, 2, 1)``.
        fold_directions: Wave vectors of the surface, ``(N, 3, folds, 1)``.
        fold_phases: Phases of these waves, in radians, ``(N, folds, 1)``.
        fold_depth: Depth of the sulci, as a share of the radius.
        ribbon: Thickness of the cortex.
        spread: Factor of the distance between the horns of the ventricles.
        asymmetry: Relative widening of the left ventricle.
        gap: Thickness of the fluid between brain and skull, as a share of the radius.
        skull: Thickness of the skull, as a share of the radius.
        scalp: Thickness of the scalp, as a share of the radius.
        levels: Grey levels of fluid, grey matter, white matter, skull and scalp, ``(N, 5, 1)``.
        bias: Coefficients of the bias field, ``(N, 5, 1)``.
        noise: Standard deviation of the noise, in grey levels.
    """

    half_axes: Floats
    squareness: Floats
    taper: Floats
    dent: Floats
    turn: Floats
    shift: Floats
    fold_directions: Floats
    fold_phases: Floats
    fold_depth: Floats
    ribbon: Floats
    spread: Floats
    asymmetry: Floats
    gap: Floats
    skull: Floats
    scalp: Floats
    levels: Floats
    bias: Floats
    noise: Floats

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
