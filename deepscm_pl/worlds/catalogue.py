"""The known worlds by name, and their description in a data set's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from deepscm_pl.files import new_file
from deepscm_pl.worlds.base import KnownWorld
from deepscm_pl.worlds.brain import BrainWorld
from deepscm_pl.worlds.colour import ColourWorld
from deepscm_pl.worlds.digits import (
    ThicknessIntensityFallingWorld,
    ThicknessIntensitySlantWorld,
    ThicknessIntensityWorld,
    ThicknessSlantWorld,
    ThicknessWidthWorld,
)

__all__ = ["DIGIT_WORLDS", "WORLDS", "known_world", "read_world", "write_world"]

DIGIT_WORLDS: tuple[type[KnownWorld], ...] = (
    ThicknessIntensityWorld,
    ThicknessIntensityFallingWorld,
    ThicknessSlantWorld,
    ThicknessWidthWorld,
    ThicknessIntensitySlantWorld,
    ColourWorld,
)
"""Worlds in which digits of MNIST are drawn."""

WORLDS: tuple[type[KnownWorld], ...] = (*DIGIT_WORLDS, BrainWorld)
"""All known worlds."""


def known_world(name: str, parameters: Mapping[str, float] | None = None) -> KnownWorld:
    """Make the world of a name.

    ``parameters`` are numbers of its equations that differ from the published ones.

    Raises:
        ValueError: If there is no such world, or a parameter is unknown, no number, or out of
            range.

    Example:
        >>> known_world("thickness-intensity").attributes
        ('thickness', 'intensity')
    """
    classes: dict[str, Callable[..., KnownWorld]] = {each.name: each for each in WORLDS}
    if name not in classes:
        raise ValueError(f"world must be one of {', '.join(classes)}, got {name!r}.")
    known = classes[name]().parameters()
    for key, value in (parameters or {}).items():
        if key not in known:
            raise ValueError(f"the world {name} has no parameter {key!r}; use {', '.join(known)}.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the parameter {key} of a world must be a number, got {value!r}.")
    return classes[name](**(parameters or {}))


def write_world(path: str | Path, world: KnownWorld) -> None:
    """Write the name and the parameters of a world as JSON; the folder must exist."""
    content = {"world": world.name, "parameters": world.parameters()}
    with new_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")


def read_world(path: str | Path) -> KnownWorld:
    """Read a world that :func:`write_world` has written.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such JSON, or names no known world.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or not a file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return known_world(content["world"], content["parameters"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} should describe a world as JSON, {{"world": name, "parameters": '
            f"{{name: number}}}}, but got {type(error).__name__}: {error}; generate the data set "
            "again with `deepscm data`."
        ) from None
