"""Crops of images: a random one of each in training, the middle otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["RandomCrop", "centre_crop", "centre_offset"]


class RandomCrop:
    """Cuts the images of a batch out at random, each for itself.

    Where follows from the seed and from which rows the batch has, in which order, by their
    ``index``: epochs differ, and a training that was interrupted goes on as it would have, with any
    number of worker processes.

    Args:
        sizes: Of the crops, one for each axis of an image.
        seed: Of the places.

    Example:
        >>> batch = {"index": torch.tensor([[3], [7]]), "image": torch.rand(2, 1, 20, 24)}
        >>> RandomCrop([16, 16])(batch)["image"].shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, sizes: Sequence[int], seed: int = 0) -> None:
        self.sizes = tuple(sizes)
        self.seed = seed

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with crops ``(B, C, *sizes)`` of its ``image``."""
        # Imported here, because it is slow to import.
        from monai.transforms import RandSpatialCrop

        crop = RandSpatialCrop(self.sizes, random_size=False)
        entropy = np.random.SeedSequence([self.seed, *batch["index"].flatten().tolist()])
        crop.set_random_state(seed=int(entropy.generate_state(1)[0]))
        images = [torch.as_tensor(crop(image)) for image in batch["image"]]
        return {**batch, "image": torch.stack([image.as_subclass(Tensor) for image in images])}


def centre_offset(shape: Sequence[int], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Where the middle of given sizes begins.

    Args:
        shape: Sizes of the whole image.
        sizes: Sizes of its middle, as many.

    Raises:
        ValueError: If they are not as many, or one is less than 1 or larger than the image.

    Example:
        >>> centre_offset((20, 24), (16, 17))
        array([2, 3])
    """
    if len(shape) != len(sizes) or any(
        not 1 <= size <= whole for size, whole in zip(sizes, shape, strict=True)
    ):
        raise ValueError(
            f"random_crop: expected {len(shape)} sizes of at most {list(shape)}, those of the "
            f"prepared images, and of at least 1, but got {list(sizes)}."
        )
    return (np.asarray(shape) - np.asarray(sizes)) // 2


def centre_crop(images: Tensor, sizes: Sequence[int]) -> Tensor:
    """The middle of images, as a view.

    Args:
        images: ``(N, C, *shape)``.
        sizes: Of the middle.

    Returns:
        ``(N, C, *sizes)``.

    Raises:
        ValueError: If the sizes do not fit.
    """
    for axis, start in enumerate(centre_offset(images.shape[2:], sizes).tolist()):
        images = images.narrow(axis + 2, start, sizes[axis])
    return images
