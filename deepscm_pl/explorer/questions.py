"""Questions of the explorer: which variables can be set, to which values, and the answers."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.checkpoints.stored_observations import require_rows
from deepscm_pl.checks import whole_number
from deepscm_pl.data import CausalData
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import for_terminal
from deepscm_pl.figures.pixels import as_pictures, difference_limit
from deepscm_pl.interventions import format_do, parse_do, quote_class, quote_variable
from deepscm_pl.numerals import shortest
from deepscm_pl.overlap import OverlapEstimator
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Variable

__all__ = [
    "Cause",
    "Explorer",
    "Scene",
    "Setting",
    "as_png",
    "decimals_of",
    "do_text",
    "offered_rows",
    "values_to_set",
]

OFFERED_PICTURES, OFFERED_ROWS = 24, 200
"""Observations that the live page offers by their picture, and by their values."""

_LOWEST, _HIGHEST = 0.02, 0.98
"""The quantiles of the training data between which numbers are set."""
_SHARE_OF_DEVIATION = 25
"""The last digit that is shown is about a 25th of a standard deviation."""
_MOST_DECIMALS = 15
_MOST_VOXELS = 128**3
_NUMBERS_AT_A_TIME = 2**22
_MOST_AT_A_TIME = 32


@dataclass(frozen=True)
class Setting:
    """A value to which a variable can be set.

    Attributes:
        value: The number, or the index of the class.
        text: The intervention as :func:`~deepscm_pl.interventions.parse_do` reads it.
        title: The intervention as a title, with its unit.
    """

    value: float
    text: str
    title: str


@dataclass(frozen=True)
class Cause:
    """A variable that can be set.

    Attributes:
        name: The variable.
        settings: Its values, in ascending order.
        affected: The variables that it causes, directly or indirectly, in order of the graph.
    """

    name: str
    settings: Sequence[Setting]
    affected: Sequence[str]


@dataclass(frozen=True)
class Scene:
    """An observation, or an answer about it, as plain data.

    Attributes:
        values: Numbers and indices of classes by name; None where a value is missing.
        images: Whole grey levels ``(C, H, W)`` of each image, of volumes their central planes.
        measured: The attributes as measured in the image; empty without a known world.
        verdict: One of :data:`~deepscm_pl.overlap.VERDICTS`; empty for observations.
        rows: The effective number of training rows near the answer; None where unknown.
    """

    values: Mapping[str, float | None]
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    measured: Mapping[str, float | None] = field(default_factory=dict)
    verdict: str = ""
    rows: float | None = None

    @property
    def pictures(self) -> dict[str, bytes]:
        """The images as PNG files."""
        return {name: as_png(image) for name, image in self.images.items()}


@dataclass(frozen=True)
class Explorer:
    """A trained model and the observations about which it is asked.

    Attributes:
        model: The model, or several that answer together.
        data: Its data, of which the test split is asked about.
        seed: Seed of the noise.

    Raises:
        ValueError: If an image has other than one or three channels, or a volume is too large.
    """

    model: TrainedModel
    data: CausalData
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.scm.image_variables:
            _check_image(name, self.scm.variables[name].domain.shape)
        self.data.prepare_data()
        self.data.setup("test")
        kept = self.scm.training_distribution
        if not kept.is_known:  # a model of an earlier version
            self.data.setup("fit")
            kept.fit(self.data.variables("train"))

    @property
    def scm(self) -> StructuralCausalModel:
        """The model, or the first of several."""
        return self.model.scm

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables, in the order of the graph."""
        return self.model.variables

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        return self.data.variables("test")

    @cached_property
    def _names(self) -> list[str] | None:
        return self.data.row_names("test")

    @property
    def count(self) -> int:
        """The number of observations."""
        return len(self._rows[self.scm.graph.nodes[0]])

    def causes(self, steps: int = 7) -> list[Cause]:
        """List the variables that can be set, with their values.

        Args:
            steps: Values of each number, at quantiles of the training data; classes have all.

        Raises:
            ValueError: If there are fewer than two steps, or no variable can be set.
        """
        whole_number("steps", steps, least=2)
        graph = self.scm.graph
        found = []
        for name in graph:
            values = values_to_set(self.scm, name, steps)
            settings = [_setting(self.variables, name, value) for value in values]
            below = graph.descendants(name)
            if settings:
                found.append(Cause(name, settings, [each for each in graph if each in below]))
        if not found:
            raise ValueError(
                "explore: expected a model with a number or a class that can be set, but all of "
                f"its variables are images ({', '.join(graph)}); add a cause to the graph."
            )
        return found

    def title(self, row: int) -> str:
        """The name of an observation."""
        name = f" ({self._names[row]})" if self._names is not None else ""
        return for_terminal(f"test {row}{name}")

    def factual(self, row: int) -> dict[str, Tensor]:
        """The observation in a row of the test split, ``(1, *event)`` of each variable.

        Raises:
            ValueError: If the row does not exist.
        """
        return self.rows_of([row])

    def placement(self, name: str, row: int) -> Placement | None:
        """The position in the scanner of an image in a row of the test split, if known."""
        return self.data.placement_of(name, "test", row)

    def rows_of(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The observations in some rows of the test split, ``(N, *event)`` of each variable.

        Raises:
            ValueError: If a row does not exist.
        """
        require_rows(self.data, rows)
        chosen = torch.tensor(rows)
        return {name: self._rows[name][chosen].to(self.scm.dtype) for name in self.scm.graph}

    def observe(self, row: int) -> Scene:
        """Describe an observation."""
        return self.describe(self.factual(row))

    def describe(self, values: Mapping[str, Tensor], is_measured: bool = True) -> Scene:
        """Describe values ``(1, *event)`` of every variable.

        Args:
            values: The values.
            is_measured: Whether to measure the attributes in the image.
        """
        return self._scenes(values, is_measured)[0]

    def judge(self, scene: Scene, draws: Mapping[str, Tensor], do: Do) -> Scene:
        """Add the overlap with the training data.

        Args:
            scene: The answer.
            draws: Its particles ``(P, 1, *event)``.
            do: The intervention.
        """
        scalars = {n: v.to(self.scm.dtype) for n, v in draws.items() if n in scene.values}
        found = self._estimator.estimate(scalars, do, quantiles=False).worst()
        return replace(scene, verdict=found.verdicts[0], rows=float(found.rows[0]))

    def ask(self, row: int, dos: Sequence[Do | str]) -> list[Scene]:
        """Ask what an observation would have been under each of several interventions.

        Numbers and images are means over particles, if there are several models. All interventions
        share their noise, so that an answer does not depend on the others.

        Args:
            row: The row of the test split.
            dos: The interventions.

        Raises:
            ValueError: If the row does not exist, or an intervention is not valid.
        """
        factual, found = self.factual(row), []
        for some in _batches(dos, self._at_a_time):
            answer = self.model.counterfactual(factual, some, seed=self.seed)
            means = answer.mean()
            rows = {name: means[name][:, 0] for name in self.scm.graph}
            for k, scene in enumerate(self._scenes(rows)):
                draws = {name: value[:, k] for name, value in answer.items()}
                found.append(self.judge(scene, draws, answer.question.dos[k]))
        return found

    def difference_limits(self, factual: Scene, answers: Sequence[Scene]) -> dict[str, float]:
        """The ends of the colour scales of differences, by image, common to several answers."""
        return {
            name: max(
                (difference_limit(each.images[name] - image.astype(float)) for each in answers),
                default=difference_limit(np.zeros(0)),
            )
            for name, image in factual.images.items()
        }

    @cached_property
    def _estimator(self) -> OverlapEstimator:
        return OverlapEstimator(self.scm)

    @property
    def _at_a_time(self) -> int:
        """Interventions in one batch, so that their images fit the memory."""
        shapes = [self.variables[name].domain.shape for name in self.scm.image_variables]
        numbers = sum(map(math.prod, shapes)) * (self.model.particles(None) or 1)
        return min(max(_NUMBERS_AT_A_TIME // max(numbers, 1), 1), _MOST_AT_A_TIME)

    def _scenes(self, rows: Mapping[str, Tensor], is_measured: bool = True) -> list[Scene]:
        """Convert rows ``(N, *event)`` to plain data."""
        shapes = {name: self.variables[name].domain.shape for name in rows}
        scalars = {n: _plain(v) for n, v in rows.items() if shapes[n] == (1,)}
        images = {n: _whole_levels(v) for n, v in rows.items() if len(shapes[n]) > 1}
        measured = self._measure(images) if is_measured else {}
        pictures = {n: as_pictures(v, v.dim() - 1).numpy() for n, v in images.items()}
        return [
            Scene(
                {name: column[k] for name, column in scalars.items()},
                {name: each[k] for name, each in pictures.items()},
                {name: column[k] for name, column in measured.items()},
            )
            for k in range(len(next(iter(rows.values()))))
        ]

    def _measure(self, images: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
        """Measure the attributes in the only image, if it is of a known world."""
        world = self.data.world
        if world is None or not world.image_attributes or len(images) != 1:
            return {}
        (image,) = images.values()
        measured = world.measure(world.without_channels(image.numpy()))
        return {
            name: _plain(torch.as_tensor(column))
            for name, column in measured.items()
            if name in self.variables
        }


def offered_rows(scm: StructuralCausalModel) -> range:
    """Return the rows of the test split that the live page offers, if there are as many."""
    return range(OFFERED_PICTURES if scm.image_variables else OFFERED_ROWS)


def values_to_set(scm: StructuralCausalModel, name: str, steps: int) -> list[float]:
    """Return the values to which a variable can be set, in ascending order.

    A number has values at quantiles of the training data from 2 % to 98 %, rounded to as many
    digits as are read; a class has all. Images, and variables of unknown distribution, have none.

    Args:
        scm: The model.
        name: The variable.
        steps: The number of quantiles; equal values are listed once.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("a", {"a": AffineFlow})
        >>> scm.fit({"a": torch.linspace(0, 100, 999)[:, None]})
        >>> values_to_set(scm, "a", 3)
        [2.0, 50.0, 98.0]
    """
    domain, kept = scm.variables[name].domain, scm.training_distribution
    if domain.categories is not None:
        return [float(k) for k in range(domain.categories)]
    if domain.shape != (1,) or name not in kept.domains:
        return []
    quantiles = kept.get_buffer(f"{name}_quantiles").double().cpu()
    levels = torch.linspace(_LOWEST, _HIGHEST, steps, dtype=torch.float64)
    scores = np.linspace(-4, 4, len(quantiles))
    exact = np.interp(torch.special.ndtri(levels).numpy(), scores, quantiles.numpy())
    return sorted({value for each in exact.tolist() for value in _readable(scm, name, each)})


def _readable(scm: StructuralCausalModel, name: str, exact: float) -> Iterator[float]:
    """The value with few digits, or else the exact one, if it is in the domain."""
    domain, (low, high) = scm.variables[name].domain, scm.training_distribution.limits(name)
    unit = 1.0 if domain.whole else domain.step
    rounded = round(exact / unit) * unit if unit else round(exact, decimals_of(scm, name))
    for value in (float(f"{rounded:.9g}") + 0.0, exact):  # no negative zero
        one = torch.tensor([[value]], dtype=scm.dtype)
        if bool(domain.contains(one).all()) and low <= value <= high:
            yield value
            return


def decimals_of(scm: StructuralCausalModel, name: str) -> int:
    """The number of decimals that a variable is shown with."""
    domain, kept = scm.variables[name].domain, scm.training_distribution
    if domain.whole or domain.categories is not None or name not in kept.domains:
        return 0
    unit = domain.step or kept.deviation_of(name) / _SHARE_OF_DEVIATION
    if not (unit > 0 and math.isfinite(unit)):
        return 3
    digits = -math.log10(unit)
    return min(max(math.ceil(digits - 1e-9) if domain.step else round(digits), 0), _MOST_DECIMALS)


def _setting(variables: Mapping[str, Variable], name: str, value: float) -> Setting:
    title = for_terminal(format_do({name: value}, variables))
    return Setting(value, _text(variables, name, value), title)


def do_text(variables: Mapping[str, Variable], do: Mapping[str, float]) -> str:
    """The interventions as a text that :func:`~deepscm_pl.interventions.parse_do` reads.

    Example:
        >>> from deepscm_pl.variables import Domain
        >>> sex = Variable("sex", Domain(categories=2), classes=("female", "male"))
        >>> do_text({"sex": sex, "age": Variable("age")}, {"sex": 1.0, "age": 70.5})
        'sex=male,age=70.5'
    """
    return ",".join(_text(variables, name, value) for name, value in do.items())


def _text(variables: Mapping[str, Variable], name: str, value: float) -> str:
    """The first text that is read as the intervention: a class by its name if possible."""
    classes = variables[name].classes
    labels = [classes[int(value)], quote_class(classes[int(value)])] if classes else []
    for label in (*labels, shortest(value)):
        text = f"{quote_variable(name)}={label}"
        try:
            found: Any = parse_do(text, variables)
        except ValueError:
            continue
        if found == {name: value} and for_terminal(text) == text:
            return text
    return f"{quote_variable(name)}={shortest(value)}"


def _check_image(name: str, shape: Sequence[int]) -> None:
    size = " × ".join(map(str, shape[1:]))
    if shape[0] not in (1, 3):
        raise ValueError(
            f"explore: expected images of one or three channels, but {name} has {shape[0]}; ask "
            "single questions with deepscm counterfactual --npz."
        )
    if math.prod(shape[1:]) > _MOST_VOXELS:
        raise ValueError(
            f"explore: expected images of at most {_MOST_VOXELS:,} voxels, but {name} has {size}; "
            "ask single questions with deepscm counterfactual --format nifti."
        )


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _plain(column: Tensor) -> list[float | None]:
    """Numbers by their shortest decimals; None where they are missing."""
    found = column.detach().cpu().flatten()
    return [float(shortest(each)) if bool(each.isfinite()) else None for each in found]


def _whole_levels(images: Tensor) -> Tensor:
    return images.detach().round().clamp(0, 255).byte().cpu()


def as_png(image: NDArray[np.uint8]) -> bytes:
    """Encode grey levels ``(1, H, W)`` or colours ``(3, H, W)`` as PNG."""
    from PIL import Image

    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
