"""Questions to known worlds by columns ``(N,)``, which travel as tensors ``(N, 1)``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepscm_pl.worlds import KnownWorld


def tensor(column: Any) -> torch.Tensor:
    """``(N, 1)`` in float64."""
    return torch.as_tensor(np.array(column, dtype=np.float64))[:, None]


def _tensors(columns: Any) -> dict[str, torch.Tensor]:
    return {name: tensor(column) for name, column in columns.items()}


def _columns(world: KnownWorld, values: Any) -> dict[str, np.ndarray]:
    return {name: values[name].reshape(-1).numpy() for name in world.attributes}


def _do(do: Any) -> dict[str, Any]:
    plain = (int, float, torch.Tensor)
    return {n: v if callable(v) or isinstance(v, plain) else tensor(v) for n, v in do.items()}


def log_prob(world: KnownWorld, attributes: Any) -> dict[str, np.ndarray]:
    values = _tensors(attributes)
    parents = world.scm.graph.parents
    return _columns(world, {n: world.scm[n].log_prob(values[n], values) for n in parents})


def abduct(world: KnownWorld, attributes: Any) -> dict[str, np.ndarray]:
    values = _tensors(attributes)
    noise = world.scm.abduct(values)
    for name, parts in noise.items():
        world.scm[name].check_explained(name, values[name], parts)
    return _columns(world, {name: parts["u"] for name, parts in noise.items()})


def predict(world: KnownWorld, noise: Any, do: Any = None) -> dict[str, np.ndarray]:
    parts = {name: {"u": tensor(column)} for name, column in noise.items()}
    return _columns(world, world.scm.act(_do(do or {})).predict(parts))


def counterfactual(world: KnownWorld, attributes: Any, do: Any) -> dict[str, np.ndarray]:
    return _columns(world, world.scm.counterfactual(_tensors(attributes), _do(do)))
