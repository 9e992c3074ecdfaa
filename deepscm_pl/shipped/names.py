"""The names of models, and the files that they stand for."""

from __future__ import annotations

import re
from pathlib import Path

from deepscm_pl.checks import nearest

__all__ = ["CARD", "MODEL", "OBSERVATIONS", "find_model", "model_names", "model_title"]

MODEL, OBSERVATIONS, CARD = "model.safetensors", "observations.safetensors", "README.md"
"""The files of a model: itself, observations to ask about, and its card."""

_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
_PACKAGE = Path(__file__).parents[1]
_REPOSITORY = _PACKAGE.parent


def model_names() -> dict[str, Path]:
    """Return the file of each model that has a name.

    These are the models inside the package and, if the package is imported from a clone of its
    repository, those in its folder ``models``.

    Example:
        >>> "digits" in model_names()
        True
    """
    folders = [_PACKAGE / "shipped" / "models"]
    if (_REPOSITORY / "setup.cfg").is_file() and (_REPOSITORY / "experiments").is_dir():
        folders.append(_REPOSITORY / "models")
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"*/{MODEL}")):
            found.setdefault(path.parent.name, path)
    return found


def find_model(path: str | Path) -> Path:
    """Return the file of a model.

    Args:
        path: The path of a file, or a name of :func:`model_names`. A file in the current folder
            comes before a model of the same name.

    Returns:
        The path of the file; a path that is no name is returned unchanged, if it exists or not.

    Raises:
        FileNotFoundError: If a name is unknown.

    Example:
        >>> find_model("digits").name
        'model.safetensors'
        >>> find_model("digit")
        Traceback (most recent call last):
            ...
        FileNotFoundError: checkpoint: there is no file digit, and no model of this name; did you
        mean 'digits'? The models of this installation are digits...
    """
    path = Path(path)
    if path.is_file() or not _NAME.fullmatch(str(path)):
        return path
    known = model_names()
    if str(path) not in known:
        hint = nearest(str(path), known, otherwise=".")
        raise FileNotFoundError(
            f"checkpoint: there is no file {path}, and no model of this name{hint} The models of "
            f"this installation are {', '.join(known) or 'none'}; give the path of a file, such as "
            "models/NAME/model.safetensors in a clone of the repository, or load one of the "
            "Hugging Face Hub by deepscm_pl.from_pretrained('owner/name')."
        )
    return known[str(path)]


def model_title(path: str | Path) -> str:
    """Return what people call a model: its name, or the name of its file or folder.

    Example:
        >>> model_title("digits"), model_title("models/brain/model.safetensors")
        ('digits', 'brain')
        >>> model_title("runs/full/last.ckpt")
        'last.ckpt'
    """
    path = Path(path)
    is_named = path.name == MODEL and path.parent.name
    return path.parent.name if is_named else path.name.removesuffix(".safetensors")
