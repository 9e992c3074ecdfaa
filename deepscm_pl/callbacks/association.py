"""The association table: how well a model explains the test split."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.table import Table

from deepscm_pl.callbacks.run_folder import run_folder
from deepscm_pl.configuration import describe
from deepscm_pl.files import new_file
from deepscm_pl.graph import CausalGraph

__all__ = ["AssociationReport"]


class AssociationReport(pl.Callback):
    """After a test, print the association table and write it as JSON and Markdown.

    Every row is a mean over the images of the test split with its standard error: log p of each
    variable (a lower bound where it is one), their sum, the divergence of the latents, bits per
    dimension, and the error of reconstructions. The files ``association.json`` and
    ``association.md`` lie in the run's folder.

    Attributes:
        written: The files written so far.
    """

    def __init__(self) -> None:
        self.written: list[Path] = []

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print and write the table."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        model: Any = pl_module
        association: Mapping[str, Any] = model.association
        rows = _rows(association, model.scm.graph, model.scm.image_variables)
        _print(rows)
        data: Any = getattr(trainer, "datamodule", None)
        document = {
            "graph": str(model.scm.graph),
            "data": describe(data.configuration()) if hasattr(data, "configuration") else None,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "quantities": {name: _finite(value._asdict()) for name, value in association.items()},
        }
        self._write(folder / "association.json", json.dumps(document, indent=2) + "\n")
        self._write(folder / "association.md", _markdown(rows))

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self.written.append(path)


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN, as a standard error of one image is."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _rows(
    association: Mapping[str, Any], graph: CausalGraph, images: tuple[str, ...]
) -> list[tuple[str, str, str, str]]:
    """Quantity, unit, mean and standard error of every row."""
    labels: list[tuple[str, str, str]] = []
    for name, parents in graph.parents.items():
        given = f" | {', '.join(parents)}" if parents else ""
        bound = " ≥" if name in images else ""
        labels.append((f"bound/{name}", f"log p({name}{given}){bound}", "nats"))
    labels.append(("bound", f"log p(joint){' ≥' if images else ''}", "nats"))
    for name in images:
        labels += [
            (f"kl/{name}", f"KL(q(z) ‖ p(z)) of {name}", "nats"),
            (f"bits_per_dimension/{name}", f"{name}, bits per dimension ≤", "bits"),
            (f"mean_absolute_error/{name}", f"{name}, error of reconstruction", "grey levels"),
        ]
    return [
        (label, unit, f"{association[key].mean:.3f}", f"{association[key].standard_error:.3f}")
        for key, label, unit in labels
    ]


def _print(rows: list[tuple[str, str, str, str]]) -> None:
    table = Table(title="Association: means over the images of the test split")
    table.add_column("quantity")
    table.add_column("unit")
    table.add_column("mean", justify="right")
    table.add_column("standard error", justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _markdown(rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["| quantity | unit | mean | standard error |", "|---|---|---:|---:|"]
    # A bar inside a cell would end it.
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
