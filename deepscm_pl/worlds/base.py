"""The contract of a synthetic world: a causal model that is known, image included."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.graph import CausalGraph
from deepscm_pl.variables import Domain
from deepscm_pl.worlds.mechanisms import Column, Columns, KnownMechanism

__all__ = ["KnownAttribute", "KnownDo", "KnownWorld", "within"]

KnownDo: TypeAlias = Mapping[str, float | ArrayLike | Callable[[Column], ArrayLike]]
"""Name of an attribute -> a number, values ``(N,)``, or a function of the value replaced."""


@dataclass(frozen=True)
class KnownAttribute:
    """An attribute of a world.

    Attributes:
        mechanism: How it comes about.
        unit: What it is measured in.
        domain: The values with which an image can be drawn. The values that the world produces
            can be fewer: outside of them the log-density is minus infinity.
    """

    mechanism: KnownMechanism
    unit: str
    domain: Domain


class KnownWorld(ABC):
    """A causal model of images that is known: it answers every causal question by the truth.

    Attributes cause each other by x := f(u; pa) with standard normal noise u that can be inferred
    exactly, and all of them may cause the image, which is drawn from an original: a digit that is
    redrawn, say, or what makes a head itself. The original is the noise of the image. Attributes
    are mappings from names to arrays ``(N,)`` in the units of
    :attr:`units`; names that are not attributes of the world are ignored where values are read.

    A subclass is a frozen dataclass whose fields are the numbers of the equations. It implements
    :attr:`definitions`, :attr:`shape_attributes`, :meth:`check_originals`, :meth:`drawn_shape`,
    :meth:`shape` and :meth:`measure`, and :meth:`shade` if a part of the drawing is cheap.

    Attributes:
        name: Of the world, as on the command line.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def definitions(self) -> Mapping[str, KnownAttribute]:
        """The attributes, in topological order."""

    @property
    @abstractmethod
    def shape_attributes(self) -> tuple[str, ...]:
        """The attributes that :meth:`shape` depends on."""

    @abstractmethod
    def check_originals(self, originals: ArrayLike) -> NDArray[Any]:
        """The originals as an array of N rows.

        Raises:
            ValueError: If they are no originals of this world.
        """

    @abstractmethod
    def drawn_shape(self, originals: NDArray[Any]) -> tuple[int, ...]:
        """The shape of the images that are drawn from originals, ``(N, *image)``."""

    @abstractmethod
    def shape(self, originals: NDArray[Any], attributes: Columns) -> NDArray[np.uint8]:
        """The costly first step of :meth:`render`, which depends on :attr:`shape_attributes` only.

        Args:
            originals: N of them.
            attributes: At least those that it depends on, ``(N,)`` each.

        Returns:
            Grey levels ``(N, *image)``.
        """

    @abstractmethod
    def measure(self, images: ArrayLike) -> dict[str, Column]:
        """Measures the attributes that images show.

        Args:
            images: Grey levels 0 to 255, ``(N, *image)``.

        Returns:
            Each attribute that can be measured, as it is found in the images, ``(N,)``; nan where
            an image shows nothing.

        Raises:
            ValueError: If the images are of another shape or not finite.
        """

    def shade(self, shapes: NDArray[np.uint8], attributes: Columns) -> NDArray[np.uint8]:
        """The cheap second step of :meth:`render`, for the attributes that are no shape.

        Args:
            shapes: What :meth:`shape` returned, ``(N, *image)``.
            attributes: All of them, ``(N,)`` each.

        Returns:
            Grey levels ``(N, *image)``.
        """
        return shapes

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, causes before effects."""
        return tuple(self.definitions)

    @property
    def graph(self) -> CausalGraph:
        """Who causes whom, with ``image``."""
        parents = {name: each.mechanism.parents for name, each in self.definitions.items()}
        return CausalGraph({**parents, "image": self.image_attributes})

    @property
    def image_attributes(self) -> tuple[str, ...]:
        """The attributes that cause the image; all of them, unless a world says otherwise."""
        return self.attributes

    @property
    def units(self) -> dict[str, str]:
        """What each attribute is measured in."""
        return {name: each.unit for name, each in self.definitions.items()}

    @property
    def domains(self) -> dict[str, Domain]:
        """The values of each attribute with which an image can be drawn."""
        return {name: each.domain for name, each in self.definitions.items()}

    def parameters(self) -> dict[str, float]:
        """The numbers of the equations, as plain data."""
        return asdict(self)  # type: ignore[call-overload]

    def sample(self, size: int, generator: np.random.Generator) -> dict[str, Column]:
        """Draws attributes.

        Args:
            size: N.
            generator: Where randomness comes from.

        Returns:
            Each attribute, ``(N,)``.
        """
        values: dict[str, Column] = {}
        for name, mechanism in self._mechanisms():
            values[name] = mechanism.sample(size, values, generator)
        return values

    def log_prob(self, attributes: Mapping[str, ArrayLike]) -> dict[str, Column]:
        """The log-density of each attribute given its parents.

        Args:
            attributes: ``(N,)`` each.

        Returns:
            In nats, ``(N,)`` each; minus infinity outside of the support.

        Raises:
            ValueError: If an attribute is missing, of another length, or no number.
        """
        values = _columns(attributes, self.attributes)
        return {name: each.log_prob(values[name], values) for name, each in self._mechanisms()}

    def abduct(self, attributes: Mapping[str, ArrayLike]) -> dict[str, Column]:
        """The exogenous noise of each attribute, exactly.

        Args:
            attributes: ``(N,)`` each.

        Returns:
            ``(N,)`` each, independent and N(0, 1) where attributes are drawn from the world.

        Raises:
            ValueError: If an attribute is missing, of another length, no number, or has a value
                that the world does not produce.
        """
        values = _columns(attributes, self.attributes)
        return {name: self._noise(name, values) for name in self.attributes}

    def predict(
        self, noise: Mapping[str, ArrayLike], do: KnownDo | None = None
    ) -> dict[str, Column]:
        """The attributes that follow from their noise, under an intervention.

        Args:
            noise: Of each attribute, ``(N,)``.
            do: What is done; a number or values ``(N,)`` cut the edges into the attribute, a
                function h keeps them, x := h(f(u; pa)).

        Returns:
            Each attribute, ``(N,)``.

        Raises:
            ValueError: If a noise is missing, of another length, or no number, or ``do`` names an
                unknown attribute or leaves the domain of an attribute.
        """
        columns = _columns(noise, self.attributes)
        size = len(next(iter(columns.values())))
        return self._follow(do or {}, size, lambda name, given: self._value(name, columns, given))

    def counterfactual(self, attributes: Mapping[str, ArrayLike], do: KnownDo) -> dict[str, Column]:
        """What the attributes would have been, had ``do`` been done.

        Attributes that are no descendants of what is intervened on are kept bit for bit.

        Args:
            attributes: What was observed, ``(N,)`` each.
            do: What is done, as for :meth:`predict`.

        Returns:
            Each attribute, ``(N,)``.

        Raises:
            ValueError: As for :meth:`abduct` and :meth:`predict`.
        """
        factual = _columns(attributes, self.attributes)
        self._check_known(do)
        changed = self.graph.descendants(*do)

        def natural(name: str, values: Columns) -> Column:
            if name not in changed:
                return factual[name].copy()
            return self._value(name, {name: self._noise(name, factual)}, values)

        return self._follow(do, len(next(iter(factual.values()))), natural)

    def render(
        self, originals: ArrayLike, attributes: Mapping[str, ArrayLike]
    ) -> NDArray[np.uint8]:
        """Draws images with given attributes: the true mechanism of the image.

        Args:
            originals: N of them.
            attributes: ``(N,)`` each.

        Returns:
            Grey levels 0 to 255, ``(N, *image)``.

        Raises:
            ValueError: If an original or an attribute is of another shape or outside of its domain.
        """
        rows, values = self.check_drawing(originals, attributes)
        return self.shade(self.shape(rows, values), values)

    def check_drawing(
        self, originals: ArrayLike, attributes: Mapping[str, ArrayLike]
    ) -> tuple[NDArray[Any], dict[str, Column]]:
        """Checks what is to be drawn.

        Args:
            originals: As for :meth:`render`.
            attributes: As for :meth:`render`.

        Returns:
            The originals, and the attributes of this world, ``(N,)`` each.

        Raises:
            ValueError: As for :meth:`render`.
        """
        rows = self.check_originals(originals)
        values = _columns(attributes, self.attributes)
        for name, column in values.items():
            if len(column) != len(rows):
                raise ValueError(
                    f"{name} must have a value for each of the {len(rows)} originals, got "
                    f"{len(column)}."
                )
            self._check_domain(name, column, name)
        return rows, values

    def _mechanisms(self) -> list[tuple[str, KnownMechanism]]:
        return [(name, each.mechanism) for name, each in self.definitions.items()]

    def _value(self, name: str, noise: Columns, values: Columns) -> Column:
        return self.definitions[name].mechanism.value(noise[name], values)

    def _noise(self, name: str, values: Columns) -> Column:
        column = self.definitions[name].mechanism.noise(values[name], values)
        self._check_produced(name, values[name], np.isfinite(column))
        return column

    def _follow(
        self, do: KnownDo, size: int, natural: Callable[[str, Columns], Column]
    ) -> dict[str, Column]:
        """All attributes under ``do``.

        Args:
            do: What is done.
            size: N.
            natural: The value of an attribute before it is intervened on, by its name and the
                attributes before it.
        """
        self._check_known(do)
        values: dict[str, Column] = {}
        for name in self.attributes:
            if name not in do:
                values[name] = natural(name, values)
                continue
            action = do[name]
            done = action(natural(name, values)) if callable(action) else action
            values[name] = _replacement(name, done, size)
            self._check_domain(name, values[name], f"do({name})")
        return values

    def _check_known(self, do: KnownDo) -> None:
        for name in do:
            if name not in self.definitions:
                raise ValueError(
                    f"do: unknown attribute {name!r}; the world {self.name} has "
                    f"{', '.join(self.attributes)}."
                )

    def _check_domain(self, name: str, column: Column, label: str) -> None:
        definition = self.definitions[name]
        inside = within(definition.domain, column)
        if not inside.all():
            row = int(np.argmin(inside))
            raise ValueError(
                f"{label}: expected {definition.domain}, in {definition.unit}, but got "
                f"{column[row]:g} in row {row}; give values inside."
            )

    def _check_produced(self, name: str, column: Column, produced: NDArray[np.bool_]) -> None:
        if not produced.all():
            row = int(np.argmin(produced))
            raise ValueError(
                f"{name}: expected values that the world {self.name} produces, but got "
                f"{column[row]:g} in row {row}, which no noise explains; leave such rows out."
            )


def within(domain: Domain, values: Column) -> NDArray[np.bool_]:
    """Which values are finite and in a domain.

    Args:
        domain: Of a scalar.
        values: ``(N,)``.

    Returns:
        ``(N,)``.

    Example:
        >>> within(Domain(lower=0.0, open=True), np.array([0.0, 1.0, np.nan]))
        array([False,  True, False])
    """
    if domain.open:
        inside = (values > domain.lower) & (values < domain.upper)
    else:
        inside = (values >= domain.lower) & (values <= domain.upper)
    result: NDArray[np.bool_] = inside & np.isfinite(values)
    return result


def _columns(values: Mapping[str, ArrayLike], names: Iterable[str]) -> dict[str, Column]:
    """The values of the given names, checked to be numbers, ``(N,)`` each."""
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(
            f"expected values of {', '.join(names)}, but {', '.join(missing)} is missing."
        )
    columns = {name: _numbers(name, values[name]) for name in names}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(
            f"attributes must be of one shape (N,), got {shapes}; drop trailing dimensions."
        )
    for name, column in columns.items():
        if np.isnan(column).any():
            raise ValueError(f"{name}: expected numbers, but got nan; leave such rows out.")
    return columns


def _numbers(name: str, values: ArrayLike) -> Column:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers, but got {values!r}.") from None


def _replacement(name: str, done: ArrayLike, size: int) -> Column:
    """What an intervention puts in the place of a value, ``(N,)``."""
    column = _numbers(f"do({name})", done)
    if column.shape not in ((), (size,)):
        raise ValueError(
            f"do({name}): expected a number or values of shape {(size,)}, but got shape "
            f"{column.shape}."
        )
    return np.broadcast_to(column, (size,)).copy()
