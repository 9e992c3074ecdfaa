"""True images under interventions with values of their own, in a known world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data import render_truth
from deepscm_pl.evaluation.protocols.answering import Task
from deepscm_pl.evaluation.protocols.drawing import DrawnDo

__all__ = ["has_truth", "rendered", "true_values"]


def has_truth(task: Task, names: list[str]) -> bool:
    """Whether a known world draws the true images of interventions on variables."""
    model = task.model
    known = () if model.world is None else model.world.attributes
    fixed = () if model.world is None else model.world.fixed_attributes
    return model.originals is not None and all(n in known and n not in fixed for n in names)


def true_values(task: Task, do: DrawnDo) -> dict[str, NDArray[np.float64]]:
    """Return the true counterfactual attributes of the world, ``(N,)`` each."""
    world = task.model.world
    assert world is not None
    factual = {
        name: torch.from_numpy(column)[:, None]
        for name, column in task.model.columns().items()
        if name in world.scm.graph
    }
    values = {name: value.double() for name, value in do.values.items()}
    found = world.scm.counterfactual(factual, values)
    return {name: value[0, :, 0].numpy() for name, value in found.items()}


def rendered(
    task: Task,
    attributes: Mapping[str, NDArray[np.float64]],
    originals: NDArray[np.uint8] | None = None,
) -> Tensor:
    """Render grey levels ``(N, 1, *image)`` of attributes.

    Args:
        task: The task.
        attributes: Attributes of the world, ``(N,)`` each.
        originals: What is redrawn; None for the originals of the images.
    """
    world = task.model.world
    assert world is not None
    source: Any = task.model.originals if originals is None else originals
    settings = task.settings
    images = render_truth(world, source, attributes, settings.workers, settings.progress)
    return torch.from_numpy(world.with_channels(images)).float()
