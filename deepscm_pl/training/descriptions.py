"""What a checkpoint remembers of its variables: units, and names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepscm_pl.training.checkpoint import read_checkpoint

__all__ = ["VariableDescriptions", "describe_variables", "read_variable_descriptions"]


class VariableDescriptions(NamedTuple):
    """What the data say of variables.

    Attributes:
        units: Of the variables that have one.
        class_names: Of the categorical variables whose classes have names, by index.
    """

    units: Mapping[str, str]
    class_names: Mapping[str, Sequence[str]]


def describe_variables(data: Any) -> dict[str, Any]:
    """Units and names of classes as plain data for a checkpoint."""
    names = {name: list(each) for name, each in getattr(data, "class_names", {}).items()}
    return {"units": dict(getattr(data, "units", {})), "class_names": names}


def read_variable_descriptions(path: str | Path) -> VariableDescriptions:
    """What a checkpoint remembers of the variables; older ones than that know nothing.

    Texts are those of the file: escape them (:mod:`deepscm_pl.escaping`) where they are shown.

    Args:
        path: The ``.ckpt`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign or hostile.
    """
    kept = read_checkpoint(path, settings=()).get("descriptions", {})
    try:
        units = {str(name): str(unit) for name, unit in kept.get("units", {}).items()}
        names = {
            str(name): tuple(str(text) for text in texts)
            for name, texts in kept.get("class_names", {}).items()
        }
    except (AttributeError, TypeError):
        raise ValueError(
            f"checkpoint: {path} describes its variables in another form than expected; use "
            "another checkpoint of the same run."
        ) from None
    return VariableDescriptions(units, names)
