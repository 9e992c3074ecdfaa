"""Synthetic Morpho-MNIST: digits whose stroke has a known thickness and intensity.

The data set of Pawlowski, Castro and Glocker (2020, arXiv:2006.06485), made from MNIST by the
morphological operations of Castro et al. (2019, arXiv:1809.01181).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data.base import CausalDataModule, SourceSplits
from deepscm_pl.data.idx import read_idx
from deepscm_pl.files import new_file

__all__ = ["Attributes", "MorphoMNISTDataModule", "read_attributes", "write_attributes"]

_COLUMNS = ("index", "thickness", "intensity")


@dataclass(frozen=True)
class Attributes:
    """The attributes of N digits, row k for digit k.

    Attributes:
        thickness: Stroke thickness in pixels, ``(N,)`` float32.
        intensity: Median grey level of the stroke, 0 to 255, ``(N,)`` float32.
    """

    thickness: NDArray[np.float32]
    intensity: NDArray[np.float32]

    def __len__(self) -> int:
        """The number of digits."""
        return len(self.thickness)


class MorphoMNISTDataModule(CausalDataModule):
    """Synthetic Morpho-MNIST: variables ``thickness``, ``intensity`` and ``image``.

    The folder holds, for ``train`` and ``t10k`` each, ``*-images-idx3-ubyte.gz``,
    ``*-labels-idx1-ubyte.gz`` and ``*-morpho.csv`` with columns index, thickness (pixels) and
    intensity (grey levels 0 to 255). ``deepscm data morphomnist`` generates it.

    Args:
        root: The folder.
        batch_size: Rows per batch.
        validation_size: Rows of the 60,000 training digits held out to validate on.
        split_seed: Seed of that division.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training leaves out a smaller last batch.

    Raises:
        ValueError: If an argument is out of range; on setup, if a file is broken, or if images,
            labels and attributes do not belong together.
        FileNotFoundError: On setup, if the folder or a file is missing.
    """

    def __init__(
        self,
        root: str | Path,
        batch_size: int = 256,
        validation_size: int = 6000,
        split_seed: int = 0,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(batch_size, validation_size, split_seed, num_workers, drop_last)
        self.root = Path(root).expanduser()

    def load(self) -> SourceSplits:
        """Reads and checks the six files."""
        _check_complete(self.root)
        return SourceSplits(
            train=_read_split(self.root, "train"), test=_read_split(self.root, "t10k")
        )


def read_attributes(path: str | Path) -> Attributes:
    """Reads and checks a table of attributes.

    Args:
        path: A CSV file with a header that names the columns index, thickness and intensity.

    Returns:
        The attributes, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a value is not a number, the index is not 0, 1, 2, …,
            a thickness is not positive and finite, or an intensity is not within 0 to 255.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or not a file.")
    table = _read_table(path)
    index, thickness, intensity = table.T
    expected = np.arange(len(index))
    _require(path, "index", index, index == expected, "an integer, 0 in the first row, rising by 1")
    _require(path, "thickness", thickness, (thickness > 0) & np.isfinite(thickness), "above 0")
    _require(path, "intensity", intensity, (intensity >= 0) & (intensity <= 255), "within 0 to 255")
    return Attributes(thickness.astype(np.float32), intensity.astype(np.float32))


def write_attributes(path: str | Path, attributes: Attributes) -> None:
    """Writes a table of attributes with as many digits as float32 has.

    Args:
        path: The CSV file to write; its folder must exist.
        attributes: What to write, row k for digit k.
    """
    rows = zip(attributes.thickness, attributes.intensity, strict=True)
    lines = [f"{index},{_shortest(t)},{_shortest(i)}" for index, (t, i) in enumerate(rows)]
    with new_file(Path(path)) as temporary:
        temporary.write_text("\n".join([",".join(_COLUMNS), *lines]) + "\n", encoding="ascii")


def _shortest(value: np.float32) -> str:
    """The shortest decimal that reads back as the same float32."""
    return np.format_float_positional(value, trim="0")


def _check_complete(root: Path) -> None:
    """Raises unless the six files are there."""
    remedy = "generate the data set with `deepscm data morphomnist`."
    if not root.is_dir():
        raise FileNotFoundError(f"root {root} is missing, or not a folder; {remedy}")
    names = [name for prefix in ("train", "t10k") for name in _file_names(prefix)]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(f"root {root} lacks {', '.join(missing)}; {remedy}")


def _file_names(prefix: str) -> tuple[str, str, str]:
    return (
        f"{prefix}-images-idx3-ubyte.gz",
        f"{prefix}-labels-idx1-ubyte.gz",
        f"{prefix}-morpho.csv",
    )


def _read_split(root: Path, prefix: str) -> dict[str, Tensor]:
    """The variables of a published split, checked to be of one length."""
    image_path, label_path, attribute_path = (root / name for name in _file_names(prefix))
    images = read_idx(image_path, dimensions=3)
    labels = read_idx(label_path, dimensions=1)
    attributes = read_attributes(attribute_path)
    counts = {
        image_path.name: len(images),
        label_path.name: len(labels),
        attribute_path.name: len(attributes),
    }
    if len(set(counts.values())) != 1 or not len(images):
        found = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(
            f"The files of {root} should have equally many rows, at least one, but there are "
            f"{found}; generate them together with `deepscm data morphomnist`."
        )
    return {
        "thickness": torch.from_numpy(attributes.thickness).unsqueeze(-1),
        "intensity": torch.from_numpy(attributes.intensity).unsqueeze(-1),
        "image": torch.from_numpy(images).unsqueeze(1),
        "label": torch.from_numpy(labels.astype(np.int64)).unsqueeze(-1),
    }


def _read_table(path: Path) -> NDArray[np.float64]:
    """The three columns of a CSV file, ``(N, 3)``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be a text file in UTF-8: {error}") from error
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise ValueError(
            f"{path} should have the columns {', '.join(_COLUMNS)}, but its first line is "
            f"{','.join(header)!r}, without {', '.join(missing)}."
        )
    if len(lines) == 1:
        raise ValueError(f"{path} should have a row for each digit, but it has none.")
    columns = [header.index(name) for name in _COLUMNS]
    try:
        return np.loadtxt(lines[1:], delimiter=",", usecols=columns, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"{path} should hold a number in every cell: {error}") from error


def _require(
    path: Path, column: str, values: NDArray[np.float64], valid: NDArray[np.bool_], expected: str
) -> None:
    """Raises, naming the first row at fault, unless all values are valid."""
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"{path}, line {row + 2}: {column} should be {expected}, but it is {values[row]}; "
            "correct the row, or generate the data set again with `deepscm data morphomnist`."
        )
