"""Model repositories of the Hugging Face Hub: their files are downloaded, or uploaded.

Only the model, its observations and its card are read and written: no pickle, and no program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscm_pl.checks import shown
from deepscm_pl.escaping import one_line
from deepscm_pl.memory import format_bytes
from deepscm_pl.shipped.names import CARD, MODEL, OBSERVATIONS

__all__ = ["MOST_BYTES", "ModelFolder", "check_repository", "download", "upload"]

MOST_BYTES = {MODEL: 5_000_000_000, OBSERVATIONS: 400_000_000, CARD: 5_000_000}
"""The files of a model repository, with the largest size that is downloaded or uploaded."""

_REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w-][\w./-]{0,199}", re.ASCII)


@dataclass(frozen=True)
class ModelFolder:
    """A folder with the files of a model, which are complete and of allowed sizes.

    Attributes:
        path: The folder.
        files: The names of those of its files that belong to the model.

    Raises:
        FileNotFoundError: If the folder has no model.
        ValueError: If a file is too large.
    """

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / MODEL).is_file():
            raise FileNotFoundError(
                f"folder: expected a folder with {MODEL}, but got {self.path}; make it by "
                "'deepscm export --card DIR --out FOLDER/model.safetensors'."
            )
        check_sizes({name: (self.path / name).stat().st_size for name in self.files}, self.path)

    @property
    def files(self) -> list[str]:
        """The names of the files that belong to the model."""
        return [name for name in MOST_BYTES if (self.path / name).is_file()]


def check_repository(repository: Any, revision: Any = None) -> None:
    """Raise ValueError unless the names of a repository and of a revision are possible.

    Example:
        >>> check_repository("someone/heads")
        >>> check_repository("heads")
        Traceback (most recent call last):
            ...
        ValueError: repository: expected a name such as 'owner/name', but got 'heads'.
    """
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        raise ValueError(
            f"repository: expected a name such as 'owner/name', but got {shown(repository)}."
        )
    if revision is None:
        return
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision:
        raise ValueError(
            "revision: expected the name of a branch or a tag, or a commit, but got "
            f"{shown(revision)}."
        )


def check_sizes(sizes: Mapping[str, int | None], where: object) -> None:
    """Raise ValueError if a file of a model is too large."""
    for name, most in MOST_BYTES.items():
        size = sizes.get(name)
        if size is not None and size > most:
            raise ValueError(
                f"{name}: expected at most {format_bytes(most)}, but that of {where} has "
                f"{format_bytes(size)}; it is not a model of this program."
            )


def download(repository: str, revision: str | None = None) -> Path:
    """Download the files of a model into the cache of the Hub, unless they are there.

    Without a connection, the files in the cache are used.

    Args:
        repository: The name, ``owner/name``.
        revision: A branch, a tag or a commit; None for the main branch.

    Returns:
        The file of the model; its observations and its card are beside it.

    Raises:
        ValueError: If a name is not valid, the library of the Hub is not installed, the repository
            has no model, may not be read, or a file is too large.
        FileNotFoundError: If there is no such repository or revision, or there is no connection and
            the model is not in the cache.
    """
    check_repository(repository, revision)
    hub = _library()
    try:
        return _downloaded(hub, repository, revision)
    except ValueError:
        raise
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise _not_found(hub, repository, revision, error) from None
    except Exception as error:  # of the library, and of those that it uses for the network
        cached = hub.try_to_load_from_cache(repository, MODEL, revision=revision)
        if isinstance(cached, str):
            return ModelFolder(Path(cached).parent).path / MODEL
        raise FileNotFoundError(
            f"repository: {repository} cannot be reached ({_reason(error)}), and this computer has "
            "no copy of it; connect to the network, or give the path of a file."
        ) from None


def _not_found(hub: Any, repository: str, revision: str | None, error: Exception) -> Exception:
    if isinstance(error, hub.errors.GatedRepoError):
        return ValueError(
            f"repository: {repository} is gated; ask for access on its page, and log in (hf auth "
            "login)."
        )
    if isinstance(error, hub.errors.RevisionNotFoundError):
        return FileNotFoundError(f"revision: {repository} has no revision {revision!r}.")
    return FileNotFoundError(
        f"repository: there is no model repository {repository}, or it is private; check the name, "
        "or log in (hf auth login)."
    )


def _downloaded(hub: Any, repository: str, revision: str | None) -> Path:
    api = _api(hub)
    info = api.model_info(repository, revision=revision, files_metadata=True)
    sizes = {each.rfilename: each.size for each in info.siblings or ()}
    if MODEL not in sizes:
        raise ValueError(
            f"repository: expected {MODEL} in {repository}, a model that 'deepscm push' has "
            f"uploaded, but it has {', '.join(map(one_line, list(sizes)[:5])) or 'no files'}."
        )
    check_sizes(sizes, repository)
    paths = [
        Path(api.hf_hub_download(repository, name, revision=revision))
        for name in MOST_BYTES
        if name in sizes
    ]
    return ModelFolder(paths[0].parent).path / MODEL


def upload(folder: ModelFolder, repository: str, private: bool = False) -> str:
    """Upload the files of a model into a repository, which is made if it does not exist.

    Args:
        folder: The files.
        repository: The name, ``owner/name``.
        private: Whether a new repository can be seen by its owner only.

    Returns:
        The address of the repository.

    Raises:
        ValueError: If the name is not valid, the library of the Hub is not installed, or the
            upload fails.
    """
    check_repository(repository)
    hub = _library()
    api = _api(hub)
    try:
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder.path,
            allow_patterns=folder.files,
            commit_message="Upload a model of deepscm_pl",
        )
    except Exception as error:  # of the library, and of those that it uses for the network
        raise ValueError(
            f"repository: {repository} could not be written ({_reason(error)}); log in with a "
            "token that may write there (hf auth login), and check the name and the connection."
        ) from None
    return str(url)


def _api(hub: Any) -> Any:
    """The client; the library itself reads HF_ENDPOINT only when it is imported."""
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="deepscm_pl")


def _reason(error: Exception) -> str:
    return one_line(str(error).strip().partition("\n")[0] or type(error).__name__, 200)


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise ValueError(
            "repository: expected huggingface_hub, which is not installed; install it by "
            "pip install 'deepscm_pl[hub]'."
        ) from None
    return huggingface_hub
