"""The protocol of RajatRasal/Diffusion-Counterfactuals, against rendered counterfactuals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepscm_pl.evaluation.cycles import possible_rows, replace_rows
from deepscm_pl.evaluation.protocols.answering import Task, repeated_images
from deepscm_pl.evaluation.protocols.drawing import DrawnDo, of_training
from deepscm_pl.evaluation.protocols.judging import estimate_of, morphometry
from deepscm_pl.evaluation.protocols.rendered import has_truth, rendered, true_values
from deepscm_pl.evaluation.protocols.results import Figure, mean_over_seeds

__all__ = ["rasal"]

RASAL_NOTES = (
    "images are in [0, 1]; one cycle of composition and of reversibility",
    "the published code redraws the factual image, whose thickness and intensity are changed "
    "already, as the truth; as defined, the truth is drawn from the original of the image",
    "values of the intervened variable are permuted within each batch of the test split, and its "
    "effects follow the model; lines of the published code that are not in use take all attributes "
    "of the other row under do(thickness)",
    "percentages of values near zero, such as slants, are large whatever the model",
)

_GREYS = 255.0


def rasal(task: Task) -> list[Figure]:
    """Composition, reversibility, errors against rendered truths, and measured percentages."""
    causes = [name for name in task.causes if has_truth(task, [name])]
    dos = {name: [_of_batch(task, name, seed) for seed in task.settings.seeds] for name in causes}
    figures = [_composition(task)]
    for name in causes:
        found = [_measured(task, do) for do in dos[name]]
        for key in found[0]:
            figures.append(_figure(task, dos[name][0].title, key, [each[key] for each in found]))
    return figures


def _of_batch(task: Task, name: str, seed: int) -> DrawnDo:
    """The values of other rows of the same batch."""
    generator, batch = torch.Generator().manual_seed(seed), task.settings.batch_size
    column = task.model.variables[name].cpu()
    parts = [
        of_training(name, part, len(part), generator, len(part)).values[name]
        for part in column.split(batch)
    ]
    return DrawnDo(f"do({name} ~ batch)", {name: torch.cat(parts)}, {})


def _composition(task: Task) -> Figure:
    images, kept = repeated_images(task, [DrawnDo.null()], [1])
    error = _mean((images[1] - task.factual()[task.image]).abs()) / _GREYS
    found = estimate_of(error.where(kept, torch.nan))
    return Figure("null, 1 time", task.image, "L1", "", "", found, floor=0.0)


def _measured(task: Task, do: DrawnDo) -> dict[tuple[str, str], tuple[Tensor, Tensor | None]]:
    """For each (variable, quantity) its values as defined and as published, ``(N,)`` each."""
    rows, answer = task.factual(), task.answer(do)
    undo = DrawnDo(f"{do.title} and back", {name: rows[name] for name in do.values}, {})
    # Rounding can move values onto a bound, where no noise can be inferred.
    kept = possible_rows(task.model.scm, answer)
    back = task.answer(undo, replace_rows(kept, answer, rows))
    image, recorded, restored = (each[task.image].float() / _GREYS for each in (answer, rows, back))
    attributes = true_values(task, do)
    truth = rendered(task, attributes) / _GREYS
    factual = _drawn(task)
    published = rendered(task, attributes, factual) / _GREYS
    found: dict[tuple[str, str], tuple[Tensor, Tensor | None]] = {
        (task.image, "reversibility L1"): (
            _mean((restored - recorded).abs()),
            None,
        ),
        (task.image, "L1"): (_mean((image - truth).abs()), _mean((image - published).abs())),
        (task.image, "MSE"): (_mean((image - truth) ** 2), _mean((image - published) ** 2)),
        (task.image, "L1 of doing nothing"): (_mean((recorded - truth).abs()), None),
    }
    for judge in morphometry(task.model, task.settings.workers):
        for name, value in judge.read(answer[task.image]).items():
            target = answer[name].flatten().double()
            found[name, "MAPE"] = ((value - target) / target).abs(), None
            found[name, "mean absolute error"] = (value - target).abs(), None
    return found


def _drawn(task: Task) -> Any:
    """The recorded images as the renderer draws them."""
    world = task.model.world
    assert world is not None
    return world.without_channels(task.model.variables[task.image])


def _mean(error: Tensor) -> Tensor:
    return error.flatten(1).mean(dim=1)


def _figure(
    task: Task, title: str, key: tuple[str, str], seeds: list[tuple[Tensor, Tensor | None]]
) -> Figure:
    name, quantity = key
    defined, deviation = mean_over_seeds([estimate_of(each) for each, _ in seeds])
    published = [estimate_of(each) for _, each in seeds if each is not None]
    is_measured = name != task.image
    has_unit = quantity == "mean absolute error"
    return Figure(
        title,
        name,
        quantity,
        task.model.unit(name) if has_unit else "",
        "morphometry" if is_measured else "",
        defined,
        deviation,
        mean_over_seeds(published)[0].mean if published else None,
        _floor(task, name, quantity) if is_measured else 0.0,
    )


def _floor(task: Task, name: str, quantity: str) -> float:
    """The error of the measurement of recorded images."""
    (judge,) = morphometry(task.model, task.settings.workers)
    rows = task.factual()
    target = rows[name].flatten().double()
    error = (judge.read(rows[task.image])[name] - target).abs()
    return estimate_of(error / target.abs() if quantity == "MAPE" else error).mean
