"""Which variables of a model can be drawn, and how they are called in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from deepscm_pl.graph import CausalGraph
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Variables

__all__ = [
    "check_scalars",
    "grey_levels",
    "label_with_unit",
    "observation_labels",
    "pictures",
    "restrict",
    "scalars",
]

NO_PICTURES = "the model has no image of 1 or 3 channels."


def pictures(scm: StructuralCausalModel) -> tuple[str, ...]:
    """The variables that can be shown as pictures: images and volumes of 1 or 3 channels."""
    return tuple(name for name in scm.image_variables if scm[name].domain.shape[0] in (1, 3))


def scalars(scm: StructuralCausalModel) -> tuple[str, ...]:
    """The variables whose values are single numbers, categories included."""
    return tuple(name for name in scm.graph.nodes if scm[name].domain.shape == (1,))


def check_scalars(scm: StructuralCausalModel, argument: str, names: Iterable[str]) -> None:
    """Raise unless every one of ``names`` is a continuous scalar of the model.

    Raises:
        ValueError: Naming the argument, the variable, and those to choose from.
    """
    continuous = [name for name in scalars(scm) if scm[name].domain.categories is None]
    for name in names:
        if name not in continuous:
            kind = "no continuous scalar" if name in scm.graph else "unknown"
            raise ValueError(
                f"{argument}: the variable {name!r} is {kind}; expected some of "
                f"{', '.join(continuous) or 'none, for there is no such variable'}."
            )


def grey_levels(scm: StructuralCausalModel, name: str) -> int:
    """Number of grey levels of an image variable."""
    return round(scm[name].domain.upper) + 1


def observation_labels(observations: Variables, split: str, count: int) -> list[str]:
    """The published split and row of each of the first ``count`` observations, ``test 7``."""
    numbers: Sequence[int] = range(count)
    if "index" in observations:
        numbers = observations["index"][:count].flatten().tolist()
    # Validation rows are numbered within the published training split.
    source = "test" if split == "test" else "train"
    return [f"{source} {number}" for number in numbers]


def label_with_unit(name: str, units: Mapping[str, str]) -> str:
    """``thickness (pixels)``, or the name alone where there is no unit.

    Example:
        >>> label_with_unit("heart_volume", {"heart_volume": "ml"})
        'heart volume (ml)'
    """
    spoken = name.replace("_", " ")
    return f"{spoken} ({units[name]})" if name in units else spoken


def restrict(scm: StructuralCausalModel, names: Iterable[str]) -> StructuralCausalModel:
    """The model of ``names`` and their causes alone; it shares the mechanisms.

    What is asked of attributes then costs nothing for the images that follow from them.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("age -> volume", {"age": AffineFlow, "volume": AffineFlow})
        >>> restrict(scm, ["age"]).graph.nodes
        ('age',)
    """
    wanted = tuple(names)
    kept = {*wanted, *scm.graph.ancestors(*wanted)}
    parents = {name: causes for name, causes in scm.graph.parents.items() if name in kept}
    part = StructuralCausalModel(CausalGraph(parents), {name: scm[name] for name in parents})
    part.fitted = scm.fitted.clone()
    # Not train(), which would reach into the mechanisms that both models share.
    part.training = scm.training
    return part
