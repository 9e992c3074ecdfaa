"""Arguments of version 0.1 that have successors: translated in checkpoints, named in errors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

__all__ = [
    "FORMER_DEFAULTS",
    "SUCCESSORS",
    "names_successors",
    "successor_hint",
    "translated",
    "with_former_defaults",
]

_Class = TypeVar("_Class", bound=type)

_SCAN_SETTINGS = {
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
        **{name: f"{group}.{name}" for group, names in _SCAN_SETTINGS.items() for name in names},
        "split_column": "splits.column",
        "fractions": "splits.fractions",
        "stratify": "splits.stratify",
        "split_seed": "splits.seed",
        "cache_dir": "cache.folder",
    },
}
"""For each class its arguments of version 0.1 and their successors."""

FORMER_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"hidden": []}
    for name in ("AffineFlow", "Bernoulli", "Categorical", "Ordinal", "ZeroInflatedFlow")
}
"""For each class the arguments whose defaults were others, which checkpoints without them mean.

Checkpoints contain the values of these arguments, also where they are the defaults of today.
"""


def with_former_defaults(target: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults that described arguments of a class, or of one derived from it, meant.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> with_former_defaults(AffineFlow, {}), with_former_defaults(AffineFlow, {"hidden": [8]})
        ({'hidden': []}, {'hidden': [8]})
    """
    for each in target.__mro__:
        if each.__module__.startswith(__name__.partition(".")[0]) and (
            former := FORMER_DEFAULTS.get(each.__name__)
        ):
            # A derived class with a constructor of its own has its own defaults.
            is_inherited = target.__init__ is each.__init__  # type: ignore[misc]
            return {**former, **arguments} if is_inherited else dict(arguments)
    return dict(arguments)


def successor_hint(words: Iterable[str], message: str) -> str:
    """Name the successor of an argument of version 0.1, as ``; x of Class is now y``, or nothing.

    Args:
        words: Arguments that were not accepted.
        message: The error message.
    """
    # Other classes also have settings with names such as shape.
    owners = [each for each in SUCCESSORS if each in message or each == "ConditionalVAE"]
    owners += ["BrainMRIDataModule"] if "--data." in message else []
    for name in (part for word in words for part in word.split(".")):
        for owner in owners:
            if name in SUCCESSORS[owner]:
                return f"; {name} of {owner} is now {SUCCESSORS[owner][name]}"
    if "overlay: expected a list" in message:
        return "; name the parents there, and give the class of the layer as layer"
    return ""


def names_successors(owner: _Class) -> _Class:
    """Decorate a class of :data:`SUCCESSORS`, so that errors of its constructor name them."""
    construct: Callable[..., None] = owner.__init__  # type: ignore[misc]
    successors = SUCCESSORS[owner.__name__]

    @functools.wraps(construct)
    def checked(self: Any, *arguments: Any, **named: Any) -> None:
        for name in (name for name in named if name in successors):
            raise TypeError(f"{owner.__name__}: {name} is now {successors[name]}; set it there.")
        construct(self, *arguments, **named)

    owner.__init__ = checked  # type: ignore[misc]
    return owner


def translated(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Translate described arguments of a class from version 0.1; current ones are not changed.

    Example:
        >>> translated("BrainMRIDataModule", {"root": "scans", "axis": "axial", "slices": [3]})
        {'root': 'scans', 'slicing': {'axis': 'axial', 'slices': [3]}}
    """
    found = dict(arguments)
    if name == "ConditionalVAE":
        likelihood = {"brightness": found.pop("brightness", None)}
        place, overlay = found.pop("placed_by", None), found.pop("overlaid_by", None)
        _set(found, "likelihood", {key: value for key, value in likelihood.items() if value})
        decoder = {"place": place} if place or place == [] else {}
        _set(found, "decoder", decoder | ({"overlay": overlay} if overlay else {}))
        return found
    if name == "TemplateDecoder":
        if not isinstance(found.get("overlay", ()), list | tuple):
            layer = found.pop("overlay")
            found.setdefault("layer", layer)
        return found
    for old in [old for old in found if old in SUCCESSORS.get(name, {})]:
        group, _, new = SUCCESSORS[name][old].partition(".")
        found[group] = {**found.get(group, {}), new: found.pop(old)}
    return found


def _set(arguments: dict[str, Any], owner: str, values: Mapping[str, Any]) -> None:
    """Set values in the arguments of a described class, if it is described."""
    described = arguments.get(owner)
    if not values or not isinstance(described, Mapping):
        return
    init_args = described.get("init_args") or {}
    if isinstance(init_args, Mapping):
        name = str(described.get("class_path")).rpartition(".")[2]
        arguments[owner] = {**described, "init_args": {**translated(name, init_args), **values}}
