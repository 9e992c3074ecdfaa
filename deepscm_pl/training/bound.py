"""The logged quantities of a causal model: its bound, the terms of it, and reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deepscm_pl.metrics.functional import bits_per_dimension, mean_absolute_error
from deepscm_pl.scm import EvidenceLowerBound, StructuralCausalModel
from deepscm_pl.variables import Variables

__all__ = [
    "bound_quantities",
    "bound_terms",
    "diagnostic_names",
    "diagnostic_quantities",
    "failures",
    "loss_variables",
    "quantity_names",
    "read_history",
    "test_quantities",
    "test_quantity_names",
    "total_name",
]


def quantity_names(scm: StructuralCausalModel, is_training: bool = False) -> tuple[str, ...]:
    """Names of the quantities of :func:`bound_quantities`, in training or in a test."""
    losses = loss_variables(scm, is_training)
    nodes = [name for name in scm.graph.nodes if name not in losses]
    images = [name for name in scm.image_variables if name not in losses]
    return (
        *(f"log_prob/{name}" for name in nodes),
        *(f"kl/{name}" for name in images),
        *(f"bound/{name}" for name in nodes),
        *(f"loss/{name}" for name in losses),
        total_name(bool(losses)),
        *(f"bits_per_dimension/{name}" for name in images),
    )


def loss_variables(scm: StructuralCausalModel, is_training: bool) -> tuple[str, ...]:
    """The variables whose evidence is the negative loss of their mechanism."""
    return tuple(
        name
        for name in scm.graph.nodes
        if not scm[name].has_likelihood or (is_training and scm[name].has_training_loss)
    )


def total_name(has_losses: bool) -> str:
    """The name of the sum over variables: ``bound``; ``objective`` if there are losses in it."""
    return "objective" if has_losses else "bound"


def bound_quantities(scm: StructuralCausalModel, elbo: EvidenceLowerBound) -> dict[str, Tensor]:
    """The bound, its terms and the bits per dimension by name, ``(batch,)`` each.

    A variable whose mechanism is trained by a loss has that loss only.
    """
    found: dict[str, Tensor] = {total_name(elbo.has_losses): elbo.bound}
    for name, evidence in elbo.evidence.items():
        if evidence.is_loss:
            found[f"loss/{name}"] = -evidence.bound
            continue
        found[f"log_prob/{name}"] = evidence.log_prob
        found[f"bound/{name}"] = evidence.bound
    for name in scm.image_variables:
        evidence = elbo.evidence[name]
        if evidence.is_loss:
            continue
        found[f"kl/{name}"] = evidence.divergence
        found[f"bits_per_dimension/{name}"] = bits_per_dimension(
            evidence.bound, scm[name].domain.features
        )
    return found


def bound_terms(quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the bound and the terms that add up to it, without gradients."""
    kept = ("log_prob/", "kl/", "loss/")
    found = {k: v.detach() for k, v in quantities.items() if k.startswith(kept)}
    total = next(v for k, v in quantities.items() if k in ("bound", "objective"))
    return {**found, "bound": total.detach()}


def diagnostic_names(scm: StructuralCausalModel) -> tuple[str, ...]:
    """Names of the quantities of :func:`diagnostic_quantities`."""
    return tuple(f"{key}/{name}" for name in scm.graph.nodes for key in scm[name].diagnostics)


def diagnostic_quantities(scm: StructuralCausalModel, batch: Variables) -> dict[str, Tensor]:
    """Quantities that show whether the training of a mechanism fails, ``(batch,)`` each."""
    diagnosed = [name for name in scm.graph.nodes if scm[name].diagnostics]
    if diagnosed and scm.is_incomplete(batch):
        batch = {**batch, **scm.completed(batch)}
    found = {}
    for name in diagnosed:
        parents = {parent: batch[parent] for parent in scm.graph.parents[name]}
        for key, value in scm[name].diagnose(batch[name], parents).items():
            found[f"{key}/{name}"] = value
    return found


def failures(scm: StructuralCausalModel, means: Mapping[str, float]) -> list[str]:
    """Descriptions of the failures that means of :func:`diagnostic_quantities` show."""
    found = []
    for name in scm.graph.nodes:
        mechanism = scm[name]
        own = {key: means[f"{key}/{name}"] for key in mechanism.diagnostics}
        failure = mechanism.failure(own) if own else None
        if failure is not None:
            found.append(f"{name}: {failure}")
    return found


def read_history(found: Any) -> dict[str, list[float]]:
    """Check the validation bounds of each variable in a checkpoint.

    Raises:
        ValueError: If they are not lists of numbers by name.
    """
    is_known = isinstance(found, Mapping) and all(
        isinstance(each, list) and all(isinstance(value, float) for value in each)
        for each in found.values()
    )
    if not is_known:
        raise ValueError("validation_history: expected lists of numbers by variable.")
    return {str(name): list(each) for name, each in found.items()}


def test_quantity_names(scm: StructuralCausalModel) -> tuple[str, ...]:
    """Names of the quantities of :func:`test_quantities`."""
    images = scm.image_variables
    recorded = [name for name in images if scm[name].has_recorded_bound]
    return (
        *(f"mean_absolute_error/{name}" for name in images),
        *(f"log_prob_recorded/{name}" for name in recorded),
        *(f"recorded_bits_per_dimension/{name}" for name in recorded),
    )


def test_quantities(
    scm: StructuralCausalModel, batch: Variables, num_particles: int
) -> dict[str, Tensor]:
    """Quantities that are measured in the test only, by name, ``(batch,)`` each.

    ``mean_absolute_error`` is that of reconstructions. ``log_prob_recorded`` is the evidence lower
    bound of the probability of the recorded grey levels, if the likelihood has one: without the
    loss of dequantisation, so that all likelihoods are comparable.
    """
    found = {}
    if scm.is_incomplete(batch):
        batch = {**batch, **scm.completed(batch)}
    for name in scm.image_variables:
        mechanism, image = scm[name], batch[name]
        parents = {parent: batch[parent] for parent in scm.graph.parents[name]}
        found[f"mean_absolute_error/{name}"] = mean_absolute_error(
            mechanism.reconstruct(image, parents),
            image,
            spatial_dims=len(mechanism.domain.shape) - 1,
        )
        if mechanism.has_recorded_bound:
            # Its draws leave those of all other quantities unchanged.
            with torch.random.fork_rng([image.device] if image.is_cuda else []):
                bound = mechanism.recorded_bound(image, parents, num_particles)
            found[f"log_prob_recorded/{name}"] = bound
            bits = bits_per_dimension(bound, mechanism.domain.features)
            found[f"recorded_bits_per_dimension/{name}"] = bits
    return found
