"""``sample``, ``intervene`` and ``counterfactual``: the three kinds of question."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from deepscm_pl.cli.answers import Answer, write_answers
from deepscm_pl.cli.image_files import FORMATS, choose_formats
from deepscm_pl.cli.observations import observations_from_csv, observations_from_test_split
from deepscm_pl.cli.parser import FriendlyArgumentParser
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import for_terminal
from deepscm_pl.interventions import format_do, parse_do, with_class_indices
from deepscm_pl.likelihoods import Likelihood
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import DeepSCM, load_data
from deepscm_pl.training.descriptions import read_variable_descriptions
from deepscm_pl.types import Do

__all__ = ["run_question"]

_DESCRIPTIONS = {
    "sample": "Association: draw observations from a trained model.",
    "intervene": "Intervention: draw observations under do(...), several if --do is repeated.",
    "counterfactual": "Counterfactual: what observations would have been, had do(...) been done.",
}


@dataclass(frozen=True)
class _Answered:
    """Answers about the same observations.

    Attributes:
        answers: One for each intervention, the factual first if there is one.
        placements: For each image variable where the image of each observation lies.
        factual: Whether the first is the factual.
    """

    answers: Sequence[Answer]
    placements: Mapping[str, Sequence[Placement | None]] = field(default_factory=dict)
    factual: bool = False


def run_question(words: list[str]) -> None:
    """Answer a question from a checkpoint, in a new folder of images and a table.

    Raises:
        FileNotFoundError: If the checkpoint, or a file of observations, does not exist.
        ValueError: If the checkpoint, an intervention or an observation is not valid, or the output
            folder is not empty or cannot be written.
    """
    options = _parser(words[0]).parse_args(words[1:])
    scm = DeepSCM.load_from_checkpoint(options.ckpt_path).scm
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed: expected a number from 0 to 2³² − 1, but got {options.seed}.")
    formats = choose_formats(scm, options.format)
    torch.manual_seed(options.seed)
    units, class_names = read_variable_descriptions(options.ckpt_path)
    dos = [with_class_indices(parse_do(text), class_names) for text in getattr(options, "do", [])]
    with torch.no_grad():
        if words[0] == "counterfactual":
            answered = _counterfactual(scm, options, dos, class_names, units)
        else:
            answered = _Answered(_draw(scm, options, dos or [{}], units))
    written = write_answers(
        scm,
        answered.answers,
        options.out,
        options.npz,
        options.format,
        answered.placements,
        units,
        class_names,
        differences=answered.factual,
    )
    for path in written:
        print(f"written: {for_terminal(path)}")
    for name, each in formats.items():
        if each == "nifti" and None in answered.placements.get(name, [None]):
            print(
                f"{name}: it is not known where the images lie in a scanner; their files have "
                "elements of 1 mm, the first at the origin."
            )


def _parser(question: str) -> argparse.ArgumentParser:
    parser = FriendlyArgumentParser(
        prog=f"deepscm {question}",
        description=_DESCRIPTIONS[question],
    )
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint of a run")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make; new or empty")
    add("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    add(
        "--format",
        choices=FORMATS,
        help="files of the images: png to look at, the middle planes of volumes; nifti (.nii.gz) "
        "with the place and the header of the scan (default: nifti for volumes, png for others)",
    )
    add("--npz", action="store_true", help="write all values as answers.npz, too")
    if question != "sample":
        _add_interventions(parser)
    if question == "counterfactual":
        _add_counterfactual_options(parser)
    else:
        _add_drawing_options(parser)
    return parser


def _add_interventions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--do",
        nargs="+",
        action="extend",
        required=True,
        metavar="TEXT",
        help="intervention: variable=number, variable=class, variable+=number or "
        "variable*=number; commas join several variables into one intervention, further texts "
        "are further interventions",
    )


def _add_drawing_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--size",
        type=int,
        default=8,
        help="number of observations to draw (default: %(default)s)",
    )
    add(
        "--temperature",
        type=float,
        metavar="NUMBER",
        help="scale of the pixel noise that the image's likelihood draws, 0 for none "
        "(default: what the model was configured with, mostly 1)",
    )


def _add_counterfactual_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--index", type=int, nargs="+", metavar="ROW", help="rows of the run's test split, from 0"
    )
    which.add_argument(
        "--observations",
        type=Path,
        metavar="FILE.csv",
        help="table with a column per variable; images (PNG, JPEG, .npy, .nii, .nii.gz) by path, "
        "relative to the table",
    )
    add(
        "--prepare",
        action="store_true",
        help="the images of --observations are as the run's files were: cut, resize and normalise "
        "them as its data module did",
    )
    add(
        "--num_particles",
        type=int,
        default=1,
        help="draws of what observations leave open (default: %(default)s)",
    )
    add("--data.root", dest="root", type=Path, metavar="DIR", help="where the run's data lies now")


def _draw(
    scm: StructuralCausalModel,
    options: argparse.Namespace,
    dos: Sequence[Do],
    units: Mapping[str, str],
) -> list[Answer]:
    """The same noise under every intervention."""
    if options.size < 1:
        raise ValueError(f"size: expected at least 1, but got {options.size}.")
    if options.temperature is not None:
        _set_temperature(scm, options.temperature)
    rows = [f"noise {k}" for k in range(options.size)]
    noise = {name: scm[name].sample_noise((options.size,)) for name in scm.graph.nodes}
    answers = []
    for do in dos:
        values = scm.act(do).predict(noise)
        spread = {
            name: value.expand(options.size, *scm[name].domain.shape)[None]
            for name, value in values.items()
        }
        if not do:
            answers.append(Answer("sample", rows, spread, "sample"))
            continue
        title, heading = format_do(do), format_do(do, units)
        answers.append(Answer(title, rows, spread, f"sample under {title}", heading))
    return answers


def _set_temperature(scm: StructuralCausalModel, temperature: float) -> None:
    """Draw the pixel noise of every likelihood at this temperature."""
    likelihoods = [module for module in scm.modules() if isinstance(module, Likelihood)]
    if not likelihoods:
        raise ValueError(
            f"temperature: expected a model with a likelihood of pixels, such as a ConditionalVAE "
            f"has, but got {temperature:g} for a model without one; leave the option out."
        )
    for likelihood in likelihoods:
        likelihood.temperature = temperature


def _counterfactual(
    scm: StructuralCausalModel,
    options: argparse.Namespace,
    dos: Sequence[Do],
    class_names: Mapping[str, Sequence[str]],
    units: Mapping[str, str],
) -> _Answered:
    """The factual, then a counterfactual for each intervention."""
    if options.index is not None:
        if options.prepare:
            raise ValueError(
                "prepare: expected with --observations alone, for the test split is prepared; "
                "leave it out."
            )
        observed = observations_from_test_split(scm, options.ckpt_path, options.index, options.root)
    else:
        prepare = load_data(options.ckpt_path).prepare_file if options.prepare else None
        observed = observations_from_csv(scm, options.observations, class_names, prepare)
    rows = observed.rows
    values = scm.counterfactual(observed.values, dos, options.num_particles)
    factual = {name: value[None] for name, value in observed.values.items()}
    answers = [Answer("factual", rows, factual, "factual")]
    for k, do in enumerate(dos):
        chosen: dict[str, Tensor] = {name: value[:, k] for name, value in values.items()}
        title = format_do(do)
        about = f"counterfactual under {title}"
        answers.append(Answer(title, rows, chosen, about, format_do(do, units)))
    return _Answered(answers, observed.placements, factual=True)
