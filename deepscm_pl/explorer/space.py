"""A folder that runs as a Space of Hugging Face: the live page with its model and observations."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from deepscm_pl.checkpoints import load
from deepscm_pl.checkpoints.export import export_model
from deepscm_pl.checkpoints.stored_observations import observations_beside, write_observations
from deepscm_pl.escaping import for_markdown, for_terminal
from deepscm_pl.explorer.live import gradio_settings
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.questions import Explorer
from deepscm_pl.explorer.session import Session
from deepscm_pl.files import new_folder
from deepscm_pl.shipped.names import OBSERVATIONS, find_model, model_title

__all__ = ["check_space", "launch_space", "open_space", "write_space"]

_MOST_ROWS = 40
"""Observations that travel with the model."""

_APP = '''"""The live page of a causal model; see README.md."""

from pathlib import Path

from deepscm_pl.explorer.space import launch_space

launch_space(Path(__file__).parent)
'''

_README = """---
title: {title}
emoji: 🔀
colorFrom: blue
colorTo: indigo
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
---

# {heading}

Counterfactual questions to a structural causal model with the graph `{graph}`, trained with
`deepscm_pl`. Choose an observation, set a variable, and see what would have been observed.

The answers are those of a model under its graph, not facts. {rows} observations of the test split
are in `{observations}`: publish this folder only if they may be public.
"""
"""Texts of files; the names in the graph are identifiers."""


def check_space(folder: Path) -> None:
    """Raise ValueError unless a Space can be written to ``folder``."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(
            f"space: expected a new or an empty folder, but {folder} is not; name one."
        )


def write_space(
    explorer: Explorer, files: Sequence[Path], folder: Path, trust: Sequence[str] = ()
) -> list[Path]:
    """Write a folder with the model, observations and the files that a Space needs.

    Args:
        explorer: The model and its observations, of which the first 40 travel with it.
        files: The checkpoint or the name of the model, or several.
        folder: The folder, new or empty.
        trust: Packages whose classes the checkpoints may name; a Space has to install them.

    Returns:
        The files.

    Raises:
        ValueError: If the folder is not empty or cannot be written.
    """
    check_space(folder)
    count = min(_MOST_ROWS, explorer.count)
    title = for_terminal(f"What if? {model_title(files[0])}")
    texts = {
        "app.py": _APP,
        "requirements.txt": f"deepscm_pl[explore]>={version('deepscm_pl')}\n",
        "README.md": _README.format(
            title=json.dumps(title, ensure_ascii=False),
            heading=for_markdown(title),
            gradio=version("gradio"),
            graph=explorer.scm.graph,
            rows=count,
            observations=OBSERVATIONS,
        ),
    }
    with new_folder(folder) as temporary:
        for path, name in zip(files, _file_names(files), strict=True):
            export_model(find_model(path), temporary / name, trust=trust)
        write_observations(temporary / OBSERVATIONS, explorer.scm, explorer.data, count)
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def _file_names(files: Sequence[Path]) -> list[str]:
    """Names of files that say which model it is; numbers keep those of several in their order."""
    names = [f"{model_title(path).removesuffix('.ckpt')}.safetensors" for path in files]
    if len(names) == 1 and names[0] != OBSERVATIONS:
        return names
    width = len(str(len(names)))  # files are read in the order of their names
    return [f"{k:0{width}}-{name}" for k, name in enumerate(names, start=1)]


def open_space(folder: Path) -> Session:
    """Open the model and the observations of a folder of :func:`write_space`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not one of a Space.
    """
    paths = sorted(path for path in folder.glob("*.safetensors") if path.name != OBSERVATIONS)
    if not paths:
        raise FileNotFoundError(
            f"space: expected a model, NAME.safetensors, but {folder} has none."
        )
    model = load(paths if len(paths) > 1 else paths[0])
    stored = observations_beside(paths[0], model.scm)
    if stored is None:
        raise FileNotFoundError(f"space: expected {OBSERVATIONS}, but {folder} has none.")
    programs = Programs([Path(path.name) for path in paths])
    return Session(Explorer(model, stored), programs)


def launch_space(folder: Path) -> None:
    """Serve the live page of a folder, as Gradio does in a Space; it does not return."""
    session = open_space(folder)
    with (
        tempfile.TemporaryDirectory(prefix="deepscm-explore-") as uploads,
        gradio_settings(uploads),
    ):
        from deepscm_pl.explorer.server import LivePage

        LivePage(session, Path(uploads)).run()
