"""A model of any kind in a checkpoint, by the path of the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepscm_pl.configuration import restore_class
from deepscm_pl.training.deep_scm import DeepSCM
from deepscm_pl.training.watched import WatchedModule

__all__ = ["trained_class"]


def trained_class(
    path: str | Path, checkpoint: Mapping[str, Any], trust: Sequence[str] = ()
) -> type[Any]:
    """The class of the model in a checkpoint, which has a method ``load_from_checkpoint``.

    Args:
        path: The file, for messages.
        checkpoint: As :func:`~deepscm_pl.training.read_checkpoint` returns it.
        trust: Packages whose classes the file may name, in addition to this one.

    Raises:
        ValueError: If the checkpoint names anything but such a class.
    """
    name = checkpoint.get("model_class")
    if name is None:
        return DeepSCM
    try:
        return restore_class(name, (WatchedModule,), trust)
    except ValueError as error:
        raise ValueError(f"checkpoint: {path} names no model of this program: {error}") from None
