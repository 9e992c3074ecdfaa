"""A folder that runs as a Space of Hugging Face: the live page with its model and observations."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepscm_pl.checkpoints import load
from deepscm_pl.checkpoints.export import export_model
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.data.base import Split
from deepscm_pl.escaping import for_markdown, for_terminal
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.questions import Explorer
from deepscm_pl.explorer.session import Session
from deepscm_pl.explorer.uploads import MOST_BYTES
from deepscm_pl.files import new_folder

__all__ = ["KeptRows", "check_space", "launch_space", "open_space", "write_space"]

_MOST_ROWS = 40
_ROWS = "observations.safetensors"

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
are in `observations.safetensors`: publish this folder only if they may be public.
"""
"""Texts of files; the names in the graph are identifiers."""


class KeptRows(CausalDataModule):
    """A few observations that travel with a model, as its test split.

    Args:
        rows: ``(N, *event)`` of every variable.
        names: A name for each row.
    """

    def __init__(self, rows: Mapping[str, Tensor], names: Sequence[str]) -> None:
        super().__init__(validation_size=1)
        self.rows, self.names = dict(rows), list(names)

    def load(self) -> SourceSplits:
        """Return the rows; they stand for the training split, too, which nothing reads."""
        twice = {name: torch.cat([value, value]) for name, value in self.rows.items()}
        return SourceSplits(train=twice, test=self.rows)

    def row_names(self, split: Split) -> list[str] | None:
        """The names of the rows of the test split."""
        return self.names


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
        explorer: The model and its observations, of which the first 40 are kept.
        files: The checkpoint of the model, or several.
        folder: The folder, new or empty.
        trust: Packages whose classes the checkpoints may name; a Space has to install them.

    Returns:
        The files.

    Raises:
        ValueError: If the folder is not empty or cannot be written.
    """
    check_space(folder)
    count = min(_MOST_ROWS, explorer.count)
    rows = {name: _compact(value) for name, value in explorer.rows_of(range(count)).items()}
    titles = [explorer.title(row) for row in range(count)]
    title = for_terminal(f"What if? {files[0].stem if files else 'model'}")
    texts = {
        "app.py": _APP,
        "requirements.txt": f"deepscm_pl[explore]>={version('deepscm_pl')}\n",
        "README.md": _README.format(
            title=json.dumps(title, ensure_ascii=False),
            heading=for_markdown(title),
            gradio=version("gradio"),
            graph=explorer.scm.graph,
            rows=count,
        ),
    }
    with new_folder(folder) as temporary:
        for k, path in enumerate(files):
            export_model(path, temporary / f"model-{k + 1}.safetensors", trust=trust)
        save_file(rows, temporary / _ROWS, metadata={"titles": json.dumps(titles)})
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def open_space(folder: Path) -> Session:
    """Open the model and the observations of a folder of :func:`write_space`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not one of a Space.
    """
    paths = sorted(folder.glob("model-*.safetensors"))
    with safe_open(folder / _ROWS, framework="pt") as file:
        rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        titles = json.loads(file.metadata()["titles"])
    explorer = Explorer(load(paths if len(paths) > 1 else paths[0]), KeptRows(rows, titles))
    return Session(explorer, Programs([Path(path.name) for path in paths]))


def launch_space(folder: Path) -> None:
    """Serve the live page of a folder, as Gradio does in a Space; it does not return."""
    with tempfile.TemporaryDirectory(prefix="deepscm-explore-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from deepscm_pl.explorer.server import LivePage

        page = LivePage(open_space(folder), Path(uploads))
        page.blocks.launch(max_file_size=MOST_BYTES, ssr_mode=False, **page.looks)


def _compact(values: Tensor) -> Tensor:
    """Whole grey levels as bytes."""
    is_image = values.dim() > 2 and bool(((values >= 0) & (values <= 255)).all())
    whole = is_image and bool((values == values.round()).all())
    return values.to(torch.uint8).contiguous() if whole else values.contiguous()
