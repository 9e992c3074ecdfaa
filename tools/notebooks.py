"""Run the notebooks and store their outputs: ``python tools/notebooks.py CHECKPOINT``.

Pictures are stored in 256 colours. What differs from run to run, such as times and identifiers, is
left out, so that a notebook changes only if its outputs do.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
from pathlib import Path
from typing import Any

__all__ = ["LARGEST", "main", "reduce_output", "run"]

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 300_000
"""Bytes of a notebook with its outputs at most."""


def run(path: Path) -> None:
    """Run a notebook, and write it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises an error.
        ValueError: If the notebook would be too large.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=1200, resources=place, record_timing=False)
    client.coalesce_streams = True
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # Logs and warnings are not part of an answer; they name folders of this computer.
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for output in cell.outputs:
                reduce_output(output)
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > LARGEST:
        raise ValueError(f"{path.name}: expected at most {LARGEST} bytes, but got {len(text)}.")
    path.write_text(text, encoding="utf-8")


def reduce_output(output: dict[str, Any]) -> None:
    """Store the picture of an output in 256 colours; its text, a name of a class, is left out."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    small = io.BytesIO()
    reduced = image.quantize(256, dither=Image.Dither.NONE)
    reduced.save(small, "png", optimize=True)
    data["image/png"] = base64.b64encode(small.getvalue()).decode()
    data.pop("text/plain", None)


def main() -> None:
    """Run all notebooks, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="of experiments/digits/full.yaml")
    parser.add_argument("notebooks", type=Path, nargs="*", help="all of them unless stated")
    options = parser.parse_args()
    os.environ["DEEPSCM_CHECKPOINT"] = str(options.checkpoint.resolve())
    for path in options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        run(path)
        print(f"written: notebooks/{path.name}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
