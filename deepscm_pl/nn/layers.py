"""Layers and checks of shapes that several networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from deepscm_pl.checks import whole_numbers

__all__ = ["RATE_FACTOR", "ParameterNetwork", "call_in_precision", "image_sizes", "scale_channels"]

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


RATE_FACTOR = 10.0
"""The factor by which some parameters are learned faster: they are stored divided by it, because
optimisers such as Adam change all parameters at one rate, whatever their gradients are."""


def call_in_precision(module: nn.Module, dtype: torch.dtype, *arguments: Any) -> Any:
    """``module(*arguments)`` with parameters and buffers as ``dtype``, and without autocast.

    The module keeps its own parameters, and gradients reach them.

    Args:
        module: Any network.
        dtype: The floating-point type to compute in.
        arguments: What the module is called with, in that type already.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> call_in_precision(layer, torch.float64, torch.ones(3, 2, dtype=torch.float64)).dtype
        torch.float64
        >>> layer.weight.dtype
        torch.float32
    """
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
    }
    device = next((tensor.device.type for tensor in state.values()), "cpu")
    with torch.autocast(device, enabled=False):
        return functional_call(module, state, arguments)


class ParameterNetwork(nn.Module):
    """Predict ``parameters`` numbers from a context; without context, learn them directly.

    A multilayer perceptron with SiLU activations whose last layer starts at zero, so that the
    prediction starts at zero for every context.

    Args:
        context_features: Size of the context; 0 for free parameters.
        parameters: How many numbers to predict.
        hidden: Widths of the hidden layers; empty for an affine function of the context.

    Shape:
        ``(*batch, context_features)`` -> ``(*batch, parameters)``; without context, the output is
        ``(parameters,)`` for any input.

    Example:
        >>> ParameterNetwork(2, 3)(torch.ones(5, 2)).shape
        torch.Size([5, 3])
        >>> ParameterNetwork(0, 3)(torch.ones(0)).shape
        torch.Size([3])
    """

    def __init__(self, context_features: int, parameters: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        hidden = whole_numbers("hidden", hidden, least=1)
        self.context_features = context_features
        if context_features == 0:
            self.free = nn.Parameter(torch.zeros(parameters))
            return
        widths = [context_features, *hidden]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.SiLU()]
        last = nn.Linear(widths[-1], parameters)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, context: Tensor) -> Tensor:
        """The parameters for ``context``."""
        if self.context_features == 0:
            return self.free
        # A density is no place for the eight bits of a bfloat16.
        with torch.autocast(context.device.type, enabled=False):
            predicted: Tensor = self.layers(context.to(next(self.parameters())))
        return predicted
