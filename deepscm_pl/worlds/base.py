"""Known worlds: structural causal models that are given, with a renderer of their images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.graph import CausalGraph
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

__all__ = ["KnownWorld", "Renderer"]


class Renderer(ABC):
    """Draws images from originals and attributes, and measures attributes in images.

    An original is what makes an image itself, such as a digit to be redrawn: the noise of the
    image. A renderer is pickled to draw in several processes. Where a part of the drawing is cheap,
    it implements :meth:`shape` and :meth:`shade` in place of :meth:`render`; shapes are cached.

    Attributes:
        attributes: The names of the attributes that cause the image.
    """

    attributes: tuple[str, ...]

    @property
    def shape_attributes(self) -> tuple[str, ...]:
        """The attributes that :meth:`shape` depends on."""
        return self.attributes

    def check_originals(self, originals: ArrayLike) -> NDArray[Any]:
        """The originals as an array of N rows.

        Raises:
            ValueError: If they are no originals of this renderer.
        """
        return np.asarray(originals)

    def drawn_shape(self, originals: NDArray[Any]) -> tuple[int, ...]:
        """The shape of the images that are drawn from originals, ``(N, *image)``."""
        return originals.shape

    @abstractmethod
    def shape(
        self, originals: NDArray[Any], attributes: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.uint8]:
        """Draw grey levels ``(N, *image)``: the costly step.

        Args:
            originals: N of them.
            attributes: At least :attr:`shape_attributes`, ``(N,)`` each.
        """

    def shade(
        self, shapes: NDArray[np.uint8], attributes: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.uint8]:
        """Finish what :meth:`shape` returned: the cheap step, which depends on all attributes."""
        return shapes

    def render(
        self, originals: NDArray[Any], attributes: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.uint8]:
        """Draw grey levels ``(N, *image)`` of originals and attributes ``(N,)``, all checked."""
        return self.shade(self.shape(originals, attributes), attributes)

    @abstractmethod
    def measure(self, images: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Measure each attribute in grey levels ``(N, *image)``: ``(N,)``, NaN where none is seen.

        Raises:
            ValueError: If the images are of another shape or not finite.
        """


class KnownWorld:
    """A structural causal model that is known: the truth to compare a learned model with.

    Its mechanisms are given (:class:`~deepscm_pl.mechanisms.Known`), and its image is drawn by a
    renderer. It answers through the same methods as any model:
    ``world.scm.counterfactual(factual, do)``, in double precision.

    Args:
        name: Of the world, as on the command line.
        scm: The attributes, without the image. The domain of an attribute holds the values that
            can be drawn; the values that it produces can be fewer.
        renderer: Draws and measures the image; None for a world of attributes only.
        units: Of the attributes that have one.
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
        """Draws and measures the image.

        Raises:
            ValueError: If the world has none.
        """
        if self._renderer is None:
            raise ValueError(
                f"the world {self.name} has no renderer, and so no images; give it one with "
                "KnownWorld(..., renderer=...), or ask for its attributes only."
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
        same = (type(self), self.name, self._parameters)
        return bool(self._parameters) and same == (type(other), other.name, other._parameters)

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def sample(self, size: int, generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        """Draw attributes, ``(N,)`` each, with random numbers of NumPy.

        Generated data sets are drawn with it: the same generator gives the same bytes.
        """
        values: dict[str, torch.Tensor] = {}
        for name, parents in self.scm.graph.parents.items():
            drawn = self._draw(name, size, {each: values[each] for each in parents}, generator)
            values[name] = drawn
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
        """Draw images with given attributes: the true mechanism of the image.

        Args:
            originals: N of them.
            attributes: ``(N,)`` each; names that are no attributes of the world are ignored.

        Returns:
            Grey levels 0 to 255, ``(N, *image)``.

        Raises:
            ValueError: If the world has no renderer, or an original or an attribute is of another
                shape or outside of its domain.
        """
        return self.renderer.render(*self.check_drawing(originals, attributes))

    def measure(self, images: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Measure the attributes that cause the image, as :meth:`Renderer.measure` does.

        Raises:
            ValueError: If the world has no renderer, or images are of another shape.
        """
        return self.renderer.measure(images)

    def check_drawing(
        self, originals: ArrayLike, attributes: Mapping[str, ArrayLike]
    ) -> tuple[NDArray[Any], dict[str, NDArray[np.float64]]]:
        """Check what is to be drawn.

        Returns:
            The originals, and the attributes of this world, ``(N,)`` each.

        Raises:
            ValueError: As for :meth:`render`.
        """
        rows = self.renderer.check_originals(originals)
        missing = [name for name in self.attributes if name not in attributes]
        if missing:
            raise ValueError(
                f"expected values of {', '.join(self.attributes)}, but {', '.join(missing)} is "
                "missing."
            )
        return rows, {
            name: self._column(name, attributes[name], len(rows)) for name in self.attributes
        }

    def _column(self, name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
        """Values of an attribute that can be drawn, ``(N,)``."""
        try:
            column = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name}: expected numbers, but got {values!r}.") from None
        if column.shape != (size,):
            found = len(column) if column.ndim == 1 else f"shape {column.shape}"
            raise ValueError(
                f"{name} must have a value for each of the {size} originals, got {found}."
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
