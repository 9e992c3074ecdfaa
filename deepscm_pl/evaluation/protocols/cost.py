"""Costs of a model: parameters, seconds per counterfactual, seconds of its training."""

from __future__ import annotations

import math
import time

import torch

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.protocols.answering import Task
from deepscm_pl.evaluation.protocols.drawing import DrawnDo
from deepscm_pl.evaluation.protocols.results import Figure

__all__ = ["cost_figures", "cost_remarks"]


def cost_figures(task: Task, do: DrawnDo) -> list[Figure]:
    """Return the costs of a model.

    - ``parameters``: of the mechanism of the image;
    - ``seconds per counterfactual``: abduction, action and prediction of all variables, a mean over
      the first rows in batches of the settings;
    - ``seconds of training``, if the checkpoint has them.

    Args:
        task: The task.
        do: The intervention that is timed.
    """
    rows = min(task.settings.detail_rows, len(task.model))
    part, some = task.first(rows), do.first(rows)
    start = time.perf_counter()
    part.answer(some)
    seconds = (time.perf_counter() - start) / rows
    parameters = sum(
        each.numel() for member in task.members for each in member[task.image].parameters()
    )
    costs = {
        "parameters": ("", float(parameters)),
        "seconds per counterfactual": ("s", seconds),
        "seconds of training": ("s", task.training_seconds or math.nan),
    }
    return [
        Figure("", task.image, name, unit, "", Estimate(value, math.nan, rows))
        for name, (unit, value) in costs.items()
        if not math.isnan(value)
    ]


def cost_remarks(task: Task) -> list[str]:
    """Return notes on where the costs were measured."""
    device, threads = task.model.scm.fitted.device, torch.get_num_threads()
    where = f"{threads} thread{'s' if threads > 1 else ''} of the CPU"
    return [
        "parameters are those of the mechanism of the image; seconds per counterfactual are those "
        f"of {where if device.type == 'cpu' else torch.cuda.get_device_name(device)}, in batches "
        f"of {task.settings.batch_size}"
    ]
