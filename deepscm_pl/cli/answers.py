"""Answers as a folder: a table, every image, and a grid to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from deepscm_pl.cli.image_files import ImageFiles, ImageFormat, choose_formats
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import TableWriter, for_file_name
from deepscm_pl.figures import ImageColumn, captions, draw_grid, save_figure
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
        about: What the values are, in a few words.
        heading: What was done, with units, over pictures; the title where it is left out.
    """

    title: str
    rows: Sequence[str]
    values: dict[str, Tensor]
    about: str = ""
    heading: str = ""

    @property
    def particles(self) -> int:
        """Number of particles."""
        return len(next(iter(self.values.values())))


def write_answers(
    scm: StructuralCausalModel,
    answers: Sequence[Answer],
    out: Path,
    npz: bool = False,
    image_format: ImageFormat | None = None,
    placements: Mapping[str, Sequence[Placement | None]] | None = None,
    units: Mapping[str, str] | None = None,
    class_names: Mapping[str, Sequence[str]] | None = None,
    differences: bool = False,
) -> list[Path]:
    """Write a new folder, complete or not at all.

    ``answers.csv`` has a row for each answer, observation and particle, and names the files in
    ``images/``: every image as PNG or NIfTI; ``<image>.png`` has all images in one grid, means over
    particles, with signed differences to the first answer; ``<image>-deviation.png`` the standard
    deviation over particles, where there are several.

    Args:
        scm: The model.
        answers: Answers about the same observations.
        out: The folder; new or empty.
        npz: Whether to write all values as ``answers.npz``, too.
        image_format: Of the images; None for NIfTI of volumes, PNG of others.
        placements: For each image variable where the image of each observation lies.
        units: Of the variables that have one, for the grid.
        class_names: Of the categorical variables whose classes have names, for the grid.
        differences: Whether NIfTI files of the differences to the first answer are written, too.

    Returns:
        The files, without those in ``images/``.

    Raises:
        ValueError: If the folder is not empty or cannot be written, or an image is not for NIfTI.
    """
    formats = choose_formats(scm, image_format)
    averages = [
        {node: summarise(value)[0] for node, value in answer.values.items()} for answer in answers
    ]
    texts = [captions(scm, average, units, class_names) for average in averages]
    with new_folder(out) as folder:
        files = ImageFiles(folder, formats, placements or {})
        _write_table(scm, answers, files, class_names or {}, differences)
        for name in scm.image_variables:
            means = [average[name] for average in averages]
            _write_grids(name, answers, means, texts, folder)
        if npz:
            arrays = {
                f"{k}/{name}": value.numpy()
                for k, answer in enumerate(answers)
                for name, value in answer.values.items()
            }
            titles = np.array([answer.title for answer in answers])
            np.savez_compressed(folder / "answers.npz", **{"titles": titles, **arrays})  # type: ignore
    return sorted(path for path in out.iterdir() if path.is_file())


def _write_table(
    scm: StructuralCausalModel,
    answers: Sequence[Answer],
    files: ImageFiles,
    class_names: Mapping[str, Sequence[str]],
    differences: bool,
) -> None:
    if scm.image_variables:
        (files.folder / "images").mkdir()
    compared = [n for n, each in files.formats.items() if differences and each == "nifti"]
    with (files.folder / "answers.csv").open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        extra = [f"{name}_difference" for name in compared]
        writer.writerow(["observation", "intervention", "particle", *scm.graph.nodes, *extra])
        for k, answer in enumerate(answers):
            for n, row in enumerate(answer.rows):
                factual = {name: answers[0].values[name][0, n] for name in compared if k > 0}
                for particle in range(answer.particles):
                    own = {name: value[particle, n] for name, value in answer.values.items()}
                    label = f"{k}-{particle}"
                    cells = _write_values(scm, files, class_names, n, label, own, answer.about)
                    cells += _write_differences(files, n, label, own, factual, answer.about)
                    cells += [""] * (len(compared) - len(factual))
                    writer.writerow([row, answer.title, particle, *cells])


def _write_values(
    scm: StructuralCausalModel,
    files: ImageFiles,
    class_names: Mapping[str, Sequence[str]],
    observation: int,
    label: str,
    own: Mapping[str, Tensor],
    about: str,
) -> list[str]:
    """Every variable as it stands in the table: a number, a class, or the file of an image."""
    return [
        files.write(name, observation, label, own[name], about)
        if name in scm.image_variables
        else _write_number(own[name].item(), class_names.get(name, ()))
        for name in scm.graph.nodes
    ]


def _write_number(value: float, names: Sequence[str]) -> str:
    return names[int(value)] if value in range(len(names)) else f"{value:.9g}"


def _write_differences(
    files: ImageFiles,
    observation: int,
    label: str,
    own: Mapping[str, Tensor],
    factual: Mapping[str, Tensor],
    about: str,
) -> list[str]:
    """The files of what images have that those of the factual have not."""
    return [
        files.write_difference(
            name, observation, label, own[name] - image, f"change of grey levels: {about}"
        )
        for name, image in factual.items()
    ]


def _write_grids(
    name: str,
    answers: Sequence[Answer],
    means: Sequence[Tensor],
    texts: Sequence[list[str]],
    folder: Path,
) -> None:
    rows = answers[0].rows
    columns = [
        ImageColumn(answer.heading or answer.title, mean, text)
        for answer, mean, text in zip(answers, means, texts, strict=True)
    ]
    stem = for_file_name(name)
    save_figure(draw_grid(columns, rows, differences=len(answers) > 1), folder / f"{stem}.png")
    if max(answer.particles for answer in answers) > 1:
        deviations = [
            ImageColumn(answer.heading or answer.title, summarise(answer.values[name])[1])
            for answer in answers
        ]
        largest = max(float(column.images.max()) for column in deviations)
        figure = draw_grid(
            deviations,
            rows,
            f"standard deviation over particles, white is {largest:.0f} grey levels",
            differences=False,
            levels=max(int(largest) + 1, 2),
        )
        save_figure(figure, folder / f"{stem}-deviation.png")
