"""The logged quantities of a causal model: its bound, the terms of it, and reconstructions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from deepscm_pl.metrics.functional import bits_per_dimension, mean_absolute_error
from deepscm_pl.scm import EvidenceLowerBound, StructuralCausalModel
from deepscm_pl.variables import Variables

__all__ = [
    "bound_quantities",
    "bound_terms",
    "quantity_names",
    "reconstruction_error_names",
    "reconstruction_errors",
]


def quantity_names(scm: StructuralCausalModel) -> tuple[str, ...]:
    """Names of the quantities of :func:`bound_quantities`."""
    nodes, images = scm.graph.nodes, scm.image_variables
    return (
        *(f"log_prob/{name}" for name in nodes),
        *(f"kl/{name}" for name in images),
        *(f"bound/{name}" for name in nodes),
        "bound",
        *(f"bits_per_dimension/{name}" for name in images),
    )


def bound_quantities(scm: StructuralCausalModel, elbo: EvidenceLowerBound) -> dict[str, Tensor]:
    """The bound, its terms and the bits per dimension by name, ``(batch,)`` each."""
    found: dict[str, Tensor] = {"bound": elbo.bound}
    for name, evidence in elbo.evidence.items():
        found[f"log_prob/{name}"] = evidence.log_prob
        found[f"bound/{name}"] = evidence.bound
    for name in scm.image_variables:
        evidence = elbo.evidence[name]
        found[f"kl/{name}"] = evidence.divergence
        found[f"bits_per_dimension/{name}"] = bits_per_dimension(
            evidence.bound, scm[name].domain.features
        )
    return found


def bound_terms(quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the bound and the terms that add up to it, without gradients."""
    kept = ("log_prob/", "kl/")
    return {k: v.detach() for k, v in quantities.items() if k.startswith(kept) or k == "bound"}


def reconstruction_error_names(scm: StructuralCausalModel) -> tuple[str, ...]:
    """Names of the errors of :func:`reconstruction_errors`."""
    return tuple(f"mean_absolute_error/{name}" for name in scm.image_variables)


def reconstruction_errors(scm: StructuralCausalModel, batch: Variables) -> dict[str, Tensor]:
    """The mean absolute error of each image variable's reconstruction, ``(batch,)`` each."""
    errors = {}
    for name in scm.image_variables:
        mechanism = scm[name]
        parents = {parent: batch[parent] for parent in scm.graph.parents[name]}
        errors[f"mean_absolute_error/{name}"] = mean_absolute_error(
            mechanism.reconstruct(batch[name], parents),
            batch[name],
            spatial_dims=len(mechanism.domain.shape) - 1,
        )
    return errors
