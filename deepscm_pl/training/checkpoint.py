"""Reading checkpoints that may be missing, broken, foreign or hostile."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint"]


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of :class:`~deepscm_pl.training.DeepSCM`, tensors and plain data only.

    Nothing in the file is executed: anything but tensors and plain data is refused.

    Args:
        path: The ``.ckpt`` file.
        map_location: Where the tensors go, as in :func:`torch.load`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, holds anything else, or is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint: there is no file {path}; a run keeps its checkpoints in the folder "
            "'checkpoints' inside its log folder."
        )
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint: {path} is refused, for it is no checkpoint or holds objects that would "
            f"run code when loaded ({_first_line(error)}); load only what this program saved."
        ) from None
    except Exception as error:  # a broken file breaks the reader in many ways
        raise ValueError(
            f"checkpoint: {path} cannot be read ({_first_line(error)}); it is truncated or no "
            "checkpoint. Use another one of the same run."
        ) from None
    _check_kind(path, checkpoint)
    return dict(checkpoint)


def _check_kind(path: Path, checkpoint: Any) -> None:
    keys = ("state_dict", "hyper_parameters")
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in keys):
        raise ValueError(
            f"checkpoint: {path} is no checkpoint of a DeepSCM: expected the entries "
            f"{' and '.join(keys)}."
        )
    settings = checkpoint["hyper_parameters"]
    if not isinstance(settings, dict) or not {"graph", "mechanisms"} <= settings.keys():
        raise ValueError(
            f"checkpoint: {path} belongs to another kind of model: its settings have no graph and "
            "no mechanisms."
        )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
