"""Synthetic Morpho-MNIST: digits that are drawn in a known world.

The data set of Pawlowski, Castro and Glocker (2020, arXiv:2006.06485), made from MNIST by the
morphological operations of Castro et al. (2019, arXiv:1809.01181).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data.base import CausalDataModule, PublishedSplit, SourceSplits
from deepscm_pl.data.idx import read_idx
from deepscm_pl.data.tables import Table, read_table, write_table
from deepscm_pl.data.truth import WORLD_FILE
from deepscm_pl.variables import Variable
from deepscm_pl.worlds import KnownWorld, ThicknessIntensityWorld, read_world

__all__ = [
    "DIGIT",
    "MorphoMNISTDataModule",
    "SplitFiles",
    "digit_of",
    "read_attributes",
    "split_files",
    "write_attributes",
]

_REMEDY = "generate the data set with `deepscm data morphomnist`."

DIGIT = Variable("digit", classes=tuple(map(str, range(10))))
"""The class of a digit, as a categorical variable of a model."""


@dataclass(frozen=True)
class SplitFiles:
    """The file names of a split.

    Args:
        root: The folder.
        prefix: ``"train"`` or ``"t10k"``.
        dimensions: Dimensions of the array of images, 4 for coloured ones.
    """

    root: Path
    prefix: str
    dimensions: int = 3

    @property
    def images(self) -> Path:
        """Images ``(N, 28, 28)``, or ``(N, 3, 28, 28)``."""
        return self.root / f"{self.prefix}-images-idx{self.dimensions}-ubyte.gz"

    @property
    def labels(self) -> Path:
        """Labels ``(N,)``."""
        return self.root / f"{self.prefix}-labels-idx1-ubyte.gz"

    @property
    def attributes(self) -> Path:
        """Table of attributes."""
        return self.root / f"{self.prefix}-morpho.csv"

    @property
    def originals(self) -> Path:
        """Digits from which the images were rendered, ``(N, 28, 28)``."""
        return self.root / f"{self.prefix}-originals-idx3-ubyte.gz"


class MorphoMNISTDataModule(CausalDataModule):
    """Synthetic Morpho-MNIST: the attributes of its world, ``digit`` and ``image``.

    ``digit`` is the class, 0 to 9, as a categorical variable that a graph may contain. Images are
    drawn from a digit, so that it is independent of the attributes, and no true image exists of
    another class: counterfactuals of other attributes keep it.

    ``deepscm data morphomnist`` generates the folder; see
    :func:`~deepscm_pl.data.generate_morphomnist` for its files. Without ``world.json``, it belongs
    to :class:`ThicknessIntensityWorld`, with thickness (pixels) and intensity (grey levels).

    Args:
        root: The folder.
        batch_size: Rows per batch.
        validation_size: Rows of the 60,000 training digits held out for validation.
        split_seed: Seed of that division.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training omits a smaller last batch.

    Raises:
        ValueError: If an argument is out of range; on setup, if a file is broken, or images, labels
            and attributes do not match.
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

    @property
    def world(self) -> KnownWorld:
        """The world of the digits.

        Raises:
            ValueError: If ``world.json`` is broken.
        """
        path = self.root / WORLD_FILE
        return read_world(path) if path.exists() else ThicknessIntensityWorld()

    @property
    def descriptions(self) -> dict[str, Variable]:
        """The units of the world, and the classes of ``digit``."""
        return {**super().descriptions, "digit": DIGIT}

    def load(self) -> SourceSplits:
        """Read and check the six files of images, labels and attributes."""
        world = self.world
        splits = [split_files(self.root, prefix, world) for prefix in ("train", "t10k")]
        _check_complete(self.root, splits)
        train, test = (_read_split(each, world) for each in splits)
        return SourceSplits(train=train, test=test)

    def load_originals(self, split: PublishedSplit) -> NDArray[np.uint8]:
        """Read the digits from which the images were rendered."""
        path = SplitFiles(self.root, "train" if split == "train" else "t10k").originals
        if not path.is_file():
            raise ValueError(
                f"{self.root} has no {path.name}, the digits from which its images were drawn, and "
                f"so no true counterfactuals; {_REMEDY}"
            )
        return read_idx(path, dimensions=3)


def read_attributes(path: str | Path, world: KnownWorld) -> dict[str, NDArray[np.float32]]:
    """Read and check a table of attributes.

    Args:
        path: CSV file with the columns index and attributes.
        world: The world of the attributes; other columns are ignored.

    Returns:
        Each attribute of the world, ``(N,)``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a column is missing, a value is not a number, the index is not 0, 1, 2, …, or
            an attribute is outside its domain.
    """
    table = read_table(path, setting="attributes")
    names = ("index", *world.attributes)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise ValueError(
            f"{path} should have the columns {', '.join(names)} of the world {world.name}, but it "
            f"has {', '.join(table.columns)}, without {', '.join(missing)}; {_REMEDY}"
        )
    index = table.numbers("index")
    _require(table, "index", index == np.arange(len(index)), "0, 1, 2, … from row to row")
    columns = {name: table.numbers(name) for name in world.attributes}
    for name, column in columns.items():
        domain = world.domains[name]
        _require(table, name, domain.contains(torch.from_numpy(column)).numpy(), str(domain))
    return {name: column.astype(np.float32) for name, column in columns.items()}


def write_attributes(path: str | Path, attributes: Mapping[str, NDArray[np.float32]]) -> None:
    """Write attributes ``(N,)`` as a CSV file, with all digits of float32."""
    write_table(Path(path), attributes, trim="0", index="index")


def digit_of(labels: NDArray[np.integer[Any]] | Tensor) -> Tensor:
    """Return labels ``(N,)`` as the float32 column ``(N, 1)`` of the variable ``digit``.

    Example:
        >>> digit_of(np.array([7, 2]))
        tensor([[7.],
                [2.]])
    """
    return torch.as_tensor(labels).float().reshape(-1, 1)


def split_files(root: Path, prefix: str, world: KnownWorld) -> SplitFiles:
    """Return the files of a split whose images are drawn by a world."""
    return SplitFiles(root, prefix, 4 if world.renderer.has_channels else 3)


def _check_complete(root: Path, splits: Sequence[SplitFiles]) -> None:
    if not root.is_dir():
        raise FileNotFoundError(f"root {root} is missing, or not a folder; {_REMEDY}")
    paths = [path for each in splits for path in (each.images, each.labels, each.attributes)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"root {root} lacks {', '.join(missing)}; {_REMEDY}")


def _read_split(files: SplitFiles, world: KnownWorld) -> dict[str, Tensor]:
    images = read_idx(files.images, dimensions=files.dimensions)
    labels = read_idx(files.labels, dimensions=1)
    attributes = read_attributes(files.attributes, world)
    counts = {
        files.images.name: len(images),
        files.labels.name: len(labels),
        files.attributes.name: len(attributes[world.attributes[0]]),
    }
    if len(set(counts.values())) != 1 or not len(images):
        found = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(
            f"The files of {files.root} should have equally many rows, at least one, but there are "
            f"{found}; generate them together with `deepscm data morphomnist`."
        )
    scalars = {name: torch.from_numpy(column).unsqueeze(-1) for name, column in attributes.items()}
    return {
        **scalars,
        "digit": digit_of(labels),
        "image": torch.from_numpy(world.with_channels(images)),
        "label": torch.from_numpy(labels.astype(np.int64)).unsqueeze(-1),
    }


def _require(table: Table, column: str, valid: NDArray[np.bool_], expected: str) -> None:
    """Raise, naming the first invalid row, unless all values are valid."""
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"{table.path}, {table.counted} {table.number(row)}: {column}: expected {expected}, "
            f"but got {table[column][row] or 'an empty cell'}; correct the row, or generate the "
            "data set again with `deepscm data morphomnist`."
        )
