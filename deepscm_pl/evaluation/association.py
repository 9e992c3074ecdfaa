"""Rung 1: how well a model explains the test split, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import Estimate, alone, over_rows
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.graph import CausalGraph
from deepscm_pl.metrics import PerImageStatistics
from deepscm_pl.metrics.functional import bits_per_dimension

__all__ = ["AssociationRow", "association_rows", "evaluate_importance_weighted_bound"]


@dataclass(frozen=True)
class AssociationRow:
    """One line of the association table.

    Attributes:
        key: Name of the quantity, as in a configuration and in JSON.
        label: What it is, for people.
        unit: Its unit.
        estimate: What was found.
        reference: A number to compare with, if there is one.
    """

    key: str
    label: str
    unit: str
    estimate: Estimate
    reference: float | None = None


def evaluate_importance_weighted_bound(
    subject: Subject,
    num_samples: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Estimate]:
    """The importance-weighted bound, by variable and in sum, and its bits per dimension.

    Tighter than the evidence lower bound (Burda et al. 2016, arXiv:1509.00519). By how much is
    ``importance_weighted_gap/<image>``, in nats, both bounds from the same draws for the same rows.
    Memory does not grow with the number of samples.

    Args:
        subject: The model and the rows.
        num_samples: K, draws of the latents.
        batch_size: Rows at a time.
        seed: Of all randomness; the generators of the program are left as they were.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If ``num_samples`` is less than 1.
    """
    scm = subject.scm
    device = scm.fitted.device
    names = [f"importance_weighted_bound/{name}" for name in scm.graph.nodes]
    names += ["importance_weighted_bound"]
    names += [f"importance_weighted_gap/{name}" for name in scm.image_variables]
    names += [f"importance_weighted_bits_per_dimension/{name}" for name in scm.image_variables]
    statistics = alone(PerImageStatistics(names), device)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.inference_mode(),
        tqdm(total=len(subject), unit="image", desc=f"K = {num_samples}", disable=not progress)
        as bar,
    ):  # fmt: skip
        torch.manual_seed(seed)
        for _, values in subject.batches(0, len(subject), batch_size):
            found = scm.importance_weighted_bound(values, num_samples)
            quantities = {
                f"importance_weighted_bound/{name}": value for name, value in found.bounds.items()
            }
            quantities["importance_weighted_bound"] = found.bound
            for name in scm.image_variables:
                quantities[f"importance_weighted_gap/{name}"] = found.gaps[name]
                quantities[f"importance_weighted_bits_per_dimension/{name}"] = bits_per_dimension(
                    found.bounds[name], scm[name].domain.features
                )
            statistics.update(_over_rows_of_batch(quantities, len(found.bound)))
            bar.update(len(found.bound))
    return over_rows(statistics.compute(), len(subject))


def _over_rows_of_batch(quantities: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    return {name: value.expand(size) for name, value in quantities.items()}


def association_rows(
    graph: CausalGraph,
    images: tuple[str, ...],
    quantities: Mapping[str, Estimate],
    reference: Mapping[str, float] | None = None,
    num_samples: int = 100,
    num_particles: int = 1,
) -> list[AssociationRow]:
    """The lines of the association table, as far as there are quantities for them.

    Args:
        graph: Of the model.
        images: Its image variables.
        quantities: What was found, by key.
        reference: Numbers to compare with, by key.
        num_samples: K of the importance-weighted bound.
        num_particles: Draws of the latents for the evidence lower bound.

    Raises:
        ValueError: If a reference is of no quantity.
    """
    labels = list(_labels(graph, images, num_samples, num_particles))
    unknown = [key for key in reference or {} if key not in {key for key, _, _ in labels}]
    if unknown:
        raise ValueError(
            f"reference: there is no quantity {unknown[0]!r}; expected some of "
            f"{', '.join(key for key, _, _ in labels)}."
        )
    return [
        AssociationRow(key, label, unit, quantities[key], (reference or {}).get(key))
        for key, label, unit in labels
        if key in quantities
    ]


def _labels(
    graph: CausalGraph, images: tuple[str, ...], num_samples: int, num_particles: int
) -> Iterator[tuple[str, str, str]]:
    """Key, label and unit of every quantity."""
    bound = f" ≥, {num_particles} draw{'s' if num_particles > 1 else ''}"
    for name, parents in graph.parents.items():
        given = f" | {', '.join(parents)}" if parents else ""
        yield f"bound/{name}", f"log p({name}{given}){bound if name in images else ''}", "nats"
    yield "bound", f"log p(joint){bound if images else ''}", "nats"
    weighted = f"K = {num_samples}"
    for name in images:
        given = f" | {', '.join(graph.parents[name])}" if graph.parents[name] else ""
        yield f"importance_weighted_bound/{name}", f"log p({name}{given}) ≥, {weighted}", "nats"
    if images:
        yield "importance_weighted_bound", f"log p(joint) ≥, {weighted}", "nats"
    for name in images:
        gain = f"{name}, gain of {weighted} over the bound"
        yield f"importance_weighted_gap/{name}", gain, "nats"
        yield f"kl/{name}", f"KL(q(z) ‖ p(z)) of {name}", "nats"
        yield f"bits_per_dimension/{name}", f"{name}, bits per dimension ≤", "bits"
        given = f" | {', '.join(graph.parents[name])}" if graph.parents[name] else ""
        yield f"log_prob_recorded/{name}", f"log P(recorded {name}{given}){bound}", "nats"
        yield (
            f"recorded_bits_per_dimension/{name}",
            f"recorded {name}, bits per dimension ≤",
            "bits",
        )
        yield (
            f"importance_weighted_bits_per_dimension/{name}",
            f"{name}, bits per dimension ≤, {weighted}",
            "bits",
        )
        yield f"mean_absolute_error/{name}", f"{name}, error of reconstruction", "grey levels"
