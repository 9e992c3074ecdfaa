"""Descriptions of image files: sizes, channels, depths and ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepscm_pl.data.images import read_scan

__all__ = ["ImageFingerprint", "describe_images"]

_SAMPLE = 60
_NIFTI = (".nii.gz", ".nii")
_ANY_ORIENTATION = "RAS"


@dataclass(frozen=True)
class ImageFingerprint:
    """The image files of a table.

    Attributes:
        pattern: Pattern of the files, in which ``{column}`` stands for a cell.
        files: Number of files.
        inspected: Number of files that were read, evenly spread over the rows.
        sizes: The most frequent sizes: rows and columns, or three sizes of a volume.
        different_sizes: Number of different sizes.
        largest: The largest size in each direction.
        channels: 1 for grey levels, 3 for colours.
        type: Type of the numbers, such as ``uint8``.
        lowest: The lowest number.
        highest: The highest number.
        formats: Endings of the names, the most frequent first.
    """

    pattern: str
    files: int
    inspected: int
    sizes: tuple[int, ...]
    different_sizes: int
    largest: tuple[int, ...]
    channels: int
    type: str
    lowest: float
    highest: float
    formats: tuple[str, ...]

    @property
    def is_volume(self) -> bool:
        """Whether the images have three dimensions."""
        return len(self.sizes) == 3

    def __str__(self) -> str:
        sizes = " × ".join(map(str, self.sizes))
        more = f" and {self.different_sizes - 1} other sizes" if self.different_sizes > 1 else ""
        colour = "colour" if self.channels == 3 else "grey"
        return (
            f"image: {self.files:,} files ({', '.join(self.formats)}), {sizes}{more}, {colour}, "
            f"{self.type} from {self.lowest:g} to {self.highest:g}, {self.inspected} of them read"
        )


def describe_images(pattern: str, paths: Sequence[Path]) -> ImageFingerprint:
    """Read some images, evenly spread over the rows, and describe them.

    Raises:
        ValueError: If a file is no image, or images and volumes, or colours and grey levels, are
            mixed.
    """
    rows = np.unique(np.linspace(0, len(paths) - 1, min(_SAMPLE, len(paths))).round().astype(int))
    found = [_inspect(paths[row]) for row in rows]
    dimensions = {len(each.sizes) for each in found}
    if len(dimensions) > 1:
        raise ValueError(
            f"images: expected images or volumes, but got both in files of {pattern!r}; make the "
            "pattern narrower."
        )
    sizes, _ = Counter(each.sizes for each in found).most_common(1)[0]
    types = Counter(each.type for each in found)
    endings = Counter(_ending(path) for path in paths)
    return ImageFingerprint(
        pattern=pattern,
        files=len(paths),
        inspected=len(found),
        sizes=sizes,
        different_sizes=len({each.sizes for each in found}),
        largest=tuple(max(each.sizes[axis] for each in found) for axis in range(len(sizes))),
        channels=max(each.channels for each in found),
        type=types.most_common(1)[0][0],
        lowest=min(each.lowest for each in found),
        highest=max(each.highest for each in found),
        formats=tuple(ending for ending, _ in endings.most_common()),
    )


@dataclass(frozen=True)
class _Inspected:
    sizes: tuple[int, ...]
    channels: int
    type: str
    lowest: float
    highest: float


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((each for each in _NIFTI if name.endswith(each)), path.suffix.lower())


def _inspect(path: Path) -> _Inspected:
    # Directions of axes do not matter here; a training refuses files without them.
    scan = read_scan(path, _ANY_ORIENTATION)
    sizes = scan.array.shape[: 2 if scan.flat else 3]
    numbers = scan.array
    channels = 3 if scan.is_coloured else 1
    return _Inspected(
        sizes, channels, str(numbers.dtype), float(numbers.min()), float(numbers.max())
    )
