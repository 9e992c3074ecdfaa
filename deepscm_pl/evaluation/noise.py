"""Calibration of abducted noise against its prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from scipy.stats import kstwo, norm
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import Quantities, by_key, on_one_process
from deepscm_pl.evaluation.fitted_null import ParameterUncertainty, kolmogorov_smirnov_of
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.metrics import NoiseCalibration

__all__ = [
    "NoiseResult",
    "NoiseStatistics",
    "evaluate_noise",
    "largest_correlation_by_chance",
]

_SAMPLE_SIZE = 20_000
_REPETITIONS = 400
_KOLMOGOROV_95 = 1.3581
"""The 95 % quantile of √n·D, for large n."""
_MOST_PARAMETERS = 5_000


@dataclass(frozen=True)
class NoiseStatistics(Quantities):
    """Statistics of noise, see :class:`~deepscm_pl.metrics.NoiseCalibration`.

    The p-value, and the 95 % quantile of the largest correlation with parents of a correct model,
    account for the estimation of the mechanism from the training split, if it is known.
    """

    kolmogorov_smirnov: float | None = None
    p_value: float | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    largest_mean: float | None = field(default=None, metadata={"key": "mean/largest"})
    furthest_deviation: float | None = field(
        default=None, metadata={"key": "standard_deviation/furthest"}
    )
    correlations: Mapping[str, float] = field(default_factory=dict, metadata={"key": "correlation"})
    correlation_by_chance: float | None = None


@dataclass(frozen=True)
class NoiseResult:
    """Abducted noise of one variable, or of a part of it such as ``u`` or ``z``.

    ``entries`` is the number of components for each row. Rows with infinite noise, whose values are
    impossible in the model, are counted as ``left_out``. There are no statistics for fewer than two
    rows. The sample is a part of all values, for a histogram.
    """

    variable: str
    part: str
    rows: int
    left_out: int
    entries: int
    statistics: NoiseStatistics
    sample: Tensor

    @property
    def quantities(self) -> dict[str, float]:
        """All statistics by their keys in JSON, such as ``correlation/age``."""
        return by_key(self.statistics, float)


def evaluate_noise(
    model: ModelOnData, detail_rows: int, batch_size: int = 256, progress: bool = True
) -> list[NoiseResult]:
    """Compare one draw of the abducted noise of every variable with its prior N(0, 1).

    Noise of scalars is inferred from all rows, other noise from the first ``detail_rows``. Only the
    first row of each person is used, as the others are not independent of it. Correlations are with
    the parents in the graphs of the model and of the known world, so that an edge missing in the
    model shows.
    """
    scalars = model.scalars
    others = tuple(name for name in model.scm.graph.nodes if name not in scalars)
    noise = _collect(model, scalars, len(model), batch_size, progress)
    noise |= _collect(model, others, detail_rows, batch_size, progress)
    return [_result(model, name, part, value) for (name, part), value in noise.items()]


def _collect(
    model: ModelOnData, names: tuple[str, ...], rows: int, batch_size: int, progress: bool
) -> dict[tuple[str, str], Tensor]:
    """Noise ``(rows, *event)`` of some variables, by variable and part."""
    collected: dict[tuple[str, str], list[Tensor]] = {}
    scm = model.scm
    with tqdm(
        total=rows, unit="image", desc="noise", disable=None if progress and names else True
    ) as bar:
        for _, factual in model.batches(0, rows if names else 0, batch_size):
            for name in names:
                parents = {parent: factual[parent] for parent in scm.graph.parents[name]}
                noise = scm[name].abduct_recorded(factual[name], parents)
                for part, value in noise.items():
                    collected.setdefault((name, part), []).append(value.cpu())
            bar.update(len(next(iter(factual.values()))))
    return {key: torch.cat(parts) for key, parts in collected.items()}


def _result(model: ModelOnData, name: str, part: str, noise: Tensor) -> NoiseResult:
    causes = set(model.scm.graph.parents[name])
    if model.world is not None and name in model.world.graph:
        causes |= set(model.world.graph.parents[name])
    parents = tuple(cause for cause in model.scalars if cause in causes)
    independent = model.independent_rows(len(noise))
    flat = noise.flatten(1)[independent]
    finite = torch.isfinite(flat).all(dim=1)
    rows, statistics = int(finite.sum()), NoiseStatistics()
    if rows > 1:
        metric = on_one_process(NoiseCalibration(parents), flat.device)
        values = {cause: model.variables[cause].cpu()[independent][finite] for cause in parents}
        metric.update(flat[finite], values)
        found = metric.compute()
        p_value = found["p_value"]
        trained = len(next(iter(model.training.values()), ()))
        by_chance = largest_correlation_by_chance(rows, flat.shape[1] * len(parents), trained)
        if _is_simple(model, name):
            null = _NullDistribution.of(model, name, independent[finite], values)
            p_value, by_chance = null.p_value(found["kolmogorov_smirnov"]), null.correlation
        statistics = NoiseStatistics(
            found["kolmogorov_smirnov"],
            p_value,
            found["mean"],
            found["standard_deviation"],
            found["mean/largest"],
            found["standard_deviation/furthest"],
            {cause: found[f"correlation/{cause}"] for cause in parents},
            by_chance,
        )
    sample = flat[finite].flatten()[:: max(1, flat.numel() // _SAMPLE_SIZE)]
    left_out = len(finite) - rows
    return NoiseResult(name, part, rows, left_out, flat.shape[1], statistics, sample)


def _is_simple(model: ModelOnData, name: str) -> bool:
    """Whether the mechanism has an explicit density, few parameters, and a known training split."""
    parameters = sum(each.numel() for each in model.scm[name].parameters())
    used = {name, *model.scm.graph.parents[name]}
    return used <= model.training.keys() and 0 < parameters <= _MOST_PARAMETERS


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


@dataclass(frozen=True)
class _NullDistribution:
    """Statistics of the noise of a correct model with estimated parameters, by simulation.

    Attributes:
        statistics: Kolmogorov–Smirnov statistics against N(0, 1).
        correlation: The 95 % quantile of the largest correlation with parents; None without any.
    """

    statistics: list[float]
    correlation: float | None

    @classmethod
    def of(
        cls, model: ModelOnData, name: str, rows: Tensor, parents: Mapping[str, Tensor]
    ) -> _NullDistribution:
        """Simulate the noise of test rows, with the seed 0."""
        scm = model.scm
        device, dtype = scm.fitted.device, scm.dtype
        trained = {n: value.to(device, dtype) for n, value in model.training.items()}
        causes = scm.graph.parents[name]
        uncertainty = ParameterUncertainty(
            scm[name], trained[name], {cause: trained[cause] for cause in causes}
        )
        given = {cause: model.variables[cause][rows].to(device, dtype) for cause in causes}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            repeated = [
                uncertainty.sample_noise(given, len(rows)).cpu().double()
                for _ in range(_REPETITIONS)
            ]
        correlations = [_largest_correlation(noise, parents) for noise in repeated]
        quantile = torch.tensor(correlations).quantile(0.95) if parents else None
        return cls(
            [kolmogorov_smirnov_of(noise) for noise in repeated],
            None if quantile is None else float(quantile),
        )

    def p_value(self, statistic: float) -> float:
        """The probability of a statistic at least as large.

        It is that of the Kolmogorov distribution with the number of rows that has the simulated
        95 % quantile: accurate at that level, and not limited by the number of simulations.
        """
        quantile = float(torch.tensor(self.statistics).quantile(0.95))
        rows = max(1, round((_KOLMOGOROV_95 / quantile) ** 2))
        return float(kstwo.sf(statistic, rows))


def _largest_correlation(noise: Tensor, parents: Mapping[str, Tensor]) -> float:
    columns = torch.cat([value.double() for value in parents.values()], dim=1) if parents else None
    if columns is None:
        return 0.0
    standardised = [
        (each - each.mean(dim=0)) / each.std(dim=0, correction=0).clamp(min=1e-12)
        for each in (noise.flatten(1), columns)
    ]
    return float((standardised[0].mT @ standardised[1]).abs().max()) / len(noise)
