"""Named features, layers and shape checks that several networks share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from deepscm_pl.checks import whole_numbers

__all__ = [
    "CONVOLUTIONS",
    "NONLINEAR",
    "RATE_FACTOR",
    "Features",
    "ParameterNetwork",
    "call_in_precision",
    "check_names",
    "depth_to_space",
    "end_padding",
    "image_sizes",
    "out_features",
    "reduced_shape",
    "scale_channels",
    "space_to_depth",
    "spatial_dimensions",
    "zero_linear",
]

NONLINEAR = (16, 16)
"""Default widths of the hidden layers between the parents of a scalar and its parameters.

They learn y = x² + noise and the interaction y = sin(2x)·z + noise from 500 rows within 2,000 steps
of Adam, where one hidden layer is up to 0.3 nats per row worse. Where the mechanism is linear, they
lose 0.13 nats to an affine function on 200 rows, 0.03 on 500 and 0.01 on 2,000: set ``hidden: []``
there, if an evaluation says so."""

RATE_FACTOR = 10.0
"""Factor by which some parameters learn faster than others: they are stored divided by it, because
optimisers such as Adam change all parameters at the same rate, whatever their gradients."""

CONVOLUTIONS: Mapping[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
"""The convolution of images, 2 dimensions, and of volumes, 3."""

_EXTRA_HALVINGS = 3  # allowed after an image has shrunk to one pixel


class Features(int):
    """A number of features, each of which belongs to a name; to other code a plain integer.

    Args:
        sizes: The number of features of each name, in order.

    Example:
        >>> features = Features({"sex": 2, "age": 1})
        >>> features + 1, features.positions("place", ["age"])
        (4, [2])
    """

    sizes: Mapping[str, int]

    def __new__(cls, sizes: Mapping[str, int]) -> Features:
        """Add up the sizes."""
        features = super().__new__(cls, sum(sizes.values()))
        features.sizes = dict(sizes)
        return features

    def __getnewargs__(self) -> tuple[Mapping[str, int]]:  # type: ignore[override]
        """Return the arguments of a copy."""
        return (self.sizes,)

    def positions(self, argument: str, names: Collection[str]) -> list[int]:
        """Return the positions of the features of ``names``, the setting ``argument``.

        Raises:
            ValueError: If a name is unknown.
        """
        check_names(argument, names, self.sizes)
        owners = [name for name, size in self.sizes.items() for _ in range(size)]
        return [position for position, owner in enumerate(owners) if owner in names]


def check_names(argument: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise a ValueError if one of ``names`` is not a known parent."""
    unknown = [name for name in names if name not in known]
    if unknown:
        wrong = ", ".join(map(repr, unknown))
        raise ValueError(
            f"{argument}: expected names of parents, "
            f"{', '.join(known) or 'of which there are none'}, but got {wrong}."
        )


def image_sizes(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the channels, height and width of an image.

    Raises:
        ValueError: If the shape, the argument ``name``, is not one of an image, such as a volume's.
    """
    if len(shape) != 3:
        raise ValueError(
            f"{name}: expected (channels, height, width), but got {tuple(shape)}; for volumes use "
            "PyramidEncoder and PyramidDecoder."
        )
    channels, height, width = whole_numbers(name, shape, least=1)
    return channels, height, width


def spatial_dimensions(shape: Sequence[int]) -> int:
    """Return the number of sizes, two of an image or three of a volume; raise for other shapes."""
    if len(shape) not in (3, 4):
        raise ValueError(
            f"shape: expected (channels, height, width) or (channels, depth, height, width), but "
            f"got {tuple(shape)}."
        )
    return len(whole_numbers("shape", shape, least=1)) - 1


def scale_channels(channels: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """Check the channels at each scale of a network that halves an image once for each scale.

    Raises:
        ValueError: If there are none, a count is below 1, or most of the image would be padding.
    """
    checked = whole_numbers("channels", channels, least=1, fewest=1)
    most = math.ceil(math.log2(max(sizes))) + _EXTRA_HALVINGS
    if len(checked) > most:
        raise ValueError(
            f"channels: expected at most {most} numbers, for an image of "
            f"{' × '.join(map(str, sizes))} is halved once for each, but got {len(checked)}."
        )
    return checked


def reduced_shape(channels: int, sizes: Sequence[int], halvings: int) -> tuple[int, ...]:
    """Return the shape of an image of some channels after halving its sizes, rounded up."""
    return (channels, *(math.ceil(size / 2**halvings) for size in sizes))


def end_padding(sizes: Sequence[int], halvings: int) -> tuple[int, ...]:
    """Return the padding at the end of each dimension, last one first, that makes halving exact."""
    return tuple(number for size in reversed(sizes) for number in (0, -size % 2**halvings))


def space_to_depth(features: Tensor) -> Tensor:
    """Halve all sizes: ``(batch, C, H, W)`` -> ``(batch, 4·C, H/2, W/2)``, or a volume by 8.

    The inverse of :func:`depth_to_space`; see Shi et al. 2016, arXiv:1609.05158.
    """
    batch, channels, *sizes = features.shape
    halves = [part for size in sizes for part in (size // 2, 2)]
    coarse, fine = range(2, 2 + len(halves), 2), range(3, 3 + len(halves), 2)
    parts = features.reshape(batch, channels, *halves).permute(0, 1, *fine, *coarse)
    return parts.reshape(batch, -1, *halves[::2])


def depth_to_space(features: Tensor) -> Tensor:
    """Double all sizes: ``(batch, 4·C, H, W)`` -> ``(batch, C, 2·H, 2·W)``, or a volume by 8.

    Example:
        >>> features = torch.rand(2, 16, 4, 5, 6)
        >>> torch.equal(space_to_depth(depth_to_space(features)), features)
        True
    """
    batch, channels, *sizes = features.shape
    count = len(sizes)
    parts = features.reshape(batch, channels // 2**count, *[2] * count, *sizes)
    order = [position for k in range(count) for position in (2 + count + k, 2 + k)]
    return parts.permute(0, 1, *order).reshape(batch, -1, *(2 * size for size in sizes))


def zero_linear(in_features: int, out_features: int) -> nn.Linear:
    """Return an affine layer whose weights and biases start at zero."""
    layer = nn.Linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def call_in_precision(module: nn.Module, dtype: torch.dtype, *arguments: Any) -> Any:
    """Call a module with its parameters and buffers converted to ``dtype``, without autocast.

    The module keeps its own parameters, and gradients reach them. The arguments are in that type
    already.
    """
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
    }
    device = next((tensor.device.type for tensor in state.values()), "cpu")
    with torch.autocast(device, enabled=False):
        return functional_call(module, state, arguments)


def out_features(encoder: nn.Module) -> int:
    """Return the number of features that an encoder returns, its attribute ``out_features``.

    Raises:
        ValueError: If there is none.
    """
    features = getattr(encoder, "out_features", None)
    if not isinstance(features, int):
        raise ValueError(
            f"encoder: expected {type(encoder).__name__} to have the attribute out_features, the "
            f"number of features that it returns, but it is {features!r}; set it."
        )
    return features


class ParameterNetwork(nn.Module):
    """Predict numbers from a context; without context, learn them directly.

    A multilayer perceptron with SiLU activations. The last layer starts at zero, and so does the
    prediction for every context.

    Args:
        context_features: Size of the context; 0 for free parameters.
        parameters: Number of predicted numbers.
        hidden: Widths of the hidden layers; empty for an affine function of the context.
    """

    def __init__(self, context_features: int, parameters: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        hidden = whole_numbers("hidden", hidden, least=1)
        self.context_features, self.parameters_count = context_features, parameters
        self.is_affine = context_features == 0 or not hidden
        if context_features == 0:
            self.free = nn.Parameter(torch.zeros(parameters))
            return
        widths = [context_features, *hidden]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.SiLU()]
        self.layers = nn.Sequential(*layers, zero_linear(widths[-1], parameters))

    def forward(self, context: Tensor) -> Tensor:
        """Return the numbers ``(*batch, parameters)``, or ``(parameters,)`` without context."""
        if self.context_features == 0:
            return self.free
        # The eight significant bits of bfloat16 are too few for a density.
        with torch.autocast(context.device.type, enabled=False):
            predicted: Tensor = self.layers(context.to(next(self.parameters())))
        return predicted
