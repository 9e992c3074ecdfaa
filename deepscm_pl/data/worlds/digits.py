"""What all worlds of digits share: originals are digits that are redrawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.data.worlds.base import KnownWorld
from deepscm_pl.data.worlds.mechanisms import Column
from deepscm_pl.morphology import measure

__all__ = ["DigitWorld"]


class DigitWorld(KnownWorld):
    """A world whose images are digits, redrawn from others, with attributes of their strokes."""

    def check_originals(self, originals: ArrayLike) -> NDArray[np.uint8]:
        """Digits, grey levels ``(N, H, W)``.

        Raises:
            ValueError: If they are of another type or shape.
        """
        images = np.asarray(originals)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise ValueError(
                f"originals must be uint8 grey levels of shape (N, H, W), got {images.dtype} of "
                f"shape {images.shape}; convert them, or drop the channel dimension."
            )
        return images

    def drawn_shape(self, originals: NDArray[Any]) -> tuple[int, ...]:
        """That of the originals."""
        return originals.shape

    def measure(self, images: ArrayLike) -> dict[str, Column]:
        """Measures the attributes of digits.

        Args:
            images: Grey levels 0 to 255, ``(N, H, W)``.

        Returns:
            Each attribute as it is found in the images, ``(N,)``; nan for a black image.

        Raises:
            ValueError: If the images are of another shape or not finite.
        """
        found = measure(images)
        return {name: getattr(found, name) for name in self.attributes}
