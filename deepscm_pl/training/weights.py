"""Weights from a file, put into a model; or one line that says why they do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deepscm_pl.training.one_line import one_line

__all__ = ["load_weights"]


def load_weights(model: nn.Module, weights: Any) -> None:
    """Put ``weights`` into ``model``; all of them, and no others.

    Beyond what torch refuses, a tensor must be of the same kind (floating, whole or complex) and
    of exactly the same shape: torch takes the first of several numbers for a single one.

    Args:
        model: The model; where this raises, its weights are of no use. On the device ``"meta"``
            weights are compared with it, and nothing else happens.
        weights: Name to tensor, as of ``model.state_dict()``.

    Raises:
        ValueError: If a tensor is missing, unexpected, of another shape or kind, or not finite.

    Example:
        >>> import torch
        >>> load_weights(nn.Linear(2, 1), {"weight": torch.zeros(1, 3)})
        Traceback (most recent call last):
            ...
        ValueError: the weights do not fit the model (missing: bias; weight is of shape (1, 3)
        instead of (1, 2)); take those of a model with the same settings.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"expected tensors by name as weights, but got {type(weights).__name__}.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
            model.load_state_dict(weights)
    except Exception as error:  # odd weights break the reader in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        problems = [*_names(model, weights), *_unlike(model, weights)] or [one_line(reason)]
    else:
        problems = [*_unlike(model, weights)]
    if problems:
        raise ValueError(
            f"the weights do not fit the model ({'; '.join(problems)}); take those of a model "
            "with the same settings."
        )
    odd = [*_not_finite(model)]
    if odd:
        raise ValueError(
            f"the weights are not finite ({_first_of(odd)}): the training that saved them had "
            "diverged; take an earlier checkpoint of the same run."
        )


def _not_finite(model: nn.Module) -> Iterator[str]:
    """Names of parameters with infinite or NaN elements, and of buffers with NaN."""
    for name, parameter in model.named_parameters():
        if _has_values(parameter) and not bool(torch.isfinite(parameter).all()):
            yield name
    for name, buffer in model.named_buffers():
        if _has_values(buffer) and bool(torch.isnan(buffer).any()):
            yield name


def _has_values(tensor: Tensor) -> bool:
    return not (is_lazy(tensor) or tensor.is_meta)


def _names(model: nn.Module, weights: Mapping[Any, Any]) -> Iterator[str]:
    """Which tensors are missing, and which are not expected."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    if missing:
        yield f"missing: {_first_of(missing)}"
    if unexpected:
        yield f"unexpected: {_first_of(unexpected)}"


def _unlike(model: nn.Module, weights: Mapping[Any, Any]) -> Iterator[str]:
    """The first tensor that is not like that of the model, and how many more there are."""
    expected = model.state_dict()
    found = {
        name: _difference(weights[name], value)
        for name, value in expected.items()
        if name in weights and isinstance(value, Tensor) and not is_lazy(value)
    }
    unlike = [f"{name} is {difference}" for name, difference in found.items() if difference]
    if unlike:
        yield _first_of(unlike)


def _difference(value: Any, expected: Tensor) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__} instead of a tensor"
    if value.shape != expected.shape:
        return f"of shape {tuple(value.shape)} instead of {tuple(expected.shape)}"
    if _kind(value) != _kind(expected):
        return f"of {_type(value)} instead of {_type(expected)}"
    return ""


def _kind(value: Tensor) -> tuple[object, ...]:
    return value.is_floating_point(), value.is_complex(), value.is_quantized, value.layout


def _type(value: Tensor) -> str:
    return f"{value.dtype} ({value.layout})"


def _first_of(texts: list[Any]) -> str:
    first = one_line(texts[0])
    return first if len(texts) == 1 else f"{first} and {len(texts) - 1} more"
