"""Pictures: PNG, JPEG, TIFF and WebP, in the grey levels and colours of the file.

- Pictures of one bit have the grey levels 0 and 255.
- Palettes become the colours that they stand for.
- Three channels that are equal everywhere are grey levels.
- Opacity that is complete is left out; otherwise, a background shows through.
- The orientation that a camera recorded (EXIF) is applied, as viewers do.
- All 16 bits of a channel are read, or the file is refused.
- Inks (CMYK) and other colour spaces, and several pictures in a file, are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepscm_pl.data.images.png import has_deep_channels, read_deep_png
from deepscm_pl.data.images.scan import (
    Background,
    RefusedError,
    Scan,
    opaque,
    without_equal_channels,
)

__all__ = ["PICTURE_SUFFIXES", "is_coloured_picture", "read_picture"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa"}
_GREY = {"1", "L", "LA", "La", "I", "F"}
_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
"""Modes with opacity, and those into which they are converted."""


def read_picture(path: Path, background: Background) -> Scan:
    """Read a picture as a slice ``(rows, columns, 1)``, in colour ``(rows, columns, 1, 3)``.

    Args:
        path: The file.
        background: What transparent pixels show.

    Raises:
        RefusedError: If the numbers of the file would not be kept.
    """
    with Image.open(path) as picture:
        _check(picture)
        array = read_deep_png(path) if has_deep_channels(path) else _channels(picture)
    notes: tuple[str, ...] = ()
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        array, notes = opaque(array, np.iinfo(array.dtype).max, background)
    if array.ndim == 3:
        array = without_equal_channels(array)
    return Scan(array[:, :, None], flat=True, notes=notes)


def is_coloured_picture(path: Path) -> bool:
    """Whether a picture is in colour; its pixels are read only if its header leaves it open."""
    with Image.open(path) as picture:
        if picture.mode in _GREY or picture.mode.startswith("I;16"):
            return False
    return read_picture(path, "black").is_coloured


def _check(picture: Any) -> None:
    """Refuse pictures whose numbers would be changed."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise RefusedError(
            f"expected one picture, but it has {frames}; save one of them, or a volume as NIfTI or "
            ".npy."
        )
    mode = picture.mode
    if mode not in _EIGHT_BITS | {"I", "F"} and not mode.startswith("I;16"):
        raise RefusedError(
            f"expected grey levels or red, green and blue, but its colours are {mode}; convert it "
            "to RGB."
        )
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (8,))
    if mode in _EIGHT_BITS and max(bits if isinstance(bits, tuple) else (bits,)) > 8:
        raise RefusedError(
            "it has more than 8 bits for each channel, which would be lost; save it as PNG or .npy."
        )
    if mode not in _EIGHT_BITS and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise RefusedError("its number of white is 0; invert it, and save it as PNG.")
    if mode not in _EIGHT_BITS and "transparency" in picture.info:
        raise RefusedError("one of its grey levels is transparent; save it without transparency.")


def _channels(picture: Any) -> NDArray[Any]:
    """Pixels ``(rows, columns)`` or ``(rows, columns, channels)``."""
    upright = ImageOps.exif_transpose(picture)
    mode = upright.mode
    if "transparency" in upright.info and mode in ("1", "L", "P", "RGB"):
        upright = upright.convert("RGBA")
    elif mode == "P":
        upright = upright.convert("RGB")
    elif mode in _STRAIGHT:
        upright = upright.convert(_STRAIGHT[mode])
    elif mode == "1":
        upright = upright.convert("L")
    return np.asarray(upright)
