"""Pictures of shapes of known kind, size and colour, and their table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle")
COLOURS = {"red": (200, 60, 50), "green": (60, 170, 80), "blue": (60, 90, 200)}
GRAPH = "kind -> size; kind, size, colour -> image"


def draw_shape(
    kind: str, size: float, colour: str, centre: tuple[float, float], pixels: int = 64
) -> NDArray[np.uint8]:
    """Draw a shape of a given half width on a grey ground, ``(pixels, pixels, 3)``."""
    scale = 4
    picture = Image.new("RGB", (pixels * scale, pixels * scale), (225, 225, 215))
    draw = ImageDraw.Draw(picture)
    x, y = (scale * each for each in centre)
    half = scale * size
    if kind == "circle":
        draw.ellipse((x - half, y - half, x + half, y + half), fill=COLOURS[colour])
    elif kind == "square":
        draw.rectangle((x - half, y - half, x + half, y + half), fill=COLOURS[colour])
    else:
        corners = [(x, y - half), (x - half, y + half), (x + half, y + half)]
        draw.polygon(corners, fill=COLOURS[colour])
    return np.asarray(picture.resize((pixels, pixels), Image.Resampling.BOX))


def draw_rows(count: int, seed: int = 0, pixels: int = 64) -> list[dict[str, object]]:
    """Draw the causes of pictures: the size depends on the kind, and the position is noise."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        kind = KINDS[generator.integers(len(KINDS))]
        mean = {"circle": 0.16, "square": 0.2, "triangle": 0.25}[kind]
        size = pixels * mean * np.exp(0.2 * generator.normal())
        centre = tuple(pixels / 2 + pixels * 0.04 * generator.normal(size=2))
        colour = list(COLOURS)[generator.integers(len(COLOURS))]
        rows.append(
            {
                "file": f"shape_{number:04d}.png",
                "kind": kind,
                "size": round(float(size), 2),
                "colour": colour,
                "centre": centre,
            }
        )
    return rows


def write_shapes(folder: Path, count: int = 300, seed: int = 0, pixels: int = 64) -> Path:
    """Write pictures and their table ``shapes.csv``; return the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = draw_rows(count, seed, pixels)
    for row in rows:
        arguments = (row["kind"], row["size"], row["colour"], row["centre"])
        Image.fromarray(draw_shape(*arguments, pixels)).save(folder / str(row["file"]))
    table = folder / "shapes.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "kind", "size", "colour"])
        writer.writerows([row["file"], row["kind"], row["size"], row["colour"]] for row in rows)
    return table
