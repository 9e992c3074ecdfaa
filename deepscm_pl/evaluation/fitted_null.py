"""The inferred noise of new rows if a model is right, but its parameters were estimated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.variables import Variables

__all__ = ["ParameterUncertainty"]

_SCORED = 2_000
"""Rows of the training split from which the Fisher information is estimated."""


class ParameterUncertainty:
    """The sampling distribution of a mechanism's parameters, around those that were estimated.

    θ ~ N(θ̂, (n·I + 1)⁻¹) with the number n of training rows and the Fisher information I of a row,
    the mean of outer products of scores. The 1 is a unit prior: directions that the data do not
    determine stay near θ̂, as they do in a training of limited length.

    Args:
        mechanism: With an exact log-probability.
        value: The training split, ``(N, 1)``.
        parents: Of the training split.
    """

    def __init__(self, mechanism: Mechanism, value: Tensor, parents: Variables) -> None:
        self.mechanism = mechanism
        self._parameters = {n: p for n, p in mechanism.named_parameters() if p.requires_grad}
        rows = len(value)
        some = torch.arange(rows)
        if rows > _SCORED:
            some = torch.linspace(0, rows - 1, _SCORED).long()
        scores = self._scores(value[some], {n: each[some] for n, each in parents.items()})
        information = scores.mT @ scores * (rows / len(some))
        precision = information + torch.eye(len(information), dtype=information.dtype)
        # δ = L⁻ᵀ e with precision L·Lᵀ has the covariance of its inverse.
        self._factor = torch.linalg.cholesky(precision)

    def _scores(self, value: Tensor, parents: Variables) -> Tensor:
        """∂ log p(x | pa) / ∂θ of each row, ``(N, parameters)``, in double precision."""
        with torch.enable_grad():
            log_prob = self.mechanism.log_prob(value, parents)
            columns = torch.autograd.grad(
                log_prob,
                list(self._parameters.values()),
                torch.eye(len(log_prob), dtype=log_prob.dtype, device=log_prob.device),
                is_grads_batched=True,
            )
        return torch.cat([each.flatten(1) for each in columns], dim=1).double().cpu()

    @torch.no_grad()
    def noise(
        self, parents: Variables, rows: int, count: int, generator: torch.Generator
    ) -> Tensor:
        """Noise inferred from rows that the model draws, by parameters of another training split.

        Args:
            parents: Of the new rows, ``(m, *event)`` each.
            rows: m.
            count: How many repetitions.
            generator: Of the parameters.

        Returns:
            ``(count, m, *noise)``.
        """
        return torch.stack([self._repetition(parents, rows, generator) for _ in range(count)])

    def _repetition(self, parents: Variables, rows: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(len(self._factor), 1, dtype=torch.float64, generator=generator)
        change = torch.linalg.solve_triangular(self._factor.mT, normal, upper=True).flatten()
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        changed = {
            name: parameter + part.view_as(parameter).to(parameter)
            for (name, parameter), part in zip(
                self._parameters.items(), change.split(sizes), strict=True
            )
        }
        value = self.mechanism(self.mechanism.sample_noise((rows,)), parents)
        weights = {f"of.{name}": parameter for name, parameter in changed.items()}
        found: Tensor = functional_call(_Abduct(self.mechanism), weights, (value, parents))
        return found


class _Abduct(torch.nn.Module):
    """Abduction as the forward pass, for :func:`torch.func.functional_call`."""

    def __init__(self, of: Mechanism) -> None:
        super().__init__()
        self.of = of

    def forward(self, value: Tensor, parents: Variables) -> Tensor:
        return self.of.abduct(value, parents)["u"]
