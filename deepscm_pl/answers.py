"""Answers of a model: mappings of tensors with a text, a table and a picture."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.changes import NOISE, ChangedVariable, Changes, Summary, affected_by, as_lines
from deepscm_pl.checks import real_number
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.escaping import for_terminal
from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.interventions import format_do
from deepscm_pl.moments import Moments
from deepscm_pl.observed import Observed
from deepscm_pl.overlap import VERDICTS, Overlap, OverlapEstimator, describe_overlap
from deepscm_pl.scm import summarise
from deepscm_pl.variables import Do, Variable, common_shape

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Answer", "AnsweredQuestion", "as_decimals"]

_SHOWN_DOS, _SHOWN_VARIABLES = 5, 20
_DRAWN_ROWS = 8
_FEW_ANSWERS = 5_000
"""Answers whose overlap the text describes without having been asked for it."""
_RANGE = 255.0


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question to a model, and what is needed to describe its answer.

    Attributes:
        kind: The rung: ``"sample"``, ``"intervene"`` or ``"counterfactual"``.
        dos: The interventions; none for samples.
        is_single: Whether the answer has no dimension of interventions.
        ensemble: The models that answer.
        calibration: The calibration of intervals of images; None if they are unknown.
        observed: The observations of counterfactuals; None for draws.
    """

    kind: Literal["sample", "intervene", "counterfactual"]
    dos: Sequence[Do]
    is_single: bool
    ensemble: Ensemble
    calibration: Calibration | None = None
    observed: Observed | None = None

    @property
    def variables(self) -> Mapping[str, Variable]:
        """The variables of the model."""
        return self.ensemble.variables


@dataclass(frozen=True, repr=False, eq=False)
class Answer(Mapping[str, Tensor]):
    """The answer to a question: a mapping from variables to tensors, in the order of the graph.

    ======================  =====================================================================
    question                shape of each tensor
    ======================  =====================================================================
    ``sample``              ``(n, *event)``
    ``intervene``           ``(n, *event)``, ``(K, n, *event)`` for K interventions
    ``counterfactual``      ``(P, *batch, *event)``, ``(P, K, *batch, *event)`` for K interventions
    ======================  =====================================================================

    P is the number of particles: draws of the noise that an observation does not determine.
    Printing an answer shows the variables that the question affects, in units and names of classes.

    Args:
        tensors: The values, without gradients.
        question: The question.
        has_draws: Whether there is a dimension of draws or particles; :meth:`mean` and
            :meth:`interval` have none.
        is_change: Whether the values are differences; see :attr:`change`.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> from deepscm_pl.scm import StructuralCausalModel
        >>> mechanisms = {"dose": AffineFlow, "effect": AffineFlow}
        >>> scm = StructuralCausalModel("dose -> effect", mechanisms)
        >>> factual = {"dose": torch.tensor([[1.0]]), "effect": torch.tensor([[2.0]])}
        >>> values = scm.counterfactual(factual, {"dose": 3.0})
        >>> observed = Observed(factual, ["dose", "effect"])
        >>> question = AnsweredQuestion(
        ...     "counterfactual", [{"dose": 3.0}], True, Ensemble([scm]), observed=observed
        ... )
        >>> Answer(values, question).to_frame()
           dose  effect  dose_change  effect_change
        0   3.0     2.0          2.0            0.0
    """

    tensors: Mapping[str, Tensor]
    question: AnsweredQuestion
    has_draws: bool = True
    is_change: bool = False
    _overlaps: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", {n: v.detach() for n, v in self.tensors.items()})

    def __getitem__(self, name: str) -> Tensor:
        """Return the values of a variable."""
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of variables."""
        return iter(self.tensors)

    def __len__(self) -> int:
        """The number of variables."""
        return len(self.tensors)

    # Views

    @property
    def factual(self) -> Mapping[str, Tensor] | None:
        """The observations of a counterfactual, ``(*batch, *event)``; None for draws."""
        observed = self.question.observed
        return None if observed is None else observed.values

    @property
    def inferred(self) -> dict[str, Tensor]:
        """Where values of the observations were missing, and are inferred: ``(*batch,)``, by name.

        The values of the answer are then draws from their posterior, one for each particle.
        """
        factual = self.factual or {}
        scalars = {n: v for n, v in factual.items() if self._variable(n).domain.shape == (1,)}
        return {n: v.isnan()[..., 0] for n, v in scalars.items() if bool(v.isnan().any())}

    @property
    def affected(self) -> list[str]:
        """The variables that an intervention sets, changes or affects, in order of the graph."""
        graph = self.question.ensemble.graph
        names = {name for do in self.question.dos for name in affected_by(graph, do)}
        return [name for name in self.tensors if name in names]

    @property
    def change(self) -> Answer:
        """The differences from the factual values, of the numbers and images that are affected.

        Classes have no differences and are left out. Shapes are those of the answer.

        Raises:
            ValueError: If the answer is not a counterfactual.
        """
        factual = self._observations("change")
        found = {}
        for name in self.affected:
            domain = self._variable(name).domain
            if domain.categories is None:
                value = self.tensors[name]
                found[name] = value - factual[name].to(value)
        return replace(self, tensors=found, is_change=True)

    @property
    def images(self) -> dict[str, NDArray[Any]]:
        """The images of each variable, for pictures.

        Grey levels are bytes ``(…, H, W)``, colours ``(…, H, W, 3)``, and volumes ``(…, X, Y, Z)``,
        with the leading dimensions of the tensors. Differences are floating-point numbers.
        """
        return {
            name: _as_images(value, len(self._variable(name).domain.shape), not self.is_change)
            for name, value in self.tensors.items()
            if len(self._variable(name).domain.shape) > 1
        }

    def mean(self) -> Answer:
        """Average over particles, or over the draws of a sample, and remove their dimension.

        A class is the most frequent one.
        """
        if not self.has_draws:
            return self
        return self._reduced({n: self._mean_of(n, self._draws(n)) for n in self.tensors})

    def interval(self, level: float = 0.9) -> tuple[Answer, Answer]:
        """Return the lower and the upper end of intervals of numbers and images.

        The ends are quantiles of the particles or draws. Those of images are the mean of the
        particles less and plus the calibrated half-width, if the model is calibrated for ``level``.
        Particles of a single model share its error, so that quantiles are a lower bound of the
        uncertainty. Classes have no intervals and are left out.

        Args:
            level: The share of the distribution inside.

        Raises:
            ValueError: If there are fewer than two particles, or the level is not between 0 and 1.
        """
        real_number("level", level, above=0, below=1)
        count = self._grid(next(iter(self.tensors))).shape[0] if self.has_draws else 1
        if count < 2:
            raise ValueError(
                f"interval: expected at least 2 particles, but got {count}; ask with "
                "num_particles=20 or more."
            )
        ends: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        for name, value in self.tensors.items():
            if self._variable(name).domain.categories is not None:
                continue
            pair = self._calibrated(name, level) or _quantiles(self._draws(name), level)
            for end, found in zip(ends, pair, strict=True):
                end[name] = found.to(value)
        return self._reduced(ends[0]), self._reduced(ends[1])

    @property
    def titles(self) -> list[str]:
        """The titles of the interventions, with units: ``do(age = 80 years)``."""
        return [self._title(do) for do in self._all_dos()]

    @property
    def overlap(self) -> list[Overlap] | None:
        """The distance of the answers from the training data, for each intervention.

        Each has the verdicts on the observations, or on the draws, without quantiles; that of an
        observation is the worst one over particles. None for samples, differences and models
        without a training distribution.
        """
        if not self._overlaps:
            self._overlaps.append(self._estimate_overlap())
        found: list[Overlap] | None = self._overlaps[0]
        return found

    def to_frame(self, images: bool = False, overlap: bool = True) -> pd.DataFrame:
        """Make a table with a row for each observation, intervention and particle, or draw.

        It has the index and the columns of the observations; names of classes as texts; for each
        number that is affected, a column ``<name>_change``; and a column ``overlap``. If there are
        several interventions, particles or models, columns ``intervention``, ``particle`` and
        ``member`` distinguish them. Numbers are the shortest decimals of their single precision.

        Args:
            images: Whether to add images, as arrays.
            overlap: Whether to add the overlap, which takes some seconds for 100,000 rows.
        """
        import pandas as pd

        draws, interventions, rows = self._sizes()
        k, n, d = (each.flatten() for each in np.indices((interventions, rows, draws)))
        observed = self.question.observed
        table: dict[str, Any] = {}
        if not self.question.is_single or interventions > 1:
            titles = self.titles
            table["intervention"] = [titles[each] for each in k]
        if observed is not None and draws > 1:
            table["particle"] = d
        if self.has_draws and len(self.question.ensemble.members) > 1:
            table["member"] = 1 + self.question.ensemble.member_of(draws).numpy()[d]
        columns = [] if observed is None else list(observed.columns)
        for name in dict.fromkeys([*columns, *self.tensors]):
            if observed is not None and name in observed.others:
                others = pd.Series(_as_cells(observed.others[name]))
                table[name] = others.take(n).array
            elif name in self.tensors:
                self._add_column(table, name, (d, k, n), images)
        if self.factual is not None and self.has_draws and not self.is_change:
            for name in self.change:
                if len(self._variable(name).domain.shape) == 1:
                    after = self._decimals(self._grid(name)[d, k, n, 0])
                    before = self._decimals(self._factual_rows(name)[n, 0])
                    table[f"{name}_change"] = _differences(before, after)
        is_answer = self.has_draws and not self.is_change
        if overlap and is_answer and self.overlap is not None:
            drawn = n if observed is not None else d
            verdicts = np.stack([each.verdict.flatten().numpy() for each in self.overlap])
            table["overlap"] = np.array(VERDICTS, dtype=object)[verdicts[k, drawn]]
        frame = pd.DataFrame(table, index=range(len(k)))
        if observed is not None and observed.index is not None:
            frame.index = pd.Index(observed.index).take(n)
        else:
            frame.index = pd.Index(n if observed is not None else d if draws > 1 else k)
        return frame

    def plot(self) -> Figure:
        """Draw the first images in a grid, or else the densities or the changes of the numbers.

        Images of counterfactuals are means over particles, with signed differences from the
        factual ones.

        Raises:
            ValueError: If there is neither an image nor a number.
        """
        if any(len(self._variable(name).domain.shape) > 1 for name in self.tensors):
            return self._plot_images()
        return self._plot_numbers()

    def _plot_images(self) -> Figure:
        from deepscm_pl.figures import ImageColumn, captions, draw_grid

        name = next(n for n in self.tensors if len(self._variable(n).domain.shape) > 1)
        scm = self.question.ensemble.members[0]
        columns = []
        _, interventions, rows = self._sizes()
        labels = [f"draw {k}" for k in range(_DRAWN_ROWS)]
        if self.factual is not None:
            labels = [self._row(k) for k in range(min(rows, _DRAWN_ROWS))]
            shown = {n: self._factual_rows(n)[:_DRAWN_ROWS] for n in self.question.variables}
            columns.append(ImageColumn("factual", shown[name].float(), captions(scm, shown)))
        means = self.mean() if self.factual is not None else self
        for k, title in zip(range(interventions), self.titles, strict=True):
            if self.factual is not None:
                values = {n: means._grid(n)[0, k, :_DRAWN_ROWS] for n in means}
            else:
                values = {n: means._grid(n)[:_DRAWN_ROWS, k, 0] for n in means}
            texts = captions(scm, values) if len(values) == len(scm.graph.nodes) else ()
            columns.append(ImageColumn(title, values[name].float(), texts))
        has_reference = self.factual is not None and not self.is_change
        count = len(columns[0].images)
        return draw_grid(columns, labels[:count], differences=has_reference)

    def _plot_numbers(self) -> Figure:
        from deepscm_pl.figures.changes import ValuesPanel, draw_values

        has_reference = self.factual is not None and not self.is_change
        names = self.affected if has_reference else list(self.tensors)
        _, _, rows = self._sizes()
        panels = []
        for name in names:
            variable, grid = self._variable(name), self._grid(name)
            columns = {title: grid[:, k, :, 0] for k, title in enumerate(self.titles)}
            if has_reference:
                columns = {"factual": self._factual_rows(name)[None, :, 0], **columns}
            elif self.factual is None:
                columns = {title: each.T for title, each in columns.items()}
            is_class = variable.domain.categories is not None
            classes = [variable.format(float(c)) for c in range(variable.domain.categories or 0)]
            label = variable.spoken if is_class else variable.label
            panels.append(ValuesPanel(label, columns, classes))
        labels = [self._row(k) for k in range(rows)] if self.factual is not None else ()
        return draw_values(panels, labels)

    def _row(self, number: int) -> str:
        """A short label of an observation."""
        index = None if self.question.observed is None else self.question.observed.index
        return f"row {number}" if index is None else str(index[number])

    # Text

    def __repr__(self) -> str:
        """Describe the answer: the question, and what it changes."""
        return "\n".join([self._heading(), *self._sections(_as_text), *self._footer()])

    def _repr_html_(self) -> str:
        """Describe the answer as HTML, for notebooks."""
        footer = "".join(f"<p>{html.escape(line)}</p>" for line in self._footer())
        body = "".join(self._sections(_as_html))
        return f"<p><b>{html.escape(self._heading())}</b></p>{body}{footer}"

    def _heading(self) -> str:
        draws, interventions, rows = self._sizes()
        parts = []
        if self.factual is not None:
            parts.append(_count(rows, "observation"))
        if self.has_draws and (draws > 1 or self.factual is None):
            parts.append(_count(draws, "particle" if self.factual is not None else "draw"))
        if interventions > 1:
            parts.append(_count(interventions, "intervention"))
        if len(self.question.ensemble.members) > 1:
            parts.append(_count(len(self.question.ensemble.members), "model"))
        names = {
            "sample": "Sample",
            "intervene": "Intervention",
            "counterfactual": "Counterfactual",
        }
        kind = f"Change ({self.question.kind})" if self.is_change else names[self.question.kind]
        return f"{kind}: {', '.join(parts)}" if parts else kind

    def _sections(self, form: Any) -> Iterator[str]:
        titles = self.titles
        for k, title in enumerate(titles[:_SHOWN_DOS]):
            rows, headings = self._table(k)
            if not rows:
                title = f"{title} changes nothing"
            yield form(title if self.question.dos else "", rows[:_SHOWN_VARIABLES], headings)
            if len(rows) > _SHOWN_VARIABLES:
                yield f"… and {len(rows) - _SHOWN_VARIABLES} more variables"
        if len(titles) > _SHOWN_DOS:
            yield f"… and {len(titles) - _SHOWN_DOS} more interventions"

    def _table(self, k: int) -> tuple[list[ChangedVariable], tuple[str, str, str, str]]:
        """The lines about one intervention, and their headings."""
        names = list(self.tensors)
        if self.factual is not None:
            affected = affected_by(self.question.ensemble.graph, self._all_dos()[k])
            names = [name for name in names if name in affected]
        grids = {name: self._grid(name)[:, k] for name in names}
        variables = self.question.variables
        _, _, rows = self._sizes()
        if self.factual is None or self.is_change:
            several = math.prod(next(iter(grids.values())).shape[:2]) > 1 if grids else False
            values = {name: value.flatten(0, 1) for name, value in grids.items()}
            headings = ("variable", "", "mean" if several else "value", "90 %" if several else "")
            return list(Summary(variables, list(grids)).lines(values)), headings
        changes = Changes(variables, names)
        factual = {name: self._factual_rows(name) for name in changes.names}
        changes.add(factual, grids, rows)
        means = "" if rows == 1 else " (means)"
        return changes.lines(), ("variable", f"factual{means}", f"counterfactual{means}", "change")

    def _footer(self) -> Iterator[str]:
        few = math.prod(self._sizes()) <= _FEW_ANSWERS or bool(self._overlaps)
        if self.has_draws and not self.is_change and few and self.overlap is not None:
            scm = self.question.ensemble.members[0]
            for do, found in list(zip(self._all_dos(), self.overlap, strict=True))[:_SHOWN_DOS]:
                sentence = describe_overlap(scm, do, found.counts())
                if sentence:
                    yield for_terminal(f"{sentence}.")
        if self.has_draws and self.inferred:
            counts = [f"{name} of {int(mask.sum())}" for name, mask in self.inferred.items()]
            yield for_terminal(f"Missing values are inferred: {', '.join(counts)} observations.")
        shapes = {n: tuple(v.shape) for n, v in self.tensors.items()}
        yield "Shapes: " + ", ".join(f"{n} {shape}" for n, shape in shapes.items())

    # Dimensions

    def _variable(self, name: str) -> Variable:
        return self.question.variables[name]

    def _observations(self, what: str) -> Mapping[str, Tensor]:
        if self.factual is None:
            raise ValueError(
                f"{what}: expected a counterfactual, which has observations to compare with, but "
                f"got the answer of {self.question.kind}; compare two of these."
            )
        return self.factual

    def _regular(self, value: Tensor, name: str) -> Tensor:
        """Values as ``(draws, interventions, observations, *event)``."""
        event = self._variable(name).domain.shape
        batch = value.shape[: value.dim() - len(event)]
        if self.factual is None:  # (*interventions, n)
            draws = batch[-1] if self.has_draws else 1
            return value.reshape(-1, draws, *event).transpose(0, 1)[:, :, None]
        draws = batch[0] if self.has_draws else 1
        rows = math.prod(self._batch)
        return value.reshape(draws, -1, rows, *event) if value.numel() else value

    def _grid(self, name: str) -> Tensor:
        return self._regular(self.tensors[name], name).cpu()

    def _draws(self, name: str) -> Tensor:
        """Values with the draws first, ``(draws, *others, *event)``."""
        value = self.tensors[name]
        if self.factual is not None:
            return value
        return value.movedim(value.dim() - len(self._variable(name).domain.shape) - 1, 0)

    def _sizes(self) -> tuple[int, int, int]:
        """The numbers of draws, interventions and observations."""
        if not self.tensors:
            return 1, len(self.question.dos), math.prod(self._batch)
        return tuple(self._grid(next(iter(self.tensors))).shape[:3])  # type: ignore[return-value]

    @cached_property
    def _batch(self) -> torch.Size:
        """The dimensions of the observations."""
        factual = self.factual or {}
        shapes = [self._variable(n).domain.batch_shape(value) for n, value in factual.items()]
        return common_shape(*shapes) if shapes else torch.Size()

    def _factual_rows(self, name: str) -> Tensor:
        """The observations of a variable, ``(N, *event)``."""
        event = self._variable(name).domain.shape
        value = self._observations("factual")[name]
        return value.expand(*self._batch, *event).reshape(-1, *event).cpu()

    def _all_dos(self) -> list[Do]:
        """The interventions, one for each that a tensor with leading dimensions stands for."""
        dos = list(self.question.dos) or [{}]
        _, interventions, _ = self._sizes()
        each = interventions // len(dos)
        if each == 1:
            return dos
        return [_part(do, k, each) for do in dos for k in range(each)]

    def _title(self, do: Do) -> str:
        return format_do(do, self.question.variables) if self.question.dos else "sample"

    def _reduced(self, tensors: Mapping[str, Tensor]) -> Answer:
        return replace(self, tensors=tensors, has_draws=False)

    # Numbers

    def _mean_of(self, name: str, draws: Tensor) -> Tensor:
        """The mean over the first dimension, or the most frequent class."""
        categories = self._variable(name).domain.categories
        if categories is None:
            return summarise(draws if draws.is_floating_point() else draws.float())[0]
        counts = torch.stack([(draws == k).sum(dim=0) for k in range(categories)])
        return counts.argmax(dim=0).to(draws.dtype)

    def _calibrated(self, name: str, level: float) -> tuple[Tensor, Tensor] | None:
        """The calibrated interval of an image; None if there is none."""
        calibration = self.question.calibration
        is_image = len(self._variable(name).domain.shape) > 1
        if calibration is None or not math.isclose(calibration.level, level):
            return None
        if self.factual is None or self.is_change or not is_image:
            return None
        grid, factual = self._grid(name), self._factual_rows(name).float()
        pairs = []
        for k, do in enumerate(self._all_dos()):
            moments = Moments.of(grid[:, k])
            width = calibration.half_width(self._title(do), tuple(do), moments, factual)
            pairs.append((moments.mean - width, moments.mean + width))
        shape = self._draws(name).shape[1:]
        low, high = (
            torch.stack(each).reshape(shape).clamp(0, _RANGE) for each in zip(*pairs, strict=True)
        )
        return low, high

    def _estimate_overlap(self) -> list[Overlap] | None:
        scm = self.question.ensemble.members[0]
        is_known = scm.training_distribution.is_known and any(self.question.dos)
        if not is_known or self.is_change or not self.has_draws:
            return None
        estimator = OverlapEstimator(scm)
        found = []
        for k, do in enumerate(self._all_dos()):
            values = {
                name: self._grid(name)[:, k].to(scm.dtype)
                for name in self.tensors
                if self._variable(name).domain.shape == (1,)
            }
            overlap = estimator.estimate(values, do, quantiles=False)
            found.append(overlap.worst() if self.factual is not None else overlap)
        return found

    def _decimals(self, values: Tensor) -> NDArray[np.float64]:
        """Numbers by their shortest decimals in the precision of the model."""
        return as_decimals(values.to(self.question.ensemble.members[0].dtype).numpy())

    def _add_column(
        self, table: dict[str, Any], name: str, places: tuple[Any, ...], images: bool
    ) -> None:
        variable, grid = self._variable(name), self._grid(name)
        if len(variable.domain.shape) > 1:
            if images:
                arrays = _as_images(grid, len(variable.domain.shape), not self.is_change)
                column = np.empty(len(places[0]), dtype=object)
                column[:] = list(arrays[places])
                table[name] = column
            return
        values = grid[places][:, 0].numpy()
        if variable.classes:
            names = np.array(variable.classes, dtype=object)
            table[name] = names[values.astype(np.int64)]
        elif variable.domain.categories is not None:
            table[name] = values.astype(np.int64)
        else:
            table[name] = self._decimals(grid[places][:, 0])


def as_decimals(values: NDArray[Any]) -> NDArray[np.float64]:
    """Convert numbers to double precision by their shortest decimals: 37.6 stays 37.6.

    Example:
        >>> as_decimals(np.array([37.6], np.float32)), float(np.float32(37.6))
        (array([37.6]), 37.599998474121094)
    """
    if values.dtype != np.float32:
        return values.astype(np.float64)
    found: NDArray[np.float64] = values.astype(str).astype(np.float64)
    return found


def _differences(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`~deepscm_pl.changes.without_noise` of arrays."""
    change, largest = after - before, np.maximum(np.abs(before), np.abs(after))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** np.clip(6 - np.floor(np.log10(largest)), -30, 30)
    rounded = np.where(largest > 0, np.rint(change * scale) / scale, change)
    return np.where(np.abs(change) <= NOISE * largest, 0.0, rounded)


def _quantiles(draws: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """The quantiles around ``level`` over the first dimension, interpolated."""
    ordered = (
        draws.sort(dim=0).values if draws.is_floating_point() else draws.float().sort(0).values
    )

    def at(share: float) -> Tensor:
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below].lerp(ordered[above], place - below)

    return at((1 - level) / 2), at((1 + level) / 2)


def _as_images(values: Tensor, dimensions: int, as_bytes: bool) -> NDArray[Any]:
    """Images ``(…, C, *sizes)`` without their channel, or with colours last."""
    found = values.cpu().round().clamp(0, _RANGE).byte() if as_bytes else values.cpu()
    axis = found.dim() - dimensions
    if found.shape[axis] == 1:
        array: NDArray[Any] = found.squeeze(axis).numpy()
        return array
    return found.movedim(axis, -1).numpy()


def _as_cells(column: Any) -> Any:
    """A column of no variable without further dimensions."""
    if isinstance(column, Tensor):
        column = column.detach().cpu().numpy()
    return (
        column.reshape(-1) if isinstance(column, np.ndarray) else getattr(column, "array", column)
    )


def _part(do: Do, k: int, count: int) -> Do:
    """The intervention number ``k`` of those that a tensor stands for."""
    return {
        name: value.reshape(-1)[k]
        if isinstance(value, Tensor) and value.numel() == count
        else value
        for name, value in do.items()
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _as_text(title: str, rows: Sequence[ChangedVariable], headings: Sequence[str]) -> str:
    lines = [f"  {line}" for line in as_lines(rows, headings)] if rows else []
    return "\n".join(([for_terminal(title)] if title else []) + lines)


def _as_html(title: str, rows: Sequence[ChangedVariable], headings: Sequence[str]) -> str:
    if not rows:
        return f"<p>{html.escape(for_terminal(title))}</p>"
    cells = [(row.variable, row.factual, row.answer, row.change) for row in rows]
    used = [k for k in range(len(headings)) if any(cell[k] for cell in cells)]
    head = "".join(f"<th>{html.escape(headings[k])}</th>" for k in used)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(for_terminal(cell[k]))}</td>' for k in used)}</tr>"
        for cell in cells
    )
    caption = f"<caption>{html.escape(for_terminal(title))}</caption>" if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
