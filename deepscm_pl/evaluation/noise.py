"""Calibration of abducted noise against its prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import Quantities, by_key, on_one_process
from deepscm_pl.evaluation.fitted_null import NullDistribution, largest_correlation_by_chance
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.metrics import NoiseCalibration

__all__ = ["NoiseResult", "NoiseStatistics", "evaluate_noise"]

_SAMPLE_SIZE = 20_000
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
            null = NullDistribution.of(model, name, independent[finite], values)
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
