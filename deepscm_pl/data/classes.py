"""Whether a model takes for classes what the data have as classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepscm_pl.scm import StructuralCausalModel

__all__ = ["check_classes"]


def check_classes(scm: StructuralCausalModel, class_names: Mapping[str, Sequence[str]]) -> None:
    """Raise unless variables that are classes have mechanisms of as many classes.

    Args:
        scm: The model.
        class_names: Of the variables of the data that are classes.

    Raises:
        ValueError: Naming the variable, its classes and its mechanism.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> check_classes(StructuralCausalModel("sex", {"sex": AffineFlow}), {"sex": ("f", "m")})
        Traceback (most recent call last):
            ...
        ValueError: mechanisms: sex is one of 2 classes (f, m), but AffineFlow expects values in ...
    """
    for name, classes in class_names.items():
        if name not in scm.graph.nodes or scm[name].domain.categories == len(classes):
            continue
        fitting = (
            "Bernoulli" if len(classes) == 2 else f"Categorical with categories: {len(classes)}"
        )
        raise ValueError(
            f"mechanisms: {name} is one of {len(classes)} classes ({', '.join(classes)}), but "
            f"{type(scm[name]).__name__} expects {scm[name].domain}; give it "
            f"deepscm_pl.mechanisms.{fitting}, or declare it of another kind."
        )
