"""The digits of scikit-learn, which need no download, in the world of thickness and intensity."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from deepscm_pl.checks import whole_number
from deepscm_pl.data.base import CausalDataModule, PublishedSplit, SourceSplits, take_rows
from deepscm_pl.data.morphomnist import DIGIT, digit_of
from deepscm_pl.data.truth import DRAWING_VERSION
from deepscm_pl.files import new_file
from deepscm_pl.variables import Variable
from deepscm_pl.worlds import ThicknessIntensityWorld

__all__ = ["DigitsDataModule"]

_ATTRIBUTE_SEED = 0
_TEST_SEED = 1

_DIGIT_COUNT = 1797
"""The number of digits."""

_FORMS = {
    "thickness": ((_DIGIT_COUNT, 1), torch.float32),
    "intensity": ((_DIGIT_COUNT, 1), torch.float32),
    "image": ((_DIGIT_COUNT, 1, 28, 28), torch.uint8),
    "label": ((_DIGIT_COUNT, 1), torch.int64),
}
"""Shape and type of every variable; a cache with others is not used."""

_SIDE = 20
_BORDER = 4
_SURROUND = 0.9
_SATURATION = 0.6


class DigitsDataModule(CausalDataModule):
    """The 1,797 digits of scikit-learn: ``thickness``, ``intensity``, ``digit`` and ``image``.

    Digits of 8 × 8 pixels are enlarged to 20 × 20, centred in 28 × 28 like those of MNIST, and
    rendered with attributes sampled from a :class:`ThicknessIntensityWorld`. Attributes and test
    rows are the same in every run. Rendering takes some seconds, once.

    Args:
        batch_size: Rows per batch.
        validation_size: Rows held out for validation, in addition to the test rows.
        split_seed: Seed of the division into training and validation.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training omits a smaller last batch.
        test_size: Rows held out for the test.
        cache_dir: Folder for rendered images; None for ``~/.cache/deepscm_pl``.

    Raises:
        ValueError: If an argument is out of range, or no row is left for training.
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
        self.test_size = whole_number("test_size", test_size, least=1)
        self.cache_dir = Path(cache_dir or "~/.cache/deepscm_pl").expanduser()

    def prepare_data(self) -> None:
        """Render the digits unless they are in the cache."""
        self._drawn_digits()

    @property
    def world(self) -> ThicknessIntensityWorld:
        """The world of thickness and intensity."""
        return ThicknessIntensityWorld()

    @property
    def descriptions(self) -> dict[str, Variable]:
        """The units of the world, and the classes of ``digit``."""
        return {**super().descriptions, "digit": DIGIT}

    def load(self) -> SourceSplits:
        """Divide the digits into training and test rows."""
        drawn = self._drawn_digits()
        digits = {**drawn, "digit": digit_of(drawn["label"])}
        return SourceSplits(
            train=take_rows(digits, self._rows("train")), test=take_rows(digits, self._rows("test"))
        )

    def load_originals(self, split: PublishedSplit) -> NDArray[np.uint8]:
        """Enlarge the digits of scikit-learn."""
        return _originals()[self._rows(split).numpy()]

    def _rows(self, split: PublishedSplit) -> Tensor:
        """The rows of a split among all digits, in ascending order."""
        if self.test_size + self.validation_size >= _DIGIT_COUNT:
            raise ValueError(
                f"test_size and validation_size must be below {_DIGIT_COUNT} together, the "
                f"number of digits, got {self.test_size} and {self.validation_size}."
            )
        order = torch.randperm(_DIGIT_COUNT, generator=torch.Generator().manual_seed(_TEST_SEED))
        rows = order[: self.test_size] if split == "test" else order[self.test_size :]
        return rows.sort().values

    def _drawn_digits(self) -> dict[str, Tensor]:
        path = self.cache_dir / f"digits-{DRAWING_VERSION}.pt"
        # The digits are rendered again if the cache is broken.
        with suppress(Exception):
            cached: dict[str, Tensor] = torch.load(path, weights_only=True)
            digits = {name: cached[name] for name in _FORMS}
            if all(_fits(digits[name], *form) for name, form in _FORMS.items()):
                return digits
        digits = _draw_digits()
        # Without a writable cache, the digits are rendered each time.
        with suppress(OSError, RuntimeError):
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with new_file(path) as temporary:
                torch.save(digits, temporary)
        return digits


def _fits(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a cached tensor is complete and finite."""
    return tensor.shape == shape and tensor.dtype == dtype and bool(tensor.isfinite().all())


def _draw_digits() -> dict[str, Tensor]:
    labels = _load_digits().target
    world = ThicknessIntensityWorld()
    sample = world.sample(_DIGIT_COUNT, np.random.default_rng(_ATTRIBUTE_SEED))
    # Images are rendered with the recorded float32 values, so that these are their truth.
    attributes = {name: column.astype(np.float32) for name, column in sample.items()}
    images = world.render(_originals(), attributes)
    return {
        **{name: torch.from_numpy(column).unsqueeze(-1) for name, column in attributes.items()},
        "image": torch.from_numpy(images).unsqueeze(1),
        "label": torch.from_numpy(labels).long().unsqueeze(-1),
    }


def _load_digits() -> Any:
    # Imported here, because it is slow to import.
    from sklearn.datasets import load_digits

    return load_digits()


def _originals() -> NDArray[np.uint8]:
    """All digits in the size of MNIST, grey levels ``(1797, 28, 28)``."""
    return np.rint(_enlarge_digits(_load_digits().images)).astype(np.uint8)


def _enlarge_digits(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Digits ``(N, 8, 8)`` of any range as ``(N, 28, 28)`` of grey levels 0 to 255."""
    factor = _SIDE / images.shape[-1]
    # Contrast with the surroundings, because a threshold on grey levels loses pale strokes and
    # fills the gaps between close ones.
    contrast = images - _SURROUND * gaussian_filter(images, (0, 1, 1), mode="constant")
    enlarged = zoom(contrast, (1, factor, factor), order=3, mode="grid-constant", grid_mode=True)
    brightest = _SATURATION * enlarged.max(axis=(1, 2), keepdims=True)
    margins = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    return np.pad(255 * np.clip(enlarged / brightest, 0, 1), margins)
