"""Known worlds: given structural causal models, with a renderer of their images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.graph import CausalGraph
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

__all__ = ["Attributes", "KnownWorld", "Renderer"]

Attributes: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Name of an attribute -> its values, ``(N,)``."""


class Renderer(ABC):
    """A renderer, which draws images from originals and attributes, and measures attributes.

    An original is the noise of an image, such as a digit to be redrawn. Renderers are pickled to
    draw in several processes. If a part of the drawing is cheap, :meth:`shade` draws that part, and
    :meth:`shape`, whose results are cached, the rest.

    Attributes:
        attributes: The names of the attributes that cause the image.
        fixed: The names of attributes that the originals determine, such as the class of a digit,
            which a drawing cannot change.
        has_channels: Whether drawn images have a dimension of channels, ``(C, *sizes)``.
    """

    attributes: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    has_channels = False

    @property
    def shape_attributes(self) -> tuple[str, ...]:
        """The attributes that :meth:`shape` depends on."""
        return self.attributes

    def check_originals(self, originals: ArrayLike) -> NDArray[Any]:
        """Return the originals as an array of N rows; raise ValueError if they cannot be drawn."""
        return np.asarray(originals)

    def drawn_shape(self, originals: NDArray[Any]) -> tuple[int, ...]:
        """The shape of the images that are drawn from originals, ``(N, *image)``."""
        return originals.shape

    @abstractmethod
    def shape(self, originals: NDArray[Any], attributes: Attributes) -> NDArray[np.uint8]:
        """Draw grey levels ``(N, *image)`` of N originals: the costly step.

        ``attributes`` has at least the :attr:`shape_attributes`.
        """

    def shade(self, shapes: NDArray[np.uint8], attributes: Attributes) -> NDArray[np.uint8]:
        """Finish the result of :meth:`shape`: the cheap step, which depends on all attributes."""
        return shapes

    def render(self, originals: NDArray[Any], attributes: Attributes) -> NDArray[np.uint8]:
        """Draw grey levels ``(N, *image)`` of checked originals and attributes."""
        return self.shade(self.shape(originals, attributes), attributes)

    @abstractmethod
    def measure(self, images: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Measure each attribute in grey levels ``(N, *image)``: ``(N,)``, NaN where impossible."""


class KnownWorld:
    """A known structural causal model: the truth with which learned models are compared.

    Its mechanisms are given (:class:`~deepscm_pl.mechanisms.Known`), and a renderer draws its
    image. ``world.scm`` has the same methods as any model, in double precision.

    Args:
        name: The name on the command line.
        scm: The model of the attributes, without the image. The domain of an attribute contains the
            values that can be drawn; its mechanism may produce only some of them.
        renderer: Draws and measures the image; None for a world of attributes only.
        units: Units of the attributes that have one.
        parameters: The numbers of the equations. Worlds of one class and equal numbers are equal.

    Example:
        >>> from functools import partial
        >>> from torch.distributions import AffineTransform
        >>> from deepscm_pl.mechanisms import Known
        >>> size = partial(Known, layers=lambda parents: [AffineTransform(10.0, 2.0)])
        >>> grey = partial(Known, layers=lambda pa: [AffineTransform(5 * pa["size"], 10.0)])
        >>> class Squares(Renderer):
        ...     attributes = ("size", "grey")
        ...
        ...     def shape(self, originals, attributes):
        ...         near = np.abs(np.arange(28) - 14) < attributes["size"][:, None] / 2
        ...         inside = near[:, :, None] & near[:, None, :]
        ...         return (inside * attributes["grey"][:, None, None]).astype(np.uint8)
        ...
        ...     def measure(self, images):
        ...         size = (images > 0).sum(axis=(1, 2)) ** 0.5
        ...         return {"size": size, "grey": images.max(axis=(1, 2)).astype(float)}
        >>> scm = StructuralCausalModel("size -> grey", {"size": size, "grey": grey})
        >>> world = KnownWorld("squares", scm, Squares(), units={"size": "pixels"})
        >>> factual = {"size": torch.tensor([[8.0]]), "grey": torch.tensor([[50.0]])}
        >>> scm.counterfactual(factual, {"size": 11.0})["grey"].item()
        65.0
        >>> image = world.render(np.zeros((1, 28, 28)), {"size": [11.0], "grey": [65.0]})
        >>> {name: column.item() for name, column in world.measure(image).items()}
        {'size': 11.0, 'grey': 65.0}
    """

    name: str

    def __init__(
        self,
        name: str,
        scm: StructuralCausalModel,
        renderer: Renderer | None = None,
        units: Mapping[str, str] | None = None,
        parameters: Mapping[str, float] | None = None,
    ) -> None:
        self.name, self.scm, self._renderer = name, scm.eval(), renderer
        self.units = dict(units or {})
        self._parameters = dict(parameters or {})
        for attribute in () if renderer is None else renderer.attributes:
            if attribute not in scm.graph:
                raise ValueError(
                    f"renderer: expected attributes of {', '.join(scm.graph.nodes)}, but got "
                    f"{attribute!r}."
                )

    @property
    def renderer(self) -> Renderer:
        """The renderer, which draws and measures the image; ValueError if there is none."""
        if self._renderer is None:
            raise ValueError(
                f"the world {self.name} has no renderer, and so no images; give it one with "
                "KnownWorld(..., renderer=...), or use only its attributes."
            )
        return self._renderer

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, causes before effects."""
        return self.scm.graph.nodes

    @property
    def image_attributes(self) -> tuple[str, ...]:
        """The attributes that cause the image; none without a renderer."""
        return () if self._renderer is None else self._renderer.attributes

    @property
    def fixed_attributes(self) -> tuple[str, ...]:
        """The attributes that originals determine: no truth is known of their interventions."""
        return () if self._renderer is None else self._renderer.fixed

    def with_channels(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return drawn images ``(N, *image)`` as values of a variable, ``(N, C, *sizes)``."""
        return images if self.renderer.has_channels else images[:, None]

    def without_channels(self, images: ArrayLike) -> NDArray[Any]:
        """Return values ``(N, C, *sizes)`` as images ``(N, *image)`` that can be measured."""
        array = np.asarray(images)
        return array if self.renderer.has_channels else array[:, 0]

    @property
    def graph(self) -> CausalGraph:
        """The graph of the attributes and, where there is a renderer, of ``image``."""
        image = {} if self._renderer is None else {"image": self.image_attributes}
        return CausalGraph(self.scm.graph.parents | image)

    @property
    def domains(self) -> dict[str, Domain]:
        """The values of each attribute with which an image can be drawn."""
        return {name: self.scm[name].domain for name in self.attributes}

    def parameters(self) -> dict[str, float]:
        """The numbers of the equations, as plain data."""
        return dict(self._parameters)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KnownWorld) or self is other:
            return self is other
        content = (type(self), self.name, self._parameters)
        return bool(self._parameters) and content == (type(other), other.name, other._parameters)

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def sample(
        self,
        size: int,
        generator: np.random.Generator,
        given: Mapping[str, ArrayLike] | None = None,
    ) -> dict[str, NDArray[np.float64]]:
        """Draw attributes, ``(N,)`` each, with random numbers of NumPy.

        The same generator gives the same data set on every machine.

        Args:
            size: N.
            generator: Random numbers.
            given: Attributes that are known, such as those that originals determine, ``(N,)``.
        """
        values: dict[str, torch.Tensor] = {}
        known = given or {}
        for name, parents in self.scm.graph.parents.items():
            causes = {parent: values[parent] for parent in parents}
            if name in known:
                values[name] = torch.from_numpy(np.asarray(known[name], np.float64)[:, None])
            else:
                values[name] = self._draw(name, size, causes, generator)
        return {name: value.squeeze(-1).numpy() for name, value in values.items()}

    def _draw(
        self,
        name: str,
        size: int,
        parents: Mapping[str, torch.Tensor],
        generator: np.random.Generator,
    ) -> torch.Tensor:
        noise = torch.from_numpy(generator.standard_normal((size, 1)))
        return self.scm[name]({"u": noise}, parents)

    def render(
        self, originals: ArrayLike, attributes: Mapping[str, ArrayLike]
    ) -> NDArray[np.uint8]:
        """Draw images ``(N, *image)`` with given attributes: the true mechanism of the image.

        Args:
            originals: N originals of the renderer.
            attributes: ``(N,)`` each; names that are not attributes are ignored.

        Raises:
            ValueError: If the world has no renderer, or an original or an attribute has another
                shape or is outside of its domain.
        """
        return self.renderer.render(*self.check_drawing(originals, attributes))

    def measure(self, images: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Measure the attributes that cause the image, as :meth:`Renderer.measure` does."""
        return self.renderer.measure(images)

    def check_drawing(
        self, originals: ArrayLike, attributes: Mapping[str, ArrayLike]
    ) -> tuple[NDArray[Any], dict[str, NDArray[np.float64]]]:
        """Check the arguments of :meth:`render`, and return them as arrays."""
        rows = self.renderer.check_originals(originals)
        missing = [name for name in self.attributes if name not in attributes]
        if missing:
            raise ValueError(
                f"expected values of {', '.join(self.attributes)}, but {', '.join(missing)} is "
                "missing."
            )
        size = len(rows)
        return rows, {name: self._column(name, attributes[name], size) for name in self.attributes}

    def _column(self, name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
        """Values of an attribute that can be drawn, ``(N,)``."""
        try:
            column = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name}: expected numbers, but got {values!r}.") from None
        if column.shape != (size,):
            found = len(column) if column.ndim == 1 else f"shape {column.shape}"
            raise ValueError(
                f"{name}: expected a value for each of the {size} originals, but got {found}."
            )
        inside = self.scm[name].domain.contains(torch.from_numpy(column)).numpy()
        if not inside.all():
            row = int(np.argmin(inside))
            unit = f", in {self.units[name]}" if self.units.get(name) else ""
            raise ValueError(
                f"{name}: expected {self.scm[name].domain}{unit}, but got {column[row]:g} in row "
                f"{row}; give values inside."
            )
        return column
