"""IDX files: what is written is read, and every kind of broken file is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.data import read_idx, write_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 3, 4) + IMAGES.tobytes()


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("shape", [(24,), (2, 3, 4), (0, 28, 28)])
def test_round_trip(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    write_idx(tmp_path / name, array)
    found = read_idx(tmp_path / name, dimensions=len(shape))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_compression_is_seen_from_content(tmp_path: Path) -> None:
    (tmp_path / "plain.gz").write_bytes(CONTENT)
    (tmp_path / "compressed").write_bytes(gzip.compress(CONTENT))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), IMAGES)
    np.testing.assert_array_equal(read_idx(str(tmp_path / "compressed")), IMAGES)


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.gz", "two.gz"):
        write_idx(tmp_path / name, IMAGES)
    content = (tmp_path / "one.gz").read_bytes()
    assert content == (tmp_path / "two.gz").read_bytes()
    assert content[4:8] == bytes(4), "the time of writing"
    assert gzip.decompress(content) == CONTENT


BROKEN = {
    "is empty": b"",
    "corrupt gzip": gzip.compress(CONTENT)[:-12],
    "corrupt gzip ": b"\x1f\x8b" + CONTENT,
    "neither gzip nor an IDX": b"<html>not found</html>",
    "be 00 00 08": struct.pack(">BBBBI", 0, 1, 8, 1, 0),
    "be 00 00 08 ": struct.pack(">BBBBI", 0, 0, 0x0D, 1, 0),
    "but it is 00 00 08 00": struct.pack(">BBBB", 0, 0, 8, 0),
    "no room for an IDX header": CONTENT[:3],
    "ends within its header": CONTENT[:12],
    "24 bytes of shape .* but 23 follow": CONTENT[:-1],
    "1 trailing bytes": CONTENT + b"x",
    "but 20 follow": gzip.compress(CONTENT[:-4]),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_file(tmp_path: Path, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(BROKEN[message])
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte.gz .*{message.strip()}"):
        read_idx(path)


def test_damaged_compressed_bytes(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(CONTENT))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images.gz is truncated or corrupt gzip"):
        read_idx(path)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "images.gz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{path} is missing"):
            read_idx(path)


def test_other_dimensions(tmp_path: Path) -> None:
    write_idx(tmp_path / "labels", IMAGES)
    with pytest.raises(
        ValueError, match="labels should have 1 dimensions, but its header declares 3"
    ):
        read_idx(tmp_path / "labels", dimensions=1)


@pytest.mark.parametrize("array", [np.zeros(3), np.array(7, dtype=np.uint8)])
def test_what_cannot_be_written(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array must be uint8 with at least one dimension"):
        write_idx(tmp_path / "array", array)
    assert not list(tmp_path.iterdir())
