"""Models in repositories of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepscm_pl.checkpoints.loading import TrainedModel, load
from deepscm_pl.checkpoints.stored_observations import observations_beside
from deepscm_pl.shipped.hub import ModelFolder, check_repository, download, upload
from deepscm_pl.shipped.names import CARD, MODEL

__all__ = ["from_pretrained", "push"]


def from_pretrained(
    repository: str,
    revision: str | None = None,
    map_location: Any = "cpu",
    trust: Sequence[str] = (),
) -> TrainedModel:
    """Load a model of the Hugging Face Hub, as :func:`~deepscm_pl.load` does from a file.

    The model, its observations and its card are downloaded once into the cache of the Hub; no code
    in them is executed. This needs the library huggingface_hub, the extra ``hub``.

    Args:
        repository: The name of a model repository, ``owner/name``.
        revision: A branch, a tag or a commit; None for the main branch. Name a commit to get the
            same model every time.
        map_location: Device of the tensors, as in :func:`torch.load`.
        trust: Packages whose classes the file may name, in addition to those of this package.

    Raises:
        FileNotFoundError: If there is no such repository or revision, or there is no connection and
            the model is not in the cache.
        ValueError: If a name is not valid, the library is not installed, or the file is no model of
            this program, of a newer format or too large.
    """
    return load(download(repository, revision), map_location, trust)


def push(
    folder: str | Path, repository: str, private: bool = False, trust: Sequence[str] = ()
) -> str:
    """Upload a model with its card, and its observations if it has some, to the Hugging Face Hub.

    Everything is checked first, so that nothing is uploaded that :func:`from_pretrained` refuses.

    Args:
        folder: A folder with ``model.safetensors``, ``README.md`` and perhaps
            ``observations.safetensors``; other files are not uploaded.
        repository: The name of the model repository, ``owner/name``, made if it does not exist.
        private: Whether a new repository can be seen by its owner only.
        trust: Packages whose classes the file may name, in addition to those of this package.

    Returns:
        The address of the repository.

    Raises:
        FileNotFoundError: If the folder has no model or no card.
        ValueError: If a file or the name is not valid, the library huggingface_hub is not
            installed, or the upload fails.
    """
    found = ModelFolder(Path(folder))
    check_repository(repository)
    if CARD not in found.files:
        raise FileNotFoundError(
            f"folder: expected a model card {CARD} in {folder}; make it by 'deepscm export --card "
            "DIR', with a folder that 'deepscm test' has written for this model."
        )
    path = found.path / MODEL
    observations_beside(path, load(path, trust=trust).scm)
    return upload(found, repository, private)
