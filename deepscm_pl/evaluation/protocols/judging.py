"""Judges, which read variables from images, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.data import measure_attributes
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData

__all__ = ["Judge", "Reading", "estimate_of", "morphometry", "readings_of", "require_judges"]


@dataclass(frozen=True)
class Judge:
    """A reader of variables from images, which is no part of the model.

    Attributes:
        kind: ``network`` or ``morphometry``.
        variables: The variables that it reads.
        read: From grey levels ``(N, *shape)`` to the value of each variable, ``(N,)``: a number in
            its unit, NaN where it cannot be read, or a class index.
        digest: Digest of the weights of a network; empty for a measurement.
    """

    kind: str
    variables: Sequence[str]
    read: Callable[[Tensor], Mapping[str, Tensor]]
    digest: str = ""


def morphometry(model: ModelOnData, workers: int | None = None) -> list[Judge]:
    """Return the judge that measures images of a known world; none without one."""
    world, names = model.world, model.measured
    if world is None or not names:
        return []

    def read(images: Tensor) -> dict[str, Tensor]:
        found = measure_attributes(world, world.without_channels(images), workers, progress=False)
        return {name: torch.from_numpy(found[name]) for name in names}

    return [Judge("morphometry", names, read)]


def require_judges(model: ModelOnData, judges: Sequence[Judge], protocol: str) -> list[str]:
    """Return the causes of the image, each of which has a judge.

    Raises:
        ValueError: If there is not one image, or a cause has no judge.
    """
    images = model.scm.image_variables
    if len(images) != 1:
        raise ValueError(
            f"protocol {protocol}: expected a model of one image, but got {len(images)}; choose "
            "another checkpoint."
        )
    causes = list(model.scm.graph.parents[images[0]])
    scalars = [name for name in causes if name in model.scalars]
    judged = {name for each in judges for name in each.variables}
    if not scalars or (missing := [name for name in scalars if name not in judged]):
        wanted = ", ".join(missing) if scalars else "a cause of the image"
        raise ValueError(
            f"protocol {protocol}: expected a judge of each cause of the image, but there is none "
            f"of {wanted}; train one (deepscm fit --config morphomnist/judge_digit) and give "
            "--judge VARIABLE=FILE."
        )
    return scalars


@dataclass(frozen=True)
class Reading:
    """What a judge read of one variable from N images, and what it should have read.

    Attributes:
        variable: The variable.
        judge: The kind of the judge.
        value: What it read, ``(N,)``; NaN where an image cannot be judged.
        target: What it should have read, ``(N,)``.
        is_class: Whether values are class indices.
    """

    variable: str
    judge: str
    value: Tensor
    target: Tensor
    is_class: bool

    @property
    def errors(self) -> Tensor:
        """Absolute errors ``(N,)``; for classes 1 where the class is the target, else 0.

        Example:
            >>> one, two = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0])
            >>> Reading("age", "network", one, two, is_class=False).errors
            tensor([1., 0.])
        """
        if self.is_class:
            return (self.value == self.target).to(self.value)
        return (self.value - self.target).abs()


def readings_of(
    judge: Judge,
    images: Tensor,
    targets: Mapping[str, Tensor],
    categories: Mapping[str, int | None],
) -> dict[str, Reading]:
    """Judge images against target values.

    Args:
        judge: The judge.
        images: Grey levels ``(N, *shape)``.
        targets: Values ``(N, 1)``; variables without one are left out.
        categories: Number of classes of each variable, None for numbers.
    """
    return {
        name: Reading(
            name,
            judge.kind,
            value.flatten().double().cpu(),
            targets[name].flatten().double().cpu(),
            categories[name] is not None,
        )
        for name, value in judge.read(images).items()
        if name in targets
    }


def estimate_of(errors: Tensor) -> Estimate:
    """Return the mean of values ``(N,)`` that are not NaN, and its standard error.

    Example:
        >>> estimate_of(torch.tensor([1.0, 3.0, torch.nan]))
        Estimate(mean=2.0, standard_error=1.0, rows=2)
    """
    known = errors[~errors.isnan()].double()
    count = len(known)
    mean = float(known.mean()) if count else float("nan")
    error = float(known.std() / count**0.5) if count > 1 else float("nan")
    return Estimate(mean, error, count)
