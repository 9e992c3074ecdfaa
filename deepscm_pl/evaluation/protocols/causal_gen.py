"""The protocol of biomedia-mira/causal-gen (De Sousa Ribeiro et al. 2023, arXiv:2306.15764)."""

from __future__ import annotations

import torch

from deepscm_pl.evaluation.protocols.answering import Task
from deepscm_pl.evaluation.protocols.drawing import DrawnDo, of_training, random_subset
from deepscm_pl.evaluation.protocols.effectiveness import effectiveness_figures, mean_error
from deepscm_pl.evaluation.protocols.results import Figure

__all__ = ["causal_gen", "training_dos"]

CAUSAL_GEN_NOTES = (
    "as published, the noise of a latent and of pixels is scaled by 0.1; images have the size of "
    "the model, where the published code pads them to 32 × 32",
    "a random subset is drawn for each image, and is never empty; the published code draws it for "
    "each batch of 32",
)


def causal_gen(task: Task) -> list[Figure]:
    """Effectiveness under do(k ~ train) of each cause k, and under a random subset of all.

    The values are the first of a random permutation of the training column, anew for each batch.
    Variables that are not intervened on have their counterfactual values as targets.
    """
    published = mean_error if task.has_published_answers else None
    return effectiveness_figures(task, training_dos(task), published)


def training_dos(task: Task, subset: bool = True) -> dict[str, list[DrawnDo]]:
    """Return the interventions for each seed, by title."""
    size, batch = len(task.model), task.settings.batch_size
    columns = {name: task.column(name) for name in task.causes}
    found: dict[str, list[DrawnDo]] = {}
    for seed in task.settings.seeds:
        generator = torch.Generator().manual_seed(seed)
        dos = [of_training(n, each, size, generator, batch) for n, each in columns.items()]
        if subset and len(columns) > 1:
            dos.append(random_subset(columns, size, generator, batch))
        for do in dos:
            found.setdefault(do.title, []).append(do)
    return found
