"""Noise inferred from new rows if a model is correct, but its parameters were estimated.

A test of inferred noise against N(0, 1) that ignores the estimation rejects correct models too
often (Lilliefors 1967).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.stats import kstwo, norm
from torch import Tensor, nn
from torch.func import functional_call

from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.metrics.functional import kolmogorov_smirnov_statistic, pearson_correlation
from deepscm_pl.variables import Variables

__all__ = ["NullDistribution", "ParameterUncertainty", "largest_correlation_by_chance"]

_SCORED_ROWS = 2_000
_ROWS_AT_A_TIME = 100
_PRIOR_PRECISION = 30.0
_REPETITIONS = 400
_KOLMOGOROV_95 = 1.3581  # the 95 % quantile of √n·D for large n


class ParameterUncertainty:
    """The sampling distribution of the parameters of a mechanism around their estimates.

    θ ~ N(θ̂, (n·I + 30)⁻¹) with n training rows and the Fisher information I of a row, the mean
    outer product of scores. The 30 is a prior: directions that the data do not determine stay near
    θ̂, as in a training of limited length. With 500 rows each for training and test, the level 0.05
    rejects correct affine flows in 7 % of 300 repetitions and spline flows without networks in 3 %
    of 120, in place of 19 % and 27 % without the correction.

    Args:
        mechanism: A mechanism with an exact log-probability.
        value: The training split, ``(n, 1)``.
        parents: The values of the parents in the training split.
    """

    def __init__(self, mechanism: Mechanism, value: Tensor, parents: Variables) -> None:
        self.mechanism = mechanism
        self._parameters = {n: p for n, p in mechanism.named_parameters() if p.requires_grad}
        some = torch.linspace(0, len(value) - 1, min(len(value), _SCORED_ROWS)).long()
        scores = torch.cat(
            [
                self._scores(value[rows], {name: each[rows] for name, each in parents.items()})
                for rows in some.split(_ROWS_AT_A_TIME)
            ]
        )
        precision = scores.mT @ scores * (len(value) / len(some))
        precision += _PRIOR_PRECISION * torch.eye(len(precision), dtype=precision.dtype)
        self._factor = torch.linalg.cholesky(precision)

    def _scores(self, value: Tensor, parents: Variables) -> Tensor:
        """∂ log p(x | pa) / ∂θ of each row, ``(N, parameters)``."""
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors of the inference mode cannot be saved for gradients; their clones can.
            given = {name: each.clone() for name, each in parents.items()}
            # The density need not depend on every parameter.
            zero = 0 * torch.stack([each.sum() for each in self._parameters.values()]).sum()
            log_prob = self.mechanism.log_prob(value.clone(), given) + zero
            gradients = torch.autograd.grad(
                log_prob,
                list(self._parameters.values()),
                torch.eye(len(log_prob), dtype=log_prob.dtype, device=log_prob.device),
                is_grads_batched=True,
            )
        return torch.cat([each.flatten(1) for each in gradients], dim=1).double().cpu()

    @torch.no_grad()
    def sample_noise(
        self, parents: Variables, rows: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Noise that parameters of another training split infer from rows drawn by the model.

        Args:
            parents: The values of the parents of the new rows.
            rows: Number of new rows.
            generator: Generator of the parameters.
        """
        normal = torch.randn(len(self._factor), 1, dtype=torch.float64, generator=generator)
        change = torch.linalg.solve_triangular(self._factor.mT, normal, upper=True).flatten()
        parts = change.split([each.numel() for each in self._parameters.values()])
        changed = {
            f"of.{name}": each + part.view_as(each).to(each)
            for (name, each), part in zip(self._parameters.items(), parts, strict=True)
        }
        value = self.mechanism(self.mechanism.sample_noise((rows,)), parents)
        noise: Tensor = functional_call(_Abduction(self.mechanism), changed, (value, parents))
        return noise


class _Abduction(nn.Module):
    """Abduction as a forward pass, for :func:`torch.func.functional_call`."""

    def __init__(self, of: Mechanism) -> None:
        super().__init__()
        self.of = of

    def forward(self, value: Tensor, parents: Variables) -> Tensor:
        return self.of.abduct(value, parents)["u"]


@dataclass(frozen=True)
class NullDistribution:
    """Statistics of the noise of a correct model with estimated parameters, by simulation.

    Attributes:
        statistics: Kolmogorov–Smirnov statistics against N(0, 1).
        correlation: The 95 % quantile of the largest correlation with parents; None without any.
    """

    statistics: Tensor
    correlation: float | None

    @classmethod
    def of(
        cls, model: ModelOnData, name: str, rows: Tensor, parents: Mapping[str, Tensor]
    ) -> NullDistribution:
        """Simulate the noise of some test rows, with the seed 0.

        Args:
            model: The model, with its training split.
            name: The variable.
            rows: Numbers of the test rows, ``(m,)``.
            parents: Values ``(m, 1)`` of the parents for the correlations.
        """
        scm = model.scm
        device, dtype, causes = scm.fitted.device, scm.dtype, scm.graph.parents[name]
        trained = {n: model.training[n].to(device, dtype) for n in (name, *causes)}
        uncertainty = ParameterUncertainty(scm[name], trained.pop(name), trained)
        given = {cause: model.variables[cause][rows].to(device, dtype) for cause in causes}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            noises = [uncertainty.sample_noise(given, len(rows)).cpu() for _ in range(_REPETITIONS)]
        # As of the test rows, infinite noise of impossible values is left out.
        finite = [noise.isfinite().all(dim=1) for noise in noises]
        kept = [noise[rows] for noise, rows in zip(noises, finite, strict=True)]
        statistics = torch.stack([kolmogorov_smirnov_statistic(noise.flatten()) for noise in kept])
        correlation = None
        if parents:
            columns = torch.cat(list(parents.values()), dim=1)
            largest = [
                pearson_correlation(noise, columns[rows]).abs().max()
                for noise, rows in zip(kept, finite, strict=True)
            ]
            correlation = float(torch.stack(largest).nan_to_num().quantile(0.95))
        return cls(statistics, correlation)

    def p_value(self, statistic: float) -> float:
        """The probability of a statistic at least as large.

        It is that of the Kolmogorov distribution with the number of rows that has the simulated
        95 % quantile: accurate at that level, and not limited by the number of simulations.
        """
        quantile = float(self.statistics.quantile(0.95))
        rows = max(1, round((_KOLMOGOROV_95 / quantile) ** 2))
        return float(kstwo.sf(statistic, rows))


def largest_correlation_by_chance(rows: int, count: int, trained: int = 0) -> float | None:
    """The 95 % quantile of the largest of ``count`` correlations of independent numbers.

    A correlation of m pairs is about N(0, 1/m); the estimation from n rows adds a variance of 1/n.

    Args:
        rows: m.
        count: How many correlations; without any, the result is None.
        trained: n, 0 if unknown.
    """
    if count == 0:
        return None
    variance = 1 / rows + (1 / trained if trained else 0)
    single = 0.95 ** (1 / count)
    return min(1.0, float(norm.ppf((1 + single) / 2)) * variance**0.5)
