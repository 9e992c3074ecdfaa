"""Parameters of a distribution as a function of a context, or free where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_numbers

__all__ = ["ParameterNetwork"]


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
