"""Images and tissue maps of heads."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.worlds.heads.anatomy import Anatomy
from deepscm_pl.worlds.heads.grid import Floats, HeadGrid
from deepscm_pl.worlds.heads.tissue import draw_tissues

__all__ = ["draw_heads", "draw_labels"]


def draw_labels(
    traits: ArrayLike, brain_volume: ArrayLike, ventricle_volume: ArrayLike, grid: HeadGrid
) -> Floats:
    """Fraction of each of the :data:`~deepscm_pl.worlds.heads.TISSUES` in every pixel or voxel.

    Args:
        traits: Standard normal traits of each head, ``(N, TRAITS)``.
        brain_volume: In mm³, ``(N,)``.
        ventricle_volume: In mm³, ``(N,)``.
        grid: Positions of the pixels or voxels.

    Returns:
        Fractions ``(N, tissues, *grid.shape)`` with the sum 1 over tissues.
    """
    anatomy = Anatomy.of(np.asarray(traits, dtype=np.float32))
    tissues = draw_tissues(anatomy, brain_volume, ventricle_volume, grid)
    return tissues.reshape(*tissues.shape[:2], *grid.shape)


def draw_heads(
    traits: ArrayLike, brain_volume: ArrayLike, ventricle_volume: ArrayLike, grid: HeadGrid
) -> NDArray[np.uint8]:
    """Draw heads with the given volumes, a smooth bias field and noise.

    The arguments are those of :func:`draw_labels`; the traits determine the noise as well.

    Returns:
        Grey levels, ``(N, *grid.shape)``.
    """
    table = np.asarray(traits, dtype=np.float32)
    anatomy = Anatomy.of(table)
    tissues = draw_tissues(anatomy, brain_volume, ventricle_volume, grid)
    fluid, grey, white, skull, scalp = (anatomy.levels[:, k] for k in range(5))
    levels = [np.zeros_like(fluid), scalp, skull, fluid, grey, white, fluid * 0.85]
    clean = sum(level * tissues[:, k] for k, level in enumerate(levels))
    biased = clean * np.exp(_bias(anatomy, grid))
    # The magnitude of a complex signal is never negative, and noisy in air as well.
    real, imaginary = _noise(table, 2 * tissues.shape[-1]).reshape(len(table), 2, -1).swapaxes(0, 1)
    magnitude = np.hypot(biased + anatomy.noise * real, anatomy.noise * imaginary)
    return np.clip(np.rint(magnitude), 0, 255).astype(np.uint8).reshape(-1, *grid.shape)


def _bias(anatomy: Anatomy, grid: HeadGrid) -> Floats:
    """Logarithm of the bias field, a quadratic function of position, ``(N, E)``."""
    right, forward, *_ = 2 * grid.coordinates() / grid.extent
    terms = (right, forward, right * forward, right**2 - 0.3, forward**2 - 0.3)
    field: Floats = sum(anatomy.bias[:, k] * term for k, term in enumerate(terms))
    return field


def _noise(traits: Floats, count: int) -> Floats:
    """Standard normal numbers that depend on the traits only, ``(N, count)``.

    A counter is hashed with a key made of each head's traits (splitmix64, Steele et al. 2014), so
    that a head has the same noise in every image and in every batch.
    """
    key = np.zeros(len(traits), dtype=np.uint64)
    for column in np.ascontiguousarray(traits).view(np.uint32).T:
        key = _scramble(key ^ column.astype(np.uint64))
    counter = np.arange(2 * ((count + 1) // 2), dtype=np.uint64)
    bits = _scramble(key[:, None] + counter * np.uint64(0x9E3779B97F4A7C15))
    uniform = ((bits >> np.uint64(40)).astype(np.float32) + np.float32(0.5)) / np.float32(2**24)
    first, second = uniform[:, 0::2], uniform[:, 1::2]
    radius, angle = np.sqrt(-2 * np.log(first)), np.float32(2 * np.pi) * second
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal[:, :count]


def _scramble(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
