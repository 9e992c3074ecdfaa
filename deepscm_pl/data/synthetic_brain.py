"""Synthetic heads, drawn in the world of brains; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.checks import seed_number, whole_number, whole_numbers
from deepscm_pl.data.base import (
    CausalDataModule,
    PublishedSplit,
    SourceSplits,
    Split,
)
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.truth import render_truth
from deepscm_pl.worlds import BrainWorld

__all__ = ["SyntheticBrainDataModule"]


class SyntheticBrainDataModule(CausalDataModule):
    """Synthetic heads of a :class:`BrainWorld`: age, sex, two volumes, and ``image``.

    Age is in years, sex 0 or 1, brain and ventricle volume in mm³; images are slices ``(1, rows,
    columns)`` or volumes ``(1, left to right, back to front, bottom to top)``. Rendering takes
    about a second for a thousand slices of 64 × 64 on two processors, once.

    Args:
        batch_size: Rows per batch.
        validation_size: Training heads held out for validation.
        split_seed: Seed of that division.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training omits a smaller last batch.
        train_size: Number of training heads.
        test_size: Number of test heads.
        shape: Two sizes for slices, three for volumes.
        seed: Seed of the heads.
        cache_dir: Folder for rendered images; None for ``~/.cache/deepscm_pl``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> data = SyntheticBrainDataModule(train_size=8, validation_size=2, test_size=3,
        ...                                 shape=(32, 32))
        >>> data.variables("test")["image"].shape
        torch.Size([3, 1, 32, 32])
    """

    def __init__(
        self,
        batch_size: int = 64,
        validation_size: int = 500,
        split_seed: int = 0,
        num_workers: int = 0,
        drop_last: bool = False,
        train_size: int = 5000,
        test_size: int = 1000,
        shape: Sequence[int] = (64, 64),
        seed: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__(batch_size, validation_size, split_seed, num_workers, drop_last)
        self.train_size = whole_number("train_size", train_size, least=2)
        self.test_size = whole_number("test_size", test_size, least=1)
        self.seed = seed_number("seed", seed)
        self.shape = list(whole_numbers("shape", shape, least=1, lengths=(2, 3)))
        self.cache_dir = Path(cache_dir or "~/.cache/deepscm_pl").expanduser()
        _ = self.world

    @property
    def world(self) -> BrainWorld:
        """The world of the heads."""
        return BrainWorld(*self.shape)

    def prepare_data(self) -> None:
        """Render the heads unless they are in the cache."""
        self.load()

    def load(self) -> SourceSplits:
        """Render the heads of both splits."""
        return SourceSplits(train=self._draw("train"), test=self._draw("test"))

    def load_originals(self, split: PublishedSplit) -> NDArray[Any]:
        """The traits of the heads of a split, ``(N, TRAITS)``."""
        return self._sample(split)[1]

    def placement(self, split: Split, row: int) -> Placement:
        """The position of every image, in mm from the centre of the head."""
        return Placement(self.world.grid.affine)

    def _sample(
        self, split: PublishedSplit
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        size = self.train_size if split == "train" else self.test_size
        generator = np.random.default_rng([self.seed, int(split == "test")])
        attributes = self.world.sample(size, generator)
        # Images are rendered with the recorded float32 values, so that these are their truth.
        recorded = {name: column.astype(np.float32) for name, column in attributes.items()}
        return recorded, self.world.draw_originals(size, generator)

    def _draw(self, split: PublishedSplit) -> dict[str, Tensor]:
        attributes, originals = self._sample(split)
        images = render_truth(
            self.world, originals, attributes, progress=False, cache_dir=self.cache_dir
        )
        scalars = {name: torch.from_numpy(column)[:, None] for name, column in attributes.items()}
        return {**scalars, "image": torch.from_numpy(images)[:, None]}
