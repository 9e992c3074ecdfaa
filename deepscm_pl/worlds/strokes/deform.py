r"""Horizontal shearing and scaling of handwritten digits.

Both deformations move pixels along their rows. With the centroid :math:`(\bar x, \bar y)` and the
lean :math:`k` (columns per row) of the digit, they map

.. math:: x - \bar x - k (y - \bar y) \mapsto f \, (x - \bar x - k (y - \bar y))

and :math:`k` to :math:`k'`. A shear has the factor :math:`f = 1`; a scaling keeps :math:`k`. After
Castro et al. (2019, arXiv:1809.01181), but about the centroid and on grey levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.worlds.strokes.morphometrics import Pose, extents, find_pose
from deepscm_pl.worlds.strokes.raster import (
    Images,
    Measures,
    enlarge,
    grey_range,
    interpolate,
    reduce,
)
from deepscm_pl.worlds.strokes.render import redraw

__all__ = ["set_slant", "set_width"]

_ENLARGEMENT = 4


def set_slant(image: ArrayLike, slant: ArrayLike) -> NDArray[np.uint8]:
    r"""Shear digits horizontally about their centroid to the given slant.

    Pixels that are moved beyond the image are lost; a black image stays black. On every tenth MNIST
    test digit and slants from -0.4 to 0.4 radians, the measured slant deviates by 0.002 radians on
    average and by less than 0.007 for 95 %.

    Args:
        image: Grey levels 0 to 255, ``(H, W)`` or ``(N, H, W)``; batches are faster.
        slant: In radians, in :math:`(-\pi/2, \pi/2)`, positive to the right; a number or ``(N,)``.
    """
    expected = "between -π/2 and π/2 radians"
    return redraw(image, "slant", slant, expected, lambda s: np.abs(s) < np.pi / 2, _shear)


def set_width(image: ArrayLike, width: ArrayLike) -> NDArray[np.uint8]:
    """Scale digits horizontally about their centroid to the given width, and keep their slant.

    The width is that of the bounding parallelogram. Pixels that are moved beyond the image are
    lost; a black image stays black. On every tenth MNIST test digit except ones, and widths from 12
    to 20 pixels, the measured width deviates by 0.2 pixels on average and by less than 0.55 for
    95 %. The mean deviation grows to 0.6 pixels at a width of 8, where the blurred edges of strokes
    matter, and at 24, where wide digits are cut off. Ones, which are stretched several times,
    become up to 2.6 pixels too narrow on average.

    Args:
        image: Grey levels 0 to 255, ``(H, W)`` or ``(N, H, W)``; batches are faster.
        width: In pixels, above 0 and at most W; a number or ``(N,)``.
    """
    most = np.shape(image)[-1] if np.ndim(image) else 0
    expected = f"above 0 and at most {most}, in pixels"
    return redraw(image, "width", width, expected, lambda w: (w > 0) & (w <= most), _stretch)


def _shear(images: Images, slants: Measures) -> NDArray[np.uint8]:
    pose = find_pose(enlarge(images, _ENLARGEMENT))
    return _deform(images, pose, -np.tan(slants), np.ones(len(images)))


def _stretch(images: Images, widths: Measures) -> NDArray[np.uint8]:
    enlarged = enlarge(images, _ENLARGEMENT)
    pose = find_pose(enlarged)
    with np.errstate(invalid="ignore", divide="ignore"):
        factors = _ENLARGEMENT * widths / extents(enlarged, pose)[0]
    return _deform(images, pose, pose.lean, factors)


def _deform(images: Images, pose: Pose, leans: Measures, factors: Measures) -> NDArray[np.uint8]:
    """Give images ``(N, H, W)`` new leans, and multiply their widths by factors."""
    # Not `enlarge`, which smooths: `reduce` smooths already.
    larger = np.clip(interpolate(images, _ENLARGEMENT), *grey_range(images))
    height, width = larger.shape[1:]
    # A black image has no centroid; any finite pose leaves it black.
    row, column, old, new, factor = np.nan_to_num([*pose, leans, factors], nan=1.0)[
        :, :, None, None
    ]
    below = np.arange(height)[:, None] - row
    across = np.arange(width) - column - new * below
    moved = _sample_rows(larger, column + old * below + across / factor)
    return np.rint(np.clip(reduce(moved, _ENLARGEMENT), 0, 255)).astype(np.uint8)


def _sample_rows(images: Images, positions: Measures) -> Images:
    """Grey levels at fractional column positions, ``(N, H, W)``; 0 outside the image."""
    width = images.shape[2]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 2)))
    positions = np.clip(positions + 1, 0, width + 1)
    left = np.floor(positions).astype(np.intp)
    share = (positions - left).astype(np.float32)
    before = np.take_along_axis(padded, left, axis=2)
    after = np.take_along_axis(padded, left + 1, axis=2)
    return before + share * (after - before)
