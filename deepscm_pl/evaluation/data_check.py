"""Checks of data before a training: leakage between splits, duplicate images, and overlap."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from tqdm import tqdm

from deepscm_pl.data import CausalData
from deepscm_pl.data.base import Split
from deepscm_pl.evaluation.independence import MixedTable
from deepscm_pl.evaluation.quick_fit import fit_scalars
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.overlap import VERDICTS, OverlapEstimator
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training_distribution import TrainingDistribution

__all__ = [
    "DuplicateImages",
    "Leakage",
    "QuestionOverlap",
    "SplitRow",
    "check_leakage",
    "check_overlap",
    "find_duplicates",
    "independent_table",
]

SPLITS: tuple[Split, ...] = get_args(Split)

_SIDE = 16  # pixels of the side of a thumbnail
_MOST_IMAGES = 20_000
_NEAR = 0.2  # of the median distance to the nearest image of another unit
_APART = 0.4  # of the distance to the sixth nearest image, which is close where images are alike
_NEIGHBOURS = 6
_CORRELATED = 0.95
_DISTINCT = 0.9  # share of rows that differ from all others, above which equal rows are suspicious
_ROWS_AT_A_TIME = 256
_QUESTION_ROWS = 500


@dataclass(frozen=True)
class SplitRow:
    """A row of a split, with its name in the data if it has one."""

    split: Split
    row: int
    name: str = ""

    def __str__(self) -> str:
        return f"{self.split} {self.name or f'row {self.row}'}"


def independent_table(
    data: CausalData, scm: StructuralCausalModel, splits: Sequence[Split] = SPLITS
) -> MixedTable:
    """Take the scalar variables of a model from data, one row for each unit.

    Further visits and slices of a unit are not independent of the first. Rows with missing values
    are left out.

    Args:
        data: The data; they are loaded if necessary.
        scm: The model, which need not be trained.
        splits: The splits to take; for a check of a graph all, which no model learns from.

    Raises:
        ValueError: If there are fewer than 30 units.
    """
    names = [name for name in scm.scalar_variables if name in data.variables("train")]
    columns: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    seen: set[str] = set()
    for split in splits:
        values, units = data.variables(split), data.identifiers(split)
        size = len(next(iter(values.values()), ()))
        rows = list(range(size))
        if units is not None:
            first = {unit: row for row, unit in reversed([*enumerate(units)])}
            rows = sorted(row for unit, row in first.items() if unit not in seen)
            seen |= first.keys()
        for name in names:
            columns[name].append(values[name].double().squeeze(-1).numpy()[rows])
    classes = [name for name in names if scm[name].domain.categories is not None]
    labels = {name: scm.variables[name].label for name in names}
    joined = {name: np.concatenate(each) for name, each in columns.items()}
    if names:
        complete = ~np.isnan(np.stack([*joined.values()])).any(axis=0)
        joined = {name: each[complete] for name, each in joined.items()}
    return MixedTable(joined, classes, labels)


@dataclass(frozen=True)
class Leakage:
    """What splits share.

    Attributes:
        units: Units in more than one split, with these splits; None if rows have no units.
        rows: Groups of rows in different splits whose variables are all equal.
        distinct: Share of the rows that differ from all others; if it is small, equal rows are
            expected by chance.
        images: Whether rows include images.
    """

    units: Mapping[str, tuple[Split, ...]] | None
    rows: Sequence[Sequence[SplitRow]]
    distinct: float
    images: bool

    @property
    def is_expected(self) -> bool:
        """Whether so many rows are equal that equal rows say nothing."""
        return self.distinct < _DISTINCT

    @property
    def verdict(self) -> str:
        """The result in words."""
        parts = []
        if self.units:
            shown = ", ".join(list(self.units)[:3])
            parts.append(
                f"{len(self.units)} units are in more than one split ({shown}"
                f"{', …' if len(self.units) > 3 else ''}); divide the data by unit"
            )
        if self.rows and not self.is_expected:
            shown = "; ".join(" = ".join(map(str, group[:3])) for group in self.rows[:3])
            parts.append(f"{len(self.rows)} rows of one split are also in another ({shown})")
        if parts:
            return f"leak: {'; '.join(parts)}"
        if self.is_expected:
            return (
                f"unknown: only {self.distinct:.0%} of the rows differ from all others, so that "
                "equal rows in two splits are expected"
            )
        units = "" if self.units is None else "no unit and "
        return f"none: {units}no row is in more than one split"


def check_leakage(data: CausalData, names: Sequence[str]) -> Leakage:
    """Find units and rows that are in more than one split.

    Args:
        data: The data.
        names: The variables by which rows are compared.
    """
    splits: dict[str, list[Split]] = defaultdict(list)
    has_units = False
    groups: dict[bytes, list[SplitRow]] = defaultdict(list)
    is_image = False
    for split in SPLITS:
        values = data.variables(split)
        known = [values[name] for name in names if name in values]
        is_image = is_image or any(each.dim() > 2 for each in known)
        units, row_names = data.identifiers(split), data.row_names(split)
        has_units = has_units or units is not None
        for unit in dict.fromkeys(units or ()):
            splits[unit].append(split)
        for row in range(len(known[0]) if known else 0):
            digest = hashlib.blake2b(digest_size=16)
            for each in known:
                digest.update(np.ascontiguousarray(each[row].numpy()).tobytes())
            name = "" if row_names is None else row_names[row]
            groups[digest.digest()].append(SplitRow(split, row, name))
    total = sum(map(len, groups.values()))
    distinct = sum(len(group) == 1 for group in groups.values()) / max(1, total)
    shared = [group for group in groups.values() if len({each.split for each in group}) > 1]
    repeated = {unit: tuple(found) for unit, found in splits.items() if len(found) > 1}
    return Leakage(repeated if has_units else None, shared, distinct, is_image)


@dataclass(frozen=True)
class DuplicateImages:
    """Images of different units that are equal, or nearly.

    Attributes:
        variable: The image variable.
        images: Number of images that were compared.
        exact: Groups of equal images.
        near: Pairs of nearly equal images, the nearest first.
        distance: The median distance of an image to the nearest image of another unit, in grey
            levels; near images differ by less than a fifth of it.
    """

    variable: str
    images: int
    exact: Sequence[Sequence[SplitRow]]
    near: Sequence[tuple[SplitRow, SplitRow]]
    distance: float

    @property
    def across(self) -> int:
        """Number of exact groups and near pairs that extend over two splits."""
        groups = [*self.exact, *self.near]
        return sum(len({each.split for each in group}) > 1 for group in groups)

    @property
    def verdict(self) -> str:
        """The result in words."""
        if not self.exact and not self.near:
            return f"none: no two of {self.images:,} images are equal, or nearly"
        parts = []
        if self.exact:
            parts.append(f"{len(self.exact)} groups of equal images")
        if self.near:
            parts.append(f"{len(self.near)} pairs of nearly equal images")
        leak = f"; {self.across} of them extend over two splits" if self.across else ""
        shown = "; ".join(
            " = ".join(map(str, group[:3])) for group in [*self.exact, *self.near][:3]
        )
        return f"duplicates: {' and '.join(parts)} ({shown}){leak}"


def find_duplicates(
    data: CausalData, name: str, seed: int = 0, progress: bool = True
) -> DuplicateImages:
    """Find images of different units that are equal, or nearly.

    Near images differ, in thumbnails of 16 × 16 pixels, by less than a fifth of the distance at
    which the nearest image of another unit usually is, by less than 0.4 of the distance of the
    sixth nearest, and correlate by 0.95: copies that were compressed or scaled again, but not two
    similar subjects.

    Args:
        data: The data.
        name: The image variable.
        seed: Seed of the choice of 20,000 images, if there are more.
        progress: Whether to show a progress bar.
    """
    rows, units, digests, thumbnails = [], [], [], []
    for split in SPLITS:
        images, row_names = data.variables(split)[name], data.row_names(split)
        owners = data.identifiers(split)
        for first in range(0, len(images), _ROWS_AT_A_TIME):
            part = images[first : first + _ROWS_AT_A_TIME]
            thumbnails.append(_thumbnails(part))
            digests += [
                hashlib.blake2b(np.ascontiguousarray(each.numpy()).tobytes()).digest()
                for each in part
            ]
        for row in range(len(images)):
            rows.append(SplitRow(split, row, "" if row_names is None else row_names[row]))
            units.append(f"{split} {row}" if owners is None else owners[row])
    groups: dict[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        groups[digest].append(place)
    exact = [group for group in groups.values() if len({units[place] for place in group}) > 1]
    chosen = np.sort([group[0] for group in groups.values()])
    if len(chosen) > _MOST_IMAGES:
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.choice(chosen, _MOST_IMAGES, replace=False))
    near, distance = _near_pairs(
        torch.cat(thumbnails)[chosen], [units[place] for place in chosen], progress
    )
    return DuplicateImages(
        name,
        len(rows),
        [[rows[place] for place in group] for group in exact],
        [(rows[chosen[a]], rows[chosen[b]]) for a, b in near],
        distance,
    )


def _thumbnails(images: Tensor) -> Tensor:
    """Grey levels of small versions, ``(N, C·16·16)``; of volumes the middle plane."""
    values = images.float()
    if values.dim() == 5:
        values = values[..., values.shape[-1] // 2]
    return adaptive_avg_pool2d(values, _SIDE).flatten(1)


def _near_pairs(
    thumbnails: Tensor, units: Sequence[str], progress: bool
) -> tuple[list[tuple[int, int]], float]:
    """Pairs of nearly equal images of different units, and the median nearest distance."""
    size = len(thumbnails)
    owner = torch.from_numpy(np.unique(np.asarray(units), return_inverse=True)[1])
    nearest, partner = torch.full((size,), torch.inf), torch.zeros(size, dtype=torch.int64)
    others = torch.full((size,), torch.inf)
    with tqdm(total=size, desc="duplicates", disable=None if progress else True) as bar:
        for first in range(0, size, _ROWS_AT_A_TIME):
            part = slice(first, first + _ROWS_AT_A_TIME)
            distances = torch.cdist(thumbnails[part], thumbnails)
            distances[owner[part, None] == owner] = torch.inf
            found, places = distances.topk(min(_NEIGHBOURS, size), largest=False)
            nearest[part], partner[part], others[part] = found[:, 0], places[:, 0], found[:, -1]
            bar.update(len(distances))
    finite = nearest[nearest.isfinite()] / thumbnails.shape[1] ** 0.5
    if not len(finite):
        return [], float("nan")
    typical = float(finite.median())
    is_near = (nearest / thumbnails.shape[1] ** 0.5 < _NEAR * typical) & (nearest < _APART * others)
    pairs = set()
    for place in torch.nonzero(is_near).flatten():
        pair = int(place), int(partner[place])
        both = torch.stack([thumbnails[k] for k in pair])
        if float(torch.corrcoef(both)[0, 1]) > _CORRELATED:
            pairs.add(tuple(sorted(pair)))
    ordered = sorted(pairs, key=lambda pair: float(nearest[pair[0]]))
    return [(a, b) for a, b in ordered], typical


@dataclass(frozen=True)
class QuestionOverlap:
    """The overlap of a question with the training split.

    Attributes:
        text: The intervention as it was typed.
        title: The intervention in words.
        counts: Number of rows with each verdict of :data:`~deepscm_pl.overlap.VERDICTS`.
    """

    text: str
    title: str
    counts: Mapping[str, int]

    @property
    def verdict(self) -> str:
        """The result in words."""
        total = sum(self.counts.values())
        beyond, edge = self.counts["extrapolated"], self.counts["edge"]
        if beyond:
            return f"extrapolated: {beyond} of {total} rows have no training rows nearby"
        if edge:
            return f"edge: {edge} of {total} rows have few training rows nearby"
        return f"supported: all {total} rows have training rows nearby"


def check_overlap(
    data: CausalData,
    scm: StructuralCausalModel,
    questions: Sequence[str],
    rows: int = _QUESTION_ROWS,
    seed: int = 0,
) -> list[QuestionOverlap]:
    """Compare questions with the training split, before or after a training.

    Before a training, the mechanisms of the scalars are fitted in seconds.

    Args:
        data: The data.
        scm: The model, trained or not.
        questions: Interventions on scalars as text, such as ``age=80, sex=male``.
        rows: The number of first rows of the test split that are asked about.
        seed: Seed of the answers.

    Raises:
        ValueError: If an intervention cannot be read, is impossible, or changes an image or an
            effect of one.
    """
    images = set(scm.image_variables)
    names = [name for name in scm.scalar_variables if not scm.graph.ancestors(name) & images]
    dos = {text: parse_do(text, scm.variables) for text in questions}
    for text, do in dos.items():
        unknown = [name for name in do if name not in names]
        if unknown:
            raise ValueError(
                f"do: expected interventions on {', '.join(names)}, but {text!r} changes "
                f"{unknown[0]}, an image or an effect of one, whose overlap is not estimated."
            )
        scm.check_do(do)
    training, found = data.variables("train"), []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if bool(scm.fitted):
            part = scm.restrict(names)
        else:
            part = fit_scalars(scm, training, data.variables("validation"))
        kept = TrainingDistribution({name: part[name].domain for name in names})
        kept.fit({name: training[name] for name in names})
        estimator = OverlapEstimator(part, distribution=kept)
        asked = {name: data.variables("test")[name][:rows].to(part.dtype) for name in names}
        complete = ~torch.cat(list(asked.values()), dim=1).isnan().any(dim=1)
        factual = {name: each[complete] for name, each in asked.items()}
        for text, do in dos.items():
            with torch.no_grad():
                answer = part.counterfactual(factual, do)
            overlap = estimator.estimate({k: v[0] for k, v in answer.items()}, do, quantiles=False)
            counts = {verdict: overlap.count(verdict) for verdict in VERDICTS}
            found.append(QuestionOverlap(text, format_do(do, scm.variables), counts))
    return found
