"""Memory that a model needs, estimated before it is built.

Operating systems grant more memory than exists and kill a process that uses it. Memory is therefore
estimated first. The estimates are lower bounds: a model that fits is never refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from deepscm_pl.checks import shown
from deepscm_pl.configuration import describe
from deepscm_pl.memory import format_bytes, total_memory

__all__ = ["bytes_of", "memory_of", "require_buildable", "require_memory_for", "without_values"]

_INITIALISERS = {"normal_", "uniform_"}
"""Names of functions that fill a tensor with random numbers."""


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

    Example:
        >>> require_memory_for("density_size", 10**15, 4e15)
        Traceback (most recent call last):
            ...
        ValueError: density_size: 1000000000000000 takes at least 4 PB of memory, but there are ...
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
        make: A class or ``functools.partial`` of one, called on the device ``meta``, where tensors
            have shapes and no memory.
        *arguments: Arguments of ``make``.

    Raises:
        ValueError: Naming the setting, the largest number in it and both sizes.

    Example:
        >>> from functools import partial
        >>> require_buildable("network", partial(nn.Linear, out_features=10**13), 4)
        Traceback (most recent call last):
            ...
        ValueError: network.out_features: 10000000000000 takes at least 200 TB of memory, but ...
    """
    wanted: float = 0
    try:
        with without_values():
            made = make(*arguments)
        wanted = bytes_of(made) if isinstance(made, nn.Module) else 0
    except Exception as error:  # the build on the real device raises it again
        if "overflow" in str(error).lower():  # a size that torch cannot represent
            wanted = math.inf
    available = memory_of()
    if available is None or wanted <= available:
        return
    numbers: list[tuple[str, Any]] = [("", "it")]
    with suppress(ValueError):  # a factory that cannot be described
        numbers = [*_whole_numbers(describe(make), ())] or numbers
    setting, value = max(numbers, key=itemgetter(1))
    require_memory_for(".".join(filter(None, (name, setting))), value, wanted)


@contextmanager
def without_values() -> Iterator[None]:
    """Build modules on the device ``meta``, where tensors have shapes and no memory.

    Example:
        >>> with without_values():
        ...     layer = nn.Linear(2, 10**13)
        >>> layer.weight.is_meta, layer.weight.shape
        (True, torch.Size([10000000000000, 2]))
    """
    with torch.device("meta"), _WithoutInitialisation():
        yield


class _WithoutInitialisation(TorchFunctionMode):
    """Skip the random initialisation of tensors without values, on the device ``"meta"``.

    Torch has no compiled program for it there, and takes seconds to import another.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Return the tensor as it is, or call the function."""
        named = kwargs or {}
        if getattr(func, "__name__", "") in _INITIALISERS:
            filled = args[0] if args else named["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **named)


def _whole_numbers(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The integers in a description, by their dotted path."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _whole_numbers(value, path if key == "init_args" else (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from _whole_numbers(value, path)
    elif isinstance(node, int) and not isinstance(node, bool):
        yield ".".join(path), node
