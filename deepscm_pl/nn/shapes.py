"""Shapes of images, checked where they are taken apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deepscm_pl.checks import whole_numbers

__all__ = ["image_sizes", "scale_channels"]

_MORE_SCALES = 3
"""How many times more than down to one pixel an image may be halved, padded."""


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
    channels, height, width = whole_numbers(name, shape, least=1)
    return channels, height, width


def scale_channels(channels: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """Channels at each scale of a network that halves an image once for each scale.

    Args:
        channels: What came.
        sizes: Of the image, which is padded to what can be halved so often.

    Raises:
        ValueError: If there are none, a count is no whole number of at least 1, or there are so
            many that the padding would be most of the image.

    Example:
        >>> scale_channels([16, 32], (28, 28))
        (16, 32)
    """
    checked = whole_numbers("channels", channels, least=1, fewest=1)
    most = math.ceil(math.log2(max(sizes))) + _MORE_SCALES
    if len(checked) > most:
        raise ValueError(
            f"channels: expected at most {most} numbers, for an image of "
            f"{' × '.join(map(str, sizes))} is halved once for each, but got {len(checked)}."
        )
    return checked
