"""Rows with known noise, whose potential outcomes are computed under any intervention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checks import real_number, seed_number, whole_number
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.interventions import parse_do
from deepscm_pl.observed import read_observed
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Noise, Variable, Variables

__all__ = [
    "Columns",
    "EffectQuestion",
    "EffectSettings",
    "Model",
    "Trained",
    "Units",
    "ensemble_of",
    "read_do",
]

_NUMBERS = 2**20
"""Numbers in the values of a batch of units, at most."""
_UNITS = 2**14
"""Units of a batch, at most."""

Columns: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Quantities of each row, ``(N,)``, by name."""


class Trained(Protocol):
    """A trained model, such as :class:`~deepscm_pl.checkpoints.TrainedModel`."""

    @property
    def ensemble(self) -> Ensemble:
        """The models."""


Model: TypeAlias = StructuralCausalModel | Ensemble | Trained
"""A model, or several that answer together."""


@dataclass(frozen=True)
class Units:
    """Rows with known noise; each row of each particle is a unit.

    Attributes:
        scm: The model.
        factual: Values without an intervention, ``(U, *event)``.
        noise: The noise of every variable, ``(U, *event)``.
        particles: P, number of particles of each row; U = P · N, particle by particle.
    """

    scm: StructuralCausalModel
    factual: Variables
    noise: Mapping[str, Noise]
    particles: int = 1

    @classmethod
    def drawn(cls, scm: StructuralCausalModel, size: int) -> Units:
        """Draw ``size`` rows from the model.

        Example:
            >>> from deepscm_pl.mechanisms import AffineFlow
            >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
            >>> Units.drawn(scm, 5).under({"a": 2.0})["a"].flatten().tolist()
            [2.0, 2.0, 2.0, 2.0, 2.0]
        """
        noise = {name: scm[name].sample_noise((size,)) for name in scm.graph}
        return cls(scm, scm.predict(noise), noise)

    @classmethod
    def observed(
        cls,
        scm: StructuralCausalModel,
        factual: Variables,
        particles: int = 1,
        resample: int | None = None,
    ) -> Units:
        """Infer the noise of observed rows, ``(N, *event)`` for each variable.

        The other arguments are those of :meth:`StructuralCausalModel.abduct`. Missing values, NaN,
        are inferred for each particle.

        Raises:
            ValueError: If a variable is missing or outside of its domain.
        """
        values = {name: factual[name].to(scm.dtype) for name in scm.graph if name in factual}
        repeated = {name: _repeated(value, particles) for name, value in values.items()}
        if scm.is_incomplete(values):  # each particle has its own inferred values
            inferred = scm.infer_missing(values, particles, resample)
            repeated |= {
                name: value.flatten(0, 1)
                for name, value in inferred.items()
                if value.dim() > values[name].dim()
            }
            found = scm.abduct(repeated, 1, resample)
        else:
            found = scm.abduct(values, particles, resample)
        noise = {
            name: {key: part.flatten(0, 1) for key, part in parts.items()}
            for name, parts in found.items()
        }
        return cls(scm, repeated, noise, particles)

    @property
    def count(self) -> int:
        """U, the number of units."""
        return len(next(iter(self.factual.values())))

    def under(self, do: Do | None) -> Variables:
        """Values of every variable under an intervention, ``(U, *event)``; None for none.

        Raises:
            ValueError: If the intervention is not valid.
        """
        if not do:
            return self.factual
        rows = self.count // self.particles
        repeated = {
            name: _repeated(value, self.particles)
            if isinstance(value, Tensor) and value.dim() > 1 and len(value) == rows
            else value
            for name, value in do.items()
        }
        return self.scm.answer(self.factual, self.noise, repeated)

    def mixed(self, other: Units, own: Iterable[str]) -> Variables:
        """Values from own noise of some variables, and the noise of other units of all others."""
        kept = set(own)
        return self.scm.predict({n: (self if n in kept else other).noise[n] for n in self.noise})

    def taken(self, units: Tensor) -> Units:
        """The units of some indices, each with one particle."""
        return replace(
            self,
            factual={name: value[units] for name, value in self.factual.items()},
            noise={
                name: {key: part[units] for key, part in parts.items()}
                for name, parts in self.noise.items()
            },
            particles=1,
        )

    def mean(self, values: Tensor) -> Tensor:
        """The mean over particles of a number of each unit ``(U,)``: one of each row, ``(N,)``."""
        return values.double().view(self.particles, -1).mean(dim=0)


def _repeated(value: Tensor, times: int) -> Tensor:
    return value if times == 1 else value.repeat(times, *[1] * (value.dim() - 1))


@dataclass(frozen=True)
class EffectSettings:
    """Settings of every question about effects.

    Args:
        rows: Number of rows that are drawn from each model, if there are no observations.
        num_particles: Draws for each observation of the noise that it does not determine.
        resample: Candidates of latents; see :meth:`StructuralCausalModel.abduct`.
        seed: Seed of all random numbers.
        level: Probability of the intervals.
        replicates: Number of bootstrap replicates of an interval.

    Raises:
        ValueError: If a setting is out of bounds.
    """

    rows: int = 10_000
    num_particles: int = 1
    resample: int | None = None
    seed: int = 0
    level: float = 0.95
    replicates: int = 1000

    def __post_init__(self) -> None:
        whole_number("rows", self.rows, least=2)
        whole_number("num_particles", self.num_particles, least=1)
        if self.resample is not None:
            whole_number("resample", self.resample, least=2)
        seed_number("seed", self.seed)
        real_number("level", self.level, above=0, below=1)
        whole_number("replicates", self.replicates, least=20)


@dataclass(frozen=True)
class EffectQuestion:
    """Models and the rows that a question is about.

    Attributes:
        ensemble: The models, of only those variables that the question needs.
        settings: The settings.
        observed: Observations ``(N, *event)``; None to draw rows from each model.
        labels: Labels of the observations, if they are of a data frame.
    """

    ensemble: Ensemble
    settings: EffectSettings
    observed: Variables | None = None
    labels: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        names: Iterable[str],
        settings: EffectSettings | None,
        observed: Any = None,
    ) -> EffectQuestion:
        """Ask about some variables and their causes.

        Args:
            model: The model, or several.
            names: The variables.
            settings: The settings; None for the default ones.
            observed: Observations of them and their causes, as of
                :func:`~deepscm_pl.observed.read_observed`; None to draw rows.

        Raises:
            ValueError: If a variable is unknown, or the observations are not valid or have no rows.
        """
        ensemble = ensemble_of(model)
        wanted = list(dict.fromkeys(names))
        members = [member.restrict(wanted) for member in ensemble.members]
        weights = [weight for weight in ensemble.weights if weight > 0]
        kept = [m for m, weight in zip(members, ensemble.weights, strict=True) if weight > 0]
        values, labels = None, None
        if observed is not None:
            found = read_observed(observed, kept[0].variables, kept[0].dtype, _read_image, True)
            values = {name: value.to(kept[0].dtype) for name, value in found.values.items()}
            labels = None if found.index is None else [str(each) for each in found.index]
            kept[0].check(values)
        return cls(Ensemble(kept, weights), settings or EffectSettings(), values, labels)

    @property
    def scm(self) -> StructuralCausalModel:
        """The first model."""
        return self.ensemble.members[0]

    def row_names(self, given: Sequence[str] | None = None) -> list[str]:
        """Names of the rows: those given, the labels of the observations, or numbers from 0."""
        return list(given or self.labels or map(str, range(self.rows)))

    @property
    def is_drawn(self) -> bool:
        """Whether rows are drawn from the models."""
        return self.observed is None

    @property
    def rows(self) -> int:
        """Number of rows."""
        if self.observed is None:
            return self.settings.rows
        return len(next(iter(self.observed.values())))

    def units(self, scm: StructuralCausalModel, first: int, count: int) -> Units:
        """The units of some rows of one model."""
        if self.observed is None:
            return Units.drawn(scm, count)
        some = {name: value[first : first + count] for name, value in self.observed.items()}
        return Units.observed(scm, some, self.settings.num_particles, self.settings.resample)

    def collect(self, ask: Callable[[Units], Mapping[str, Tensor]], cost: int = 1) -> list[Columns]:
        """Compute numbers for each row with each model.

        Args:
            ask: From units to numbers ``(U,)`` by name; particles are averaged.
            cost: Number of copies of the units that ``ask`` holds at a time.

        Returns:
            Numbers ``(N,)`` by name, for each model.
        """
        parts: list[list[Mapping[str, Tensor]]] = [[] for _ in self.ensemble.members]
        batches = list(self._batches(cost))
        total = len(batches) * len(parts)
        with torch.no_grad(), tqdm(total=total, disable=None, leave=False) as bar:
            for member, scm in enumerate(self.ensemble.members):
                for batch, (first, count) in enumerate(batches):
                    with self.random(batch, member):
                        units = self.units(scm, first, count)
                        found = ask(units)
                        parts[member].append({n: units.mean(each) for n, each in found.items()})
                    bar.update()
        return [
            {name: torch.cat([each[name] for each in some]).cpu().numpy() for name in some[0]}
            for some in parts
        ]

    @contextmanager
    def random(self, *place: int) -> Iterator[None]:
        """Draw from the seed and a place; the state of torch's generator is kept."""
        sequence = np.random.SeedSequence([self.settings.seed, *place])
        with torch.random.fork_rng():
            torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
            yield

    def _batches(self, cost: int) -> Iterator[tuple[int, int]]:
        """The first row and the number of rows of each batch."""
        elements = sum(self.scm[name].domain.features for name in self.scm.graph)
        particles = 1 if self.is_drawn else self.settings.num_particles
        size = max(1, min(_UNITS, _NUMBERS // (elements * cost)) // particles)
        for first in range(0, self.rows, size):
            yield first, min(size, self.rows - first)


def _read_image(path: Path, variable: Variable) -> Tensor:
    from deepscm_pl.data.images import read_image

    return read_image(path, variable.domain.shape)[0]


def ensemble_of(model: Model) -> Ensemble:
    """The models as an ensemble."""
    if isinstance(model, StructuralCausalModel):
        return Ensemble([model])
    return model if isinstance(model, Ensemble) else model.ensemble


def read_do(model: Model, do: Do | str | None) -> Do:
    """An intervention from a text or a mapping; empty for none.

    Raises:
        ValueError: If the text cannot be read, or it is no possible intervention.
    """
    scm = ensemble_of(model).members[0]
    if not do:
        return {}
    found: Do = parse_do(do, scm.variables) if isinstance(do, str) else do
    scm.check_do(found)
    return found
