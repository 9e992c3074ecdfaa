"""A world of digits whose class causes their colour."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.distributions import AffineTransform, Transform

from deepscm_pl.mechanisms.known import Known, KnownClass
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain, Variables
from deepscm_pl.worlds.base import Attributes, KnownWorld
from deepscm_pl.worlds.digits import DigitRenderer

__all__ = ["ColourWorld", "measure_hue", "set_hue"]

_LEAST, _MOST = -60.0, 300.0
"""Hues in degrees, from magenta (−60) by red (0), yellow, green and blue to magenta."""

_CLASSES = 10


def set_hue(images: ArrayLike, hue: ArrayLike) -> NDArray[np.uint8]:
    """Tint grey images: the pure colour of a hue, as bright as each pixel.

    Args:
        images: Grey levels ``(N, H, W)``.
        hue: In degrees, ``(N,)``: red 0, yellow 60, green 120, cyan 180, blue 240, magenta 300.

    Returns:
        Red, green and blue, ``(N, 3, H, W)``.

    Example:
        >>> set_hue(np.full((2, 1, 1), 200), [0.0, 90.0])[:, :, 0, 0].tolist()
        [[200, 0, 0], [100, 200, 0]]
    """
    grey = np.asarray(images, dtype=np.float64)
    phase = (np.asarray(hue, dtype=np.float64)[:, None] - [0.0, 120.0, 240.0] + 180) % 360 - 180
    share = np.clip(2 - np.abs(phase) / 60, 0, 1)
    coloured: NDArray[np.uint8] = np.rint(share[:, :, None, None] * grey[:, None]).astype(np.uint8)
    return coloured


def measure_hue(images: ArrayLike) -> NDArray[np.float64]:
    """Measure the hue of the sum over pixels of images ``(N, 3, H, W)``, in degrees.

    From −60 to 300; NaN for a grey image.

    Example:
        >>> measure_hue(set_hue(np.full((3, 4, 4), 200), [-30.0, 0.0, 90.0])).round().tolist()
        [-30.0, 0.0, 90.0]
    """
    colours = np.asarray(images, dtype=np.float64).sum(axis=(-2, -1))
    strongest, weakest = colours.max(axis=1), colours.min(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (colours - weakest[:, None]) / (strongest - weakest)[:, None]
    first = colours.argmax(axis=1)
    rows = np.arange(len(colours))
    after, before = scaled[rows, (first + 1) % 3], scaled[rows, (first + 2) % 3]
    hue = (120 * first + 60 * (after - before)) % 360
    return np.where(hue >= _MOST, hue - 360, hue)


class ColourRenderer(DigitRenderer):
    """A renderer of digits of a given hue; the digit is that of the original."""

    attributes = ("hue",)
    shape_attributes = ("hue",)
    fixed = ("digit",)
    has_channels = True

    def drawn_shape(self, originals: NDArray[np.uint8]) -> tuple[int, ...]:
        """The shape of coloured images, ``(N, 3, H, W)``."""
        return (len(originals), 3, *originals.shape[1:])

    def shape(self, originals: NDArray[np.uint8], attributes: Attributes) -> NDArray[np.uint8]:
        """Tint digits."""
        return set_hue(originals, attributes["hue"])

    def measure(self, images: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Measure the hue of images ``(N, 3, H, W)``; NaN where there is none."""
        return {"hue": measure_hue(images)}


class ColourWorld(KnownWorld):
    r"""A world in which the class of a digit causes its colour.

    .. math::
        d &\sim \text{uniform on } 0, \dots, 9 \\
        h &= 28 d + 10 \, \epsilon \text{ degrees}, & \epsilon &\sim N(0, 1) \\
        x &= \text{an original of class } d \text{, tinted by hue } h.

    Images are of three channels. The truth under do(hue) is the same original in another colour;
    under do(digit) there is none, because the original determines the digit.

    Args:
        slope: Degrees from one class to the next.
        spread: Standard deviation of the hue of a class, in degrees.

    Raises:
        ValueError: If the spread is not positive.

    Example:
        >>> ColourWorld().sample(2, np.random.default_rng(0), {"digit": [0, 9]})["hue"].round(1)
        array([  1.3, 250.7])
    """

    name = "colour"

    def __init__(self, slope: float = 28.0, spread: float = 10.0) -> None:
        if not spread > 0:
            raise ValueError(f"spread: expected a positive number, but got {spread}.")
        domain = Domain(lower=_LEAST, upper=_MOST)
        hue = partial(Known, layers=partial(_hue_layers, slope, spread), domain=domain)
        digit = partial(KnownClass, categories=_CLASSES)
        scm = StructuralCausalModel("digit -> hue", {"digit": digit, "hue": hue})
        parameters = {"slope": slope, "spread": spread}
        super().__init__(self.name, scm, ColourRenderer(), {"hue": "degrees"}, parameters)


def _hue_layers(slope: float, spread: float, parents: Variables) -> list[Transform]:
    return [AffineTransform(slope * parents["digit"], spread)]
