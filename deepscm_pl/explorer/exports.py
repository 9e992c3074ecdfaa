"""Files of an answer: a picture, a table and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from deepscm_pl.data.images import colours, default_placement, write_nifti, write_picture
from deepscm_pl.escaping import TableWriter, for_file_name
from deepscm_pl.explorer.programs import OBSERVATION_FILE
from deepscm_pl.explorer.questions import Explorer
from deepscm_pl.explorer.session import Reply
from deepscm_pl.files import new_file
from deepscm_pl.numerals import shortest

__all__ = ["export_answer"]


def export_answer(explorer: Explorer, reply: Reply, folder: Path) -> list[Path]:
    """Write the files of an answer.

    ================================  ===========================================================
    file                              content
    ================================  ===========================================================
    ``answer.csv``                    the factual and the counterfactual values
    ``observation.csv``               the observation, as ``--observations`` reads it
    ``IMAGE-factual.png``             grey levels; ``.nii.gz`` for volumes
    ``IMAGE-counterfactual.png``      the same of the answer
    ``IMAGE-difference.nii.gz``       the signed difference of volumes
    ================================  ===========================================================

    Args:
        explorer: The model.
        reply: The answer.
        folder: An existing folder; files in it are replaced.

    Returns:
        The files.
    """
    images = [
        path for name in explorer.scm.image_variables for path in _images(reply, name, folder)
    ]
    values = reply.factual.values
    names = [path.name for path in images if "-factual" in path.name]
    pictures = dict(zip(explorer.scm.image_variables, names, strict=True))
    answer, observation = folder / "answer.csv", folder / OBSERVATION_FILE
    variables = explorer.variables

    def cell(name: str, value: float | None) -> str:
        if value is None:
            return ""
        classes = variables[name].classes
        return classes[int(value)] if classes else shortest(value)

    with new_file(answer) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        writer.writerow(["world", *values, "support"])
        writer.writerow(["factual", *(cell(n, v) for n, v in values.items()), ""])
        title = reply.title if reply.question.do else "nothing is set"
        after = [cell(n, v) for n, v in reply.scene.values.items()]
        writer.writerow([title, *after, reply.scene.verdict])
    with new_file(observation) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        writer.writerow([*values, *pictures])
        writer.writerow([*(cell(n, v) for n, v in values.items()), *pictures.values()])
    return [answer, observation, *images]


def _images(reply: Reply, name: str, folder: Path) -> Iterator[Path]:
    before, after = reply.question.observation.values[name][0], reply.images[name]
    stem, is_volume = for_file_name(name), before.dim() == 4
    place = reply.question.observation.placements.get(name) or default_placement(before.dim() - 1)
    for kind, image in (("factual", before), ("counterfactual", after)):
        levels = image.round().clamp(0, 255).to(torch.uint8).numpy()
        path = folder / f"{stem}-{kind}{'.nii.gz' if is_volume else '.png'}"
        if is_volume:
            write_nifti(path, levels[0] if len(levels) == 1 else colours(levels), place, kind)
        else:
            write_picture(path, levels)
        yield path
    if is_volume:
        change = (after - before).numpy().astype(np.float32)
        path = folder / f"{stem}-difference.nii.gz"
        write_nifti(path, change[0] if len(change) == 1 else colours(change), place, "difference")
        yield path
