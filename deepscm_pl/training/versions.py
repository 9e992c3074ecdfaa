"""Which version of the program wrote a checkpoint, and whether this one can read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deepscm_pl.training.one_line import one_line

__all__ = ["FORMAT", "check_format", "stamp"]

FORMAT = 2
"""Raised whenever older versions of the program would misread a checkpoint.

2 counts the rows of an epoch that were trained on; 1 counted batches. All are read.
"""

_KEY = "deepscm_pl"
_VERSION = re.compile(r"\d[\w.!+-]*")


def stamp(checkpoint: dict[str, Any]) -> None:
    """Note in ``checkpoint`` the version of the package and the number of the format.

    Example:
        >>> checkpoint = {}
        >>> stamp(checkpoint)
        >>> sorted(checkpoint["deepscm_pl"])
        ['format', 'version']
    """
    try:
        found = version("deepscm_pl")
    except PackageNotFoundError:
        found = "unknown"
    checkpoint[_KEY] = {"version": found, "format": FORMAT}


def check_format(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse what a newer program wrote; a checkpoint without a number is an old one.

    Raises:
        ValueError: If the format is newer than this program knows, or is no number.
    """
    if _KEY not in checkpoint:
        return
    found = checkpoint[_KEY]
    number = found.get("format") if isinstance(found, Mapping) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(
            f"checkpoint: {path} does not say its format: expected a whole number from 1 as "
            f"{_KEY}.format, but got {_shown(repr(number))}; use another checkpoint of the same "
            "run."
        )
    if number > FORMAT:
        writer = _shown(found.get("version"))
        wanted = f"at least version {writer}" if _VERSION.fullmatch(writer) else "a newer version"
        raise ValueError(
            f"checkpoint: {path} was written by deepscm_pl {writer} in format {_shown(number)}, "
            f"and this program reads formats up to {FORMAT}; install {wanted} of deepscm_pl."
        )


def _shown(value: object) -> str:
    return one_line(value, longest=40)
