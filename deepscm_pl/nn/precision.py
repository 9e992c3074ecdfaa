"""Calling a network in another precision than that of its parameters."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

__all__ = ["call_in_precision"]


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
