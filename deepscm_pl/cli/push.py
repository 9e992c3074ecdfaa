"""``push``: upload a model with its card to the Hugging Face Hub."""

# ruff: noqa: D417 - options of several commands are described once, with their types

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from deepscm_pl.cli.options import Option, Trusted
from deepscm_pl.escaping import for_terminal

__all__ = ["push"]


def push(
    folder: Annotated[Path, Option("DIR", ("folder",))],
    repository: Annotated[str, Option("OWNER/NAME", ("repository",))],
    private: bool = False,
    trust: Trusted = (),
) -> None:
    """Upload a model with its card to the Hugging Face Hub, for deepscm_pl.from_pretrained.

    Args:
        folder: Folder of deepscm export --card: model.safetensors, README.md and, if there is one,
            observations.safetensors.
        repository: Model repository; it is made if it does not exist.
        private: Make a new repository private.
    """
    from deepscm_pl.checkpoints import push as push_model
    from deepscm_pl.runs.noise import without_noise
    from deepscm_pl.shipped.hub import ModelFolder

    with without_noise():
        url = push_model(folder, repository, private, trust)
    print(f"uploaded: {', '.join(ModelFolder(folder).files)} to {for_terminal(url)}")
    print(f"\nLoad it in Python:   deepscm_pl.from_pretrained({repository!r})")
