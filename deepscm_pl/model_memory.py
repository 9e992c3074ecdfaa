"""Memory that a model needs, estimated before it is built.

Operating systems grant more memory than exists and kill a process that uses it. Memory is therefore
estimated first. The estimates are lower bounds: a model that fits is never refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from deepscm_pl.checks import shown
from deepscm_pl.configuration import describe
from deepscm_pl.memory import format_bytes, total_memory

__all__ = ["bytes_of", "memory_of", "require_buildable", "require_memory_for"]


def memory_of(device: torch.device | None = None) -> int | None:
    """Total memory of a GPU, or of the machine or its container, in bytes; None if unknown."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device is not None and device.type != "cpu":
        return None
    return total_memory()


def bytes_of(module: nn.Module) -> int:
    """Size of the parameters and buffers of a module, in bytes."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(each.numel() * each.element_size() for each in tensors)


def require_memory_for(
    name: str, value: Any, wanted: float, device: torch.device | None = None
) -> None:
    """Raise ValueError if a setting needs more memory than exists.

    Args:
        name: The setting, for the message.
        value: Its value.
        wanted: A lower bound of its memory, in bytes.
        device: A GPU; None for the machine.
    """
    available = memory_of(device)
    if available is not None and wanted > available:
        raise ValueError(
            f"{name}: {shown(value)} takes at least {format_bytes(wanted)} of memory, but there "
            f"are {format_bytes(available)}; lower it."
        )


def require_buildable(name: str, make: Callable[..., nn.Module], *arguments: Any) -> None:
    """Raise if the weights of a module would not fit in memory, without building it.

    Args:
        name: The setting that describes the module, for the message.
        make: Its factory, a class or ``functools.partial`` of one, called on the device ``meta``,
            where tensors have shapes and no memory.
        *arguments: Arguments of the factory.

    Raises:
        ValueError: Naming the setting, the largest number in it and both sizes.

    Example:
        >>> from functools import partial
        >>> require_buildable("network", partial(nn.Linear, out_features=10**13), 4)
        Traceback (most recent call last):
            ...
        ValueError: network.out_features: 10000000000000 takes at least 200 TB of memory, but ...
    """
    try:
        with torch.device("meta"):
            made = make(*arguments)
        wanted: float = bytes_of(made) if isinstance(made, nn.Module) else 0
    except Exception as error:
        # An overflow is a size that torch cannot represent; the build raises other errors again.
        wanted = math.inf if "overflow" in str(error).lower() else 0
    available = memory_of()
    if available is None or wanted <= available:
        return
    numbers = _whole_numbers_in(make)
    setting, value = max(numbers, key=lambda pair: pair[1], default=("", "it"))
    require_memory_for(".".join(filter(None, (name, setting))), value, wanted)


def _whole_numbers_in(make: Callable[..., nn.Module]) -> Iterator[tuple[str, int]]:
    """The integers among the arguments of a factory, by their dotted path."""
    with suppress(ValueError):  # a factory that cannot be described
        yield from _leaves(describe(make), ())


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, path if key == "init_args" else (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, path)
    elif isinstance(node, int) and not isinstance(node, bool):
        yield ".".join(path), node
