"""Judges, which read variables from images, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.data import measure_attributes
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData

__all__ = ["Judge", "errors_of", "estimate_of", "morphometry", "require_judges"]


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


def errors_of(
    judge: Judge,
    images: Tensor,
    targets: Mapping[str, Tensor],
    categories: Mapping[str, int | None],
) -> dict[str, Tensor]:
    """Judge images against target values.

    Args:
        judge: The judge.
        images: Grey levels ``(N, *shape)``.
        targets: Values ``(N, 1)`` of at least the variables that the judge reads.
        categories: Number of classes of each variable, None for numbers.

    Returns:
        For each variable the absolute error ``(N,)``, NaN where an image cannot be judged; for
        classes 1 where the class is the target, else 0.
    """
    found = {}
    for name, value in judge.read(images).items():
        if name not in targets:
            continue
        target = targets[name].flatten().double().cpu()
        value = value.flatten().double().cpu()
        is_class = categories[name] is not None
        found[name] = (value == target).double() if is_class else (value - target).abs()
    return found


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
