"""PNG files of 16 bits for each of several channels, of which Pillow keeps only 8.

See the specification, https://www.w3.org/TR/png-3/: a row is stored as differences from bytes to
the left (Sub), above (Up), from the mean of both (Average), or from that one of left, above and
above left which is closest to left + above − above left (Paeth).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.images.scan import RefusedError

__all__ = ["has_deep_channels", "read_deep_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 4: 2, 6: 4}
"""Colour types of several channels, and their number."""


def has_deep_channels(path: Path) -> bool:
    """Whether a file is a PNG with 16 bits for each of several channels."""
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(_SIGNATURE) and start[24] == 16 and start[25] in _CHANNELS


def read_deep_png(path: Path) -> NDArray[np.uint16]:
    """Read the channels of a PNG, ``(rows, columns, channels)``.

    Args:
        path: A file for which :func:`has_deep_channels` is true.

    Raises:
        RefusedError: If the file is interlaced.
        ValueError: If it is broken.
    """
    chunks = list(_chunks(path.read_bytes()))
    columns, rows, _, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if interlaced:
        raise RefusedError("it is interlaced, and has 16 bits; save it without interlacing.")
    if any(name == b"tRNS" for name, _ in chunks):
        raise RefusedError("one of its colours is transparent; save it without transparency.")
    width = 2 * _CHANNELS[colours]
    compressed = b"".join(data for name, data in chunks if name == b"IDAT")
    content = zlib.decompressobj().decompress(compressed, rows * (1 + columns * width))
    lines = np.frombuffer(content, np.uint8).reshape(rows, 1 + columns * width)
    pixels = _unfiltered(lines[:, 0], lines[:, 1:].reshape(rows, columns, width))
    return np.ascontiguousarray(pixels).view(">u2").astype(np.uint16)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and the data of the chunks of a file."""
    position = len(_SIGNATURE)
    while position < len(content):
        size, name = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + size]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + size)
        if checksum != zlib.crc32(name + data):
            raise ValueError(f"wrong checksum of the chunk {name!r}")
        yield name, data
        position += 12 + size


def _unfiltered(filters: NDArray[np.uint8], stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of pixels ``(rows, columns, width)``, from those that are stored.

    A pixel depends on those to its left and above it, so that all pixels of a diagonal are found at
    once.
    """
    rows, columns, width = stored.shape
    # With a row above and a column on the left of zeros.
    pixels: NDArray[Any] = np.zeros((rows + 1, columns + 1, width), np.int16)
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        left, above, corner = pixels[row + 1, column], pixels[row, column + 1], pixels[row, column]
        kinds = [np.zeros_like(left), left, above, (left + above) // 2, _paeth(left, above, corner)]
        predicted = np.choose(filters[row][:, None], kinds)
        pixels[row + 1, column + 1] = (stored[row, column] + predicted) & 255
    return pixels[1:, 1:].astype(np.uint8)


def _paeth(left: NDArray[Any], above: NDArray[Any], corner: NDArray[Any]) -> NDArray[Any]:
    """The one of three neighbours that is closest to left + above − corner."""
    to_left, to_above = np.abs(above - corner), np.abs(left - corner)
    to_corner = np.abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
