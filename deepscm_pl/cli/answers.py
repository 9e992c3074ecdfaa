"""Answers as a folder: a table, every image, and a grid to look at."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from deepscm_pl.figures import ImageColumn, draw_grid, save_figure
from deepscm_pl.files import new_folder
from deepscm_pl.scm import StructuralCausalModel, summarise

__all__ = ["Answer", "write_answers"]


@dataclass(frozen=True)
class Answer:
    """The values under one intervention.

    Attributes:
        title: What was done.
        rows: A name for each observation.
        values: ``(particles, observations, *event)`` for each variable.
    """

    title: str
    rows: Sequence[str]
    values: dict[str, Tensor]

    @property
    def particles(self) -> int:
        """Number of particles."""
        return len(next(iter(self.values.values())))


def write_answers(
    scm: StructuralCausalModel, answers: Sequence[Answer], out: Path, npz: bool = False
) -> list[Path]:
    """Write a new folder, complete or not at all.

    ``answers.csv`` has a row for each answer, observation and particle; ``images/`` every image as
    PNG; ``<image>.png`` all images in one grid, means over particles, with signed differences to
    the first answer; ``<image>-deviation.png`` the standard deviation over particles, where there
    are several.

    Args:
        scm: The model.
        answers: Answers about the same observations.
        out: The folder; new or empty.
        npz: Whether to write all values as ``answers.npz``, too.

    Returns:
        The files, without those in ``images/``.

    Raises:
        ValueError: If the folder is not empty or cannot be written.
    """
    with new_folder(out) as folder:
        _write_table(scm, answers, folder)
        for name in scm.image_variables:
            _write_grids(scm, name, answers, folder)
        if npz:
            arrays = {
                f"{k}/{name}": value.numpy()
                for k, answer in enumerate(answers)
                for name, value in answer.values.items()
            }
            titles = np.array([answer.title for answer in answers])
            np.savez_compressed(folder / "answers.npz", **{"titles": titles, **arrays})  # type: ignore
    return sorted(path for path in out.iterdir() if path.is_file())


def _write_table(scm: StructuralCausalModel, answers: Sequence[Answer], folder: Path) -> None:
    if scm.image_variables:
        (folder / "images").mkdir()
    with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["observation", "intervention", "particle", *scm.graph.nodes])
        for k, answer in enumerate(answers):
            for n, row in enumerate(answer.rows):
                for particle in range(answer.particles):
                    cells = [
                        _write_image(value[particle, n], f"{name}-{n}-{k}-{particle}", folder)
                        if name in scm.image_variables
                        else f"{value[particle, n].item():.9g}"
                        for name, value in ((node, answer.values[node]) for node in scm.graph.nodes)
                    ]
                    writer.writerow([row, answer.title, particle, *cells])


def _write_image(image: Tensor, name: str, folder: Path) -> str:
    pixels = image.round().clamp(0, 255).byte().cpu().numpy()
    path = f"images/{name}.png"
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(
        folder / path
    )
    return path


def _write_grids(
    scm: StructuralCausalModel, name: str, answers: Sequence[Answer], folder: Path
) -> None:
    rows = answers[0].rows
    means = [
        ImageColumn(answer.title, summarise(answer.values[name])[0], _captions(scm, answer))
        for answer in answers
    ]
    save_figure(draw_grid(means, rows, differences=len(answers) > 1), folder / f"{name}.png")
    if max(answer.particles for answer in answers) > 1:
        deviations = [
            ImageColumn(answer.title, summarise(answer.values[name])[1]) for answer in answers
        ]
        largest = max(float(column.images.max()) for column in deviations)
        figure = draw_grid(
            deviations,
            rows,
            f"standard deviation over particles, white is {largest:.0f} grey levels",
            differences=False,
            levels=max(int(largest) + 1, 2),
        )
        save_figure(figure, folder / f"{name}-deviation.png")


def _captions(scm: StructuralCausalModel, answer: Answer) -> list[str]:
    scalars = [name for name in scm.graph.nodes if scm[name].domain.shape == (1,)]
    means = {name: summarise(answer.values[name])[0].flatten().tolist() for name in scalars}
    return [
        "\n".join(f"{name} {means[name][n]:.3g}" for name in scalars)
        for n in range(len(answer.rows))
    ]
