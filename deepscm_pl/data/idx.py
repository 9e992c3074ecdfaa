r"""IDX, the file format of MNIST: arrays of bytes, plain or compressed by gzip.

A file is a magic number of four bytes, ``00 00 08 d`` for unsigned bytes in ``d`` dimensions, then
``d`` sizes as big-endian 32-bit integers, then the bytes in row-major order.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.files import new_file

__all__ = ["read_idx", "write_idx"]

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path, dimensions: int | None = None) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or compressed by gzip.

    torchvision's reader accepts truncated files and fails on others with bare assertions.

    Args:
        path: The file.
        dimensions: Expected number of dimensions: 1 for labels ``(N,)``, 3 for images ``(N, H,
            W)``; None for any.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is empty, corrupt, of another type or number of dimensions, or
            shorter or longer than its header declares.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte.gz"
        >>> write_idx(path, np.array([7, 2, 1], dtype=np.uint8))
        >>> read_idx(path, dimensions=1)
        array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    content = _decompressed(path)
    shape = _read_shape(path, content, dimensions)
    offset = 4 + 4 * len(shape)
    found, expected = len(content) - offset, prod(shape)
    if found < expected:
        raise ValueError(
            f"{path} is truncated: its header declares {expected} bytes of shape {shape}, "
            f"but {found} follow; fetch or generate the file again."
        )
    if found > expected:
        raise ValueError(
            f"{path} has {found - expected} trailing bytes after the {expected} of shape {shape} "
            "that its header declares; fetch or generate the file again."
        )
    array: NDArray[np.uint8] = np.frombuffer(content, np.uint8, offset=offset).copy()
    return array.reshape(shape)


def write_idx(path: str | Path, array: NDArray[np.uint8]) -> None:
    """Write an IDX file, compressed if the name ends in ``.gz``; equal arrays give equal files.

    Args:
        path: The file, in an existing folder; it appears when it is complete.
        array: Unsigned bytes in 1 to 255 dimensions.

    Raises:
        ValueError: If the array is not of type uint8 or has no dimension.
    """
    path = Path(path)
    if array.dtype != np.uint8 or array.ndim < 1:
        raise ValueError(
            f"array must be uint8 with at least one dimension, got {array.dtype} of shape "
            f"{array.shape}; convert it with array.astype(numpy.uint8)."
        )
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, _UNSIGNED_BYTE, array.ndim, *array.shape)
    content = header + array.tobytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def _decompressed(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or not a file.")
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty; fetch or generate the file again.")
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or corrupt gzip ({error}); fetch or generate the file again."
        ) from error


_OTHER_KINDS = {b"<": "a web page", b"PK": "a zip archive", b"{": "a text in JSON"}
"""What files are that begin in other ways."""


def _other_kind(content: bytes) -> str:
    start = content[:64].lstrip().removeprefix(b"\xef\xbb\xbf")
    return next(
        (f": it is {k}" for begin, k in _OTHER_KINDS.items() if start.startswith(begin)), ""
    )


def _read_shape(path: Path, content: bytes, dimensions: int | None) -> tuple[int, ...]:
    if len(content) < 4:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, no room for an IDX header.")
    if content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE or content[3] == 0:
        raise ValueError(
            f"{path} is neither gzip nor an IDX file of unsigned bytes: its magic number should "
            f"be 00 00 08 and a number of dimensions, but it is {content[:4].hex(' ')}"
            f"{_other_kind(content)}; get the file again."
        )
    found = content[3]
    if dimensions is not None and found != dimensions:
        raise ValueError(
            f"{path} should have {dimensions} dimensions, but its header declares {found}; "
            "are images and labels exchanged?"
        )
    if len(content) < 4 + 4 * found:
        raise ValueError(f"{path} is truncated: it ends within its header.")
    return struct.unpack_from(f">{found}I", content, 4)
