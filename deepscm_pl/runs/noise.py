"""Silence about what nobody who runs a command can act on; nothing here needs Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_noise"]

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
_NOISE = (
    "💡",
    "GPU available: False",
    "TPU available: False",
    "Loading `",
    "`Trainer.fit` stopped: `max_",  # on the line of the progress bar
)


@contextmanager
def without_noise() -> Iterator[None]:
    """Suppress advertisements of Lightning, and deprecation warnings of other packages."""
    handlers = [h for name in _LOGGERS for h in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(_is_useful)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"(?!deepscm_pl\b)")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOISE)
