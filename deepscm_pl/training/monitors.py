"""Quantities that callbacks watch, compared with those that a model logs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import pytorch_lightning as pl

__all__ = ["check_monitors"]

_WITH_KNOWN_QUANTITIES = ("deepscm_pl", "pytorch_lightning", "lightning")
_ALWAYS_LOGGED = ("epoch", "step", "bound")
_UNLISTED = "train/"
"""Objectives and callbacks log quantities of their own there."""


def check_monitors(trainer: pl.Trainer, model: pl.LightningModule, names: Iterable[str]) -> None:
    """Raise where a callback watches a quantity that nobody logs.

    Callbacks and models of other packages may log anything, so that with any of them nothing is
    refused here.

    Args:
        trainer: Its callbacks are looked at, such as checkpoints and early stopping.
        model: The model that logs.
        names: What it logs in validation, as ``validation/bound``.

    Raises:
        ValueError: Naming the callback, the quantity and the nearest one that is logged.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not all(_is_known(each) for each in (*callbacks, model)):
        return
    logged = [*names, *_ALWAYS_LOGGED]
    for callback in callbacks:
        watched = getattr(callback, "monitor", None)
        if not isinstance(watched, str) or watched in logged or watched.startswith(_UNLISTED):
            continue
        near = difflib.get_close_matches(watched, logged, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(logged)}."
        raise ValueError(
            f"monitor: {type(callback).__name__} watches {watched!r}, which is not logged; {hint}"
        )


def _is_known(part: object) -> bool:
    return type(part).__module__.partition(".")[0] in _WITH_KNOWN_QUANTITIES
