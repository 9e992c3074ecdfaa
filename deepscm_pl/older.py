"""Arguments of version 0.1 that have moved: translated in checkpoints, named in errors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

__all__ = ["SUCCESSORS", "names_successors", "successor_hint", "translated"]

_Class = TypeVar("_Class", bound=type)

_GROUPS = {
    "subjects": ("table", "images", "identifier", "visits", "columns", "kinds", "units", "missing"),
    "slicing": ("axis", "slices"),
    "preprocessing": (
        "normalisation",
        "percentiles",
        "window",
        "foreground_above",
        "crop_foreground",
        "margin",
        "field_of_view",
        "voxel_size",
        "shape",
    ),
    "cache": ("workers", "memory", "progress"),
}

SUCCESSORS: dict[str, dict[str, str]] = {
    "ConditionalVAE": {
        "brightness": "likelihood.init_args.brightness",
        "placed_by": "decoder.init_args.place",
        "overlaid_by": "decoder.init_args.overlay",
    },
    "BrainMRIDataModule": {
        **{name: f"{group}.{name}" for group, names in _GROUPS.items() for name in names},
        "split_column": "splits.column",
        "fractions": "splits.fractions",
        "stratify": "splits.stratify",
        "split_seed": "splits.seed",
        "cache_dir": "cache.folder",
    },
}
"""For each class the arguments that it had in version 0.1, and where their values belong now."""


_OVERLAY = "overlay: expected a list"


def successor_hint(words: Iterable[str], message: str) -> str:
    """``; x of Class is now y``, if a word is an argument of version 0.1, or nothing.

    Args:
        words: Arguments that were not accepted.
        message: Why.
    """
    # Names of settings of scans, such as shape, are also those of other classes.
    owners = [each for each in SUCCESSORS if each in message or each == "ConditionalVAE"]
    owners += ["BrainMRIDataModule"] if "--data." in message else []
    for name in (part for word in words for part in word.split(".")):
        for owner in owners:
            if name in SUCCESSORS[owner]:
                return f"; {name} of {owner} is now {SUCCESSORS[owner][name]}"
    if _OVERLAY in message:
        return "; name the parents there, and give the class of the layer as layer"
    return ""


def names_successors(owner: _Class) -> _Class:
    """Decorate a class of :data:`SUCCESSORS`: its constructor names them where one is used."""
    construct: Callable[..., None] = owner.__init__  # type: ignore[misc]
    successors = SUCCESSORS[owner.__name__]

    @functools.wraps(construct)
    def checked(self: Any, *arguments: Any, **named: Any) -> None:
        for name in successors.keys() & named.keys():
            raise TypeError(f"{owner.__name__}: {name} is now {successors[name]}; set it there.")
        construct(self, *arguments, **named)

    owner.__init__ = checked  # type: ignore[misc]
    return owner


def translated(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Described arguments of a class as this version takes them.

    Args:
        name: The class.
        arguments: Of version 0.1, or of this one, which stay as they are.

    Example:
        >>> translated("BrainMRIDataModule", {"root": "scans", "axis": "axial", "slices": [3]})
        {'root': 'scans', 'slicing': {'axis': 'axial', 'slices': [3]}}
    """
    found = dict(arguments)
    if name == "ConditionalVAE":
        return _of_an_image(found)
    if name == "TemplateDecoder":
        return _of_a_template(found)
    for old in SUCCESSORS.get(name, {}).keys() & found.keys():
        group, _, new = SUCCESSORS[name][old].partition(".")
        found[group] = {**found.get(group, {}), new: found.pop(old)}
    return found


def _of_an_image(arguments: dict[str, Any]) -> dict[str, Any]:
    brightness = arguments.pop("brightness", None)
    if brightness:
        _set(arguments, "likelihood", brightness=brightness)
    structure = {"place": arguments.pop("placed_by", None)}
    structure["overlay"] = arguments.pop("overlaid_by", None)
    given = {name: value for name, value in structure.items() if value or value == []}
    if given.get("overlay") == []:
        del given["overlay"]
    if given:
        _set(arguments, "decoder", **given)
    return arguments


def _of_a_template(arguments: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(arguments.get("overlay", ()), list | tuple):
        layer = arguments.pop("overlay")
        arguments.setdefault("layer", layer)
    return arguments


def _set(arguments: dict[str, Any], owner: str, **values: Any) -> None:
    """Put values into the arguments of a described class, if it is described."""
    described = arguments.get(owner)
    if isinstance(described, Mapping) and isinstance(described.get("init_args", {}), Mapping):
        name = str(described.get("class_path")).rpartition(".")[2]
        init_args = translated(name, described.get("init_args") or {})
        arguments[owner] = {**described, "init_args": {**init_args, **values}}
