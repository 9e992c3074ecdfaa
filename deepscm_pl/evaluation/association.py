"""Rung 1: likelihood of the test split, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import (
    Estimate,
    Quantities,
    by_key,
    estimates_of,
    on_one_process,
)
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.graph import CausalGraph
from deepscm_pl.metrics import PerImageStatistics
from deepscm_pl.metrics.functional import bits_per_dimension

__all__ = [
    "AssociationRow",
    "ImportanceWeightedResult",
    "association_rows",
    "evaluate_importance_weighted_bound",
]


@dataclass(frozen=True)
class AssociationRow:
    """A row of the association table, with its key in configurations and JSON."""

    key: str
    label: str
    unit: str
    estimate: Estimate
    reference: float | None = None


@dataclass(frozen=True)
class ImportanceWeightedResult(Quantities):
    """The importance-weighted bound by variable and in sum, in nats, and derived quantities.

    Gaps are the differences to the evidence lower bound of each image from the same draws. Bits per
    dimension are upper bounds.
    """

    bounds: Mapping[str, Estimate] = field(metadata={"key": "importance_weighted_bound"})
    bound: Estimate = field(metadata={"key": "importance_weighted_bound"})
    gaps: Mapping[str, Estimate] = field(metadata={"key": "importance_weighted_gap"})
    bits_per_dimension: Mapping[str, Estimate] = field(
        metadata={"key": "importance_weighted_bits_per_dimension"}
    )

    @property
    def quantities(self) -> dict[str, Estimate]:
        """All estimates by their keys in JSON, such as ``importance_weighted_gap/image``."""
        return by_key(self, Estimate)


def evaluate_importance_weighted_bound(
    model: ModelOnData,
    num_samples: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> ImportanceWeightedResult:
    """Estimate the importance-weighted bound, which is tighter than the evidence lower bound.

    See Burda et al. 2016, arXiv:1509.00519. Memory does not grow with the number of samples.

    Args:
        model: The model and the rows.
        num_samples: K, draws of the latents.
        batch_size: Rows in each batch.
        seed: Random seed; the state of torch's generators is restored.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If ``num_samples`` is less than 1.
    """
    scm, images = model.scm, model.scm.image_variables
    device = scm.fitted.device
    kinds = {"bound": scm.graph.nodes, "gap": images, "bits": images}
    names = [f"{kind}/{name}" for kind, variables in kinds.items() for name in variables]
    statistics = on_one_process(PerImageStatistics([*names, "bound"]), device)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.inference_mode(),
        tqdm(
            total=len(model),
            unit="image",
            desc=f"K = {num_samples}",
            disable=None if progress else True,
        ) as bar,
    ):
        torch.manual_seed(seed)
        for _, values in model.batches(0, len(model), batch_size):
            found = scm.importance_weighted_bound(values, num_samples)
            size = len(found.bound)
            batch = {f"bound/{name}": value for name, value in found.bounds.items()}
            batch["bound"] = found.bound
            for name in images:
                batch[f"gap/{name}"] = found.gaps[name]
                features = scm[name].domain.features
                batch[f"bits/{name}"] = bits_per_dimension(found.bounds[name], features)
            statistics.update({name: value.expand(size) for name, value in batch.items()})
            bar.update(size)
    estimates = estimates_of(statistics.compute(), len(model))
    bounds, gaps, bits = (
        {name: estimates[f"{kind}/{name}"] for name in variables}
        for kind, variables in kinds.items()
    )
    return ImportanceWeightedResult(bounds, estimates["bound"], gaps, bits)


def association_rows(
    graph: CausalGraph,
    images: tuple[str, ...],
    quantities: Mapping[str, Estimate],
    reference: Mapping[str, float] | None = None,
    num_samples: int = 100,
    num_particles: int = 1,
    notes: Mapping[str, str] | None = None,
) -> list[AssociationRow]:
    """Return the rows of the association table for the known quantities, which are given by key.

    Args:
        graph: Graph of the model.
        images: Image variables of the model.
        quantities: Estimates by key.
        reference: Published values by key.
        num_samples: K of the importance-weighted bound.
        num_particles: Draws of the latents for the evidence lower bound.
        notes: What to say of the log-probability of an image instead of ``≥``, by variable.

    Raises:
        ValueError: If the key of a reference is unknown.
    """
    labels = list(_labels(graph, images, num_samples, num_particles, notes or {}))
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
    graph: CausalGraph,
    images: tuple[str, ...],
    num_samples: int,
    num_particles: int,
    notes: Mapping[str, str],
) -> Iterator[tuple[str, str, str]]:
    """Yield the key, label and unit of every quantity."""
    bound = f" ≥, {num_particles} draw{'s' if num_particles > 1 else ''}"
    for name, parents in graph.parents.items():
        given = f" | {', '.join(parents)}" if parents else ""
        known = f", {notes[name]}" if notes.get(name) else bound
        yield f"bound/{name}", f"log p({name}{given}){known if name in images else ''}", "nats"
        yield f"loss/{name}", f"{name}, loss{f' ({notes[name]})' if notes.get(name) else ''}", "–"
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
        yield f"diversity/{name}", f"{name}, variation of samples ÷ of data", "fraction"
        yield f"unexplained_variance/{name}", f"{name}, unexplained by reconstructions", "fraction"
        yield f"critic_accuracy/{name}", f"{name}, recognised by the critic", "fraction"
