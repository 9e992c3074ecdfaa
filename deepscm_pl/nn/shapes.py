"""Shapes of images, checked where they are taken apart."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["image_sizes"]


def image_sizes(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of an image.

    Args:
        name: Of the argument, for the message.
        shape: What came.

    Raises:
        ValueError: If it is the shape of something else, such as a volume.

    Example:
        >>> image_sizes("image_shape", [1, 28, 28])
        (1, 28, 28)
    """
    if len(shape) != 3:
        raise ValueError(
            f"{name}: expected (channels, height, width), but got {tuple(shape)}; for volumes use "
            "PyramidEncoder and PyramidDecoder."
        )
    channels, height, width = shape
    return channels, height, width
