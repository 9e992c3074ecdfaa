"""Small digits that need no download, in the world of thickness and intensity."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from deepscm_pl.data.base import CausalDataModule, SourceSplits, require_count
from deepscm_pl.data.worlds import ThicknessIntensityWorld
from deepscm_pl.files import new_file

__all__ = ["DigitsDataModule"]

_ATTRIBUTE_SEED = 0
_TEST_SEED = 1

_DRAWING = 1
"""Counts changes of how digits are drawn, so that images of another drawing are not reused."""

_SIDE = 20
_MARGIN = 4
_SURROUND = 0.9
_SATURATION = 0.6


class DigitsDataModule(CausalDataModule):
    """The 1,797 digits of scikit-learn: variables ``thickness``, ``intensity`` and ``image``.

    Digits of 8 × 8 pixels are enlarged to 20 × 20, centred in 28 × 28 as those of MNIST are, and
    drawn with attributes sampled from a :class:`ThicknessIntensityWorld`, always the same. Test
    rows are chosen at random, but always alike.
    Nothing is downloaded: for trials, examples and tests. Drawing takes some seconds, once; the
    images are kept in ``cache_dir``.

    Args:
        batch_size: Rows per batch.
        validation_size: Rows held out to validate on, of those that are not test rows.
        split_seed: Seed of the division into training and validation.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training leaves out a smaller last batch.
        test_size: Rows held out to test on.
        cache_dir: Where drawn images are kept; None for ``~/.cache/deepscm_pl``.

    Raises:
        ValueError: If an argument is out of range; on setup, if nothing is left to train on.
    """

    def __init__(
        self,
        batch_size: int = 256,
        validation_size: int = 180,
        split_seed: int = 0,
        num_workers: int = 0,
        drop_last: bool = False,
        test_size: int = 360,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__(batch_size, validation_size, split_seed, num_workers, drop_last)
        self.test_size = require_count("test_size", test_size, minimum=1)
        self.cache_dir = Path(cache_dir or "~/.cache/deepscm_pl").expanduser()

    def prepare_data(self) -> None:
        """Draws the digits, unless they are in the cache."""
        self._drawn_digits()

    def load(self) -> SourceSplits:
        """Divides the digits into rows to test on and others, always alike."""
        digits = self._drawn_digits()
        size = len(digits["image"])
        if self.test_size + self.validation_size >= size:
            raise ValueError(
                f"test_size and validation_size must be below {size} together, the number of "
                f"digits, got {self.test_size} and {self.validation_size}."
            )
        order = torch.randperm(size, generator=torch.Generator().manual_seed(_TEST_SEED))
        test, train = order[: self.test_size], order[self.test_size :]
        return SourceSplits(train=_take(digits, train), test=_take(digits, test))

    def _drawn_digits(self) -> dict[str, Tensor]:
        """All digits, from the cache if they are there."""
        path = self.cache_dir / f"digits-{_DRAWING}.pt"
        # Whatever is wrong with a cache, the digits can be drawn again.
        with suppress(Exception):
            cached: dict[str, Tensor] = torch.load(path, weights_only=True)
            return {name: cached[name] for name in ("thickness", "intensity", "image", "label")}
        digits = _draw_digits()
        # A cache that cannot be written costs time, nothing else.
        with suppress(OSError):
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with new_file(path) as temporary:
                torch.save(digits, temporary)
        return digits


def _draw_digits() -> dict[str, Tensor]:
    """All digits of scikit-learn, drawn with sampled attributes, in its order."""
    # Imported here, because it is slow to import and only this function needs it.
    from sklearn.datasets import load_digits

    source = load_digits()
    world = ThicknessIntensityWorld()
    size = len(source.target)
    attributes = world.sample(size, np.random.default_rng(_ATTRIBUTE_SEED))
    thickness, intensity = attributes["thickness"], attributes["intensity"]
    images = world.render(_enlarge_digits(source.images), thickness, intensity)
    return {
        "thickness": torch.from_numpy(thickness).float().unsqueeze(-1),
        "intensity": torch.from_numpy(intensity).float().unsqueeze(-1),
        "image": torch.from_numpy(images).unsqueeze(1),
        "label": torch.from_numpy(source.target).long().unsqueeze(-1),
    }


def _enlarge_digits(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Digits ``(N, 8, 8)`` of any range as ``(N, 28, 28)`` of grey levels 0 to 255."""
    factor = _SIDE / images.shape[-1]
    # Pale strokes would be lost when the digit is binarised, and crowded ones filled: what counts
    # is how much brighter a pixel is than those around it.
    contrast = images - _SURROUND * gaussian_filter(images, (0, 1, 1), mode="constant")
    enlarged = zoom(contrast, (1, factor, factor), order=3, mode="grid-constant", grid_mode=True)
    brightest = _SATURATION * enlarged.max(axis=(1, 2), keepdims=True)
    margins = ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))
    return np.pad(255 * np.clip(enlarged / brightest, 0, 1), margins)


def _take(digits: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    rows = rows.sort().values
    return {name: tensor[rows] for name, tensor in digits.items()}
