"""One file with the answers to a grid of interventions, which opens without a server."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepscm_pl.escaping import for_shell, for_terminal
from deepscm_pl.explorer.graph import draw_boxes
from deepscm_pl.explorer.page import embedded_json, render_page
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.questions import Cause, Explorer, Scene, decimals_of
from deepscm_pl.files import new_file
from deepscm_pl.memory import format_bytes
from deepscm_pl.overlap import VERDICTS
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.shipped.names import model_title
from deepscm_pl.variables import Variable

__all__ = ["StaticPage", "check_target", "write_static"]

_MOST_BYTES = 25_000_000
_IMAGES, _ROWS = 12, 40
"""Observations of a model with images, and of one without, unless they are chosen."""
_BOX, _IMAGE_BOX = 50.0, 76.0
"""Heights of the boxes of scalars and of images in the graph."""


@dataclass(frozen=True)
class StaticPage:
    """The settings of a page.

    Attributes:
        rows: Rows of the test split; None for the first ones.
        steps: Values of each number.
        files: The files of the model, for commands.
        root: Folder of the data as in commands; None for that of the run.
        trust: Packages that commands trust.
        weights: Weights of several models, as on the command line.
    """

    rows: Sequence[int] | None = None
    steps: int = 7
    files: Sequence[Path] = ()
    root: Path | None = None
    trust: Sequence[str] = ()
    weights: Sequence[str] = ()

    def chosen(self, explorer: Explorer) -> list[int]:
        """The rows, each once."""
        if self.rows is not None:
            return list(dict.fromkeys(self.rows))
        return list(self.wanted(explorer.scm)[: explorer.count])

    def wanted(self, scm: StructuralCausalModel) -> Sequence[int]:
        """The rows, if there are as many."""
        if self.rows is not None:
            return self.rows
        return range(_IMAGES if scm.image_variables else _ROWS)

    def data(self, explorer: Explorer) -> dict[str, Any]:
        """Compute what the page shows, as plain data.

        Raises:
            ValueError: If a row does not exist, or the page would be too large.
        """
        causes, rows = explorer.causes(self.steps), self.chosen(explorer)
        for row in rows:
            explorer.factual(row)
        programs = Programs(self.files, self.root, self.trust, self.weights, explorer.seed)
        return {
            "model": [for_terminal(model_title(path)) for path in self.files],
            "variables": [_variable(explorer, each) for each in explorer.variables.values()],
            "graph": _graph(explorer),
            "causes": [_cause(each) for each in causes],
            "verdicts": list(VERDICTS),
            "training": int(explorer.scm.training_distribution.rows),
            "observations": list(self._observations(explorer, causes, rows)),
            "command": programs.command_parts,
            "python": programs.python_parts,
        }

    def _observations(
        self, explorer: Explorer, causes: Sequence[Cause], rows: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """Ask about each observation, and give up as soon as the page will be too large."""
        size = 0
        total = len(rows) * sum(len(cause.settings) for cause in causes)
        with tqdm(total=total, unit="answer", disable=None) as bar:
            for done, row in enumerate(rows, 1):
                found = _observation(explorer, causes, row, bar)
                size += len(embedded_json(found))
                self._check_size(size / done, len(rows))
                yield found

    def _check_size(self, each: float, count: int) -> None:
        expected = each * count
        if expected <= _MOST_BYTES:
            return
        fitting, steps = int(_MOST_BYTES / each), int(self.steps * _MOST_BYTES / expected)
        advice = [f"--index with {fitting} rows"] if fitting else []
        advice += [f"--steps {steps}"] if steps >= 2 else []
        hint = f"choose about {' or '.join(advice)}" if advice else "ask single questions instead"
        raise ValueError(
            f"static: expected a file of at most {format_bytes(_MOST_BYTES)}, but {count} "
            f"observations with {self.steps} steps make about {format_bytes(round(expected))}; "
            f"{hint}."
        )


def write_static(
    explorer: Explorer, path: Path, page: StaticPage, overwrite: bool = False
) -> dict[str, Any]:
    """Write a page with all its answers into one file.

    Args:
        explorer: The model and its observations.
        path: The file, ending in ``.html``; its folder must exist.
        page: The settings of the page.
        overwrite: Whether to replace the file if it exists.

    Returns:
        The data of the page.

    Raises:
        ValueError: If the file cannot be written there, a row does not exist, or the page would be
            too large.
    """
    check_target(path, overwrite)
    data = page.data(explorer)
    text = render_page(data, f"{', '.join(data['model'])}: what if?")
    if len(text.encode()) > _MOST_BYTES:
        page._check_size(len(text.encode()) / len(data["observations"]), len(data["observations"]))
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return data


def check_target(path: Path, overwrite: bool = False) -> None:
    """Raise ValueError unless a page can be written to ``path``."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"static: expected a file ending in .html, but got {path}; rename it.")
    if not path.parent.is_dir():
        raise ValueError(f"static: there is no folder {path.parent}; make it first.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise ValueError(f"static: {path} exists; name a new file, or --overwrite to replace it.")


def _variable(explorer: Explorer, variable: Variable) -> dict[str, Any]:
    """A variable as plain data."""
    domain = variable.domain
    kind = "image" if len(domain.shape) > 1 else "number"
    count = domain.categories
    found: dict[str, Any] = {
        "name": variable.name,
        "label": for_terminal(variable.spoken),
        "unit": for_terminal(variable.unit),
        "kind": kind if count is None else "class",
        "decimals": decimals_of(explorer.scm, variable.name),
    }
    if count is not None:
        found["classes"] = [for_terminal(variable.format(float(k))) for k in range(count)]
    if kind == "image":
        found |= {"volume": len(domain.shape) == 4, "channels": domain.shape[0]}
    return found


def _graph(explorer: Explorer) -> dict[str, Any]:
    images = set(explorer.scm.image_variables)
    heights = {name: _IMAGE_BOX if name in images else _BOX for name in explorer.scm.graph}
    drawing = draw_boxes(explorer.scm.graph, heights)
    return {
        "width": drawing.width,
        "height": drawing.height,
        "boxes": {n: [b.x, b.y, b.width, b.height] for n, b in drawing.boxes.items()},
        "curves": [[each.cause, each.effect, each.path] for each in drawing.curves],
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "variable": cause.name,
        "affected": list(cause.affected),
        "settings": [
            {
                "value": each.value,
                "title": each.title,
                "text": each.text,
                "shell": for_shell(each.text),
                "python": repr(each.text),
            }
            for each in cause.settings
        ],
    }


def _observation(explorer: Explorer, causes: Sequence[Cause], row: int, bar: Any) -> dict[str, Any]:
    """An observation with its answers, by cause and setting."""
    factual, answers, limits = explorer.observe(row), [], []
    for cause in causes:
        found = explorer.ask(row, [{cause.name: each.value} for each in cause.settings])
        changed = {cause.name, *cause.affected}
        answers.append([_scene(scene, changed, VERDICTS) for scene in found])
        limits.append(explorer.difference_limits(factual, found))
        bar.update(len(found))
    return {
        "row": row,
        "title": explorer.title(row),
        **_scene(factual, set(explorer.variables)),
        "limits": limits,
        "answers": answers,
    }


def _scene(
    scene: Scene, changed: set[str], verdicts: Sequence[str] | None = None
) -> dict[str, Any]:
    """What a scene has of some variables; images as PNG in base 64."""
    images = {name: image for name, image in scene.pictures.items() if name in changed}
    found: dict[str, Any] = {"values": {n: v for n, v in scene.values.items() if n in changed}}
    if images:
        found["images"] = _encoded(images)
        if scene.measured:
            found["measured"] = dict(scene.measured)
    if verdicts is not None:
        rows = scene.rows or 0.0
        found |= {"verdict": verdicts.index(scene.verdict), "rows": float(f"{rows:.3g}")}
    return found


def _encoded(images: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(png).decode() for name, png in images.items()}
