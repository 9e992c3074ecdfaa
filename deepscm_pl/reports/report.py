"""Reports of evaluations: JSON, Markdown with pictures, and scalars for TensorBoard."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from deepscm_pl.escaping import as_json, for_markdown, for_tag, markdown_code
from deepscm_pl.evaluation.association import AssociationRow
from deepscm_pl.evaluation.densities import DensityResult
from deepscm_pl.evaluation.examples import describe_rows
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.noise import NoiseResult
from deepscm_pl.evaluation.run import Evaluation
from deepscm_pl.evaluation.verdict import judge
from deepscm_pl.figures import save_figure
from deepscm_pl.files import replaced_folder
from deepscm_pl.overlap import VERDICTS
from deepscm_pl.reports.composition import composition_quantities, composition_table
from deepscm_pl.reports.densities import draw_densities
from deepscm_pl.reports.examples import draw_examples
from deepscm_pl.reports.intervals import interval_sentence, interval_table
from deepscm_pl.reports.mechanisms import (
    mechanism_sentences,
    mechanism_table,
    plain_mechanisms,
)
from deepscm_pl.reports.overlap import (
    draw_overlap,
    overlap_error_table,
    overlap_quantities,
    overlap_table,
    plain_overlap,
)
from deepscm_pl.reports.page import Picture, render_page
from deepscm_pl.reports.pictures import draw_coverage, draw_errors, draw_noise_results, has_coverage
from deepscm_pl.reports.reaction import plain_reaction, reaction_table, shown_table
from deepscm_pl.reports.sections import Section
from deepscm_pl.reports.sensitivity import (
    plain_sensitivity,
    sensitivity_quantities,
    sensitivity_table,
)
from deepscm_pl.reports.tables import (
    QUANTILES,
    TextTable,
    association_table,
    density_table,
    effectiveness_table,
    error_table,
    how_to_read,
    noise_table,
    similarity_table,
    soundness_table,
)
from deepscm_pl.reports.trust import describe_assumptions
from deepscm_pl.reports.verdict import verdict_markdown

__all__ = ["Report"]

_SECTIONS = (
    ("Association", "association", ""),
    ("Intervention", "densities", "densities"),
    ("Counterfactual", "errors", "errors"),
    ("Similarity", "similarity", ""),
    ("Counterfactual images", "", "examples"),
    ("Effectiveness", "effectiveness", ""),
    ("Reaction", "reaction", ""),
    ("Shown", "shown", ""),
    ("Soundness", "soundness", ""),
    ("Uncertainty", "intervals", "coverage"),
    ("Overlap with the training data", "overlap", ""),
    ("Error by overlap", "overlap_errors", "overlap"),
    ("Composition", "composition", ""),
    ("Sensitivity", "sensitivity", ""),
    ("Noise", "noise", "noise"),
    ("Mechanisms", "mechanisms", ""),
)
"""Title, table and picture of each section."""

_FORMAT = 3
_NUMBERS = "evaluation.json"


class Report:
    """A report of an evaluation.

    Args:
        model: The model and the rows that were evaluated.
        evaluation: The results.
        association: The lines of the association table.
        origin: The origin of model and data, as plain data for the JSON file.
        reference_name: Heading of the numbers to compare with.

    Attributes:
        judgement: The verdict on the model.
        tables: All tables that are not empty.
        verdicts: The sentences about images that are bad or doubtful, such as that an image does
            not react to a cause; empty if all is well.
        pictures: All pictures, by the name of their file without its ending.
    """

    def __init__(
        self,
        model: ModelOnData,
        evaluation: Evaluation,
        association: Sequence[AssociationRow] = (),
        origin: dict[str, Any] | None = None,
        reference_name: str = "reference",
    ) -> None:
        self.evaluation = evaluation
        self.association = list(association)
        self.origin = dict(origin or {})
        answered = [each for each in evaluation.counterfactuals if each.rows]
        self.tables: dict[str, TextTable] = {}
        if association:
            self.tables["association"] = association_table(association, reference_name)
        if evaluation.densities:
            self.tables["densities"] = density_table(evaluation.densities)
        if any(each.error.ratio.particle for each in answered):
            self.tables["errors"] = error_table(answered)
            self.tables["similarity"] = similarity_table(answered)
            self.tables["effectiveness"] = effectiveness_table(answered, model.measured, model.unit)
        if answered:
            self.tables["soundness"] = soundness_table(answered)
        if any(each.intervals.spread_over_error for each in answered):
            self.tables["intervals"] = interval_table(answered)
        if evaluation.overlap is not None and evaluation.overlap.verdicts:
            self.tables["overlap"] = overlap_table(evaluation.overlap, model.scm.variables)
        if evaluation.overlap is not None and evaluation.overlap.errors:
            self.tables["overlap_errors"] = overlap_error_table(evaluation.overlap)
        if evaluation.composition:
            self.tables["composition"] = composition_table(evaluation)
        reaction = evaluation.reaction
        if reaction is not None and reaction.causes:
            self.tables["reaction"] = reaction_table(reaction, model)
        if reaction is not None and (
            reaction.pixel_noise or any(e.shown for e in reaction.questions)
        ):
            self.tables["shown"] = shown_table(reaction, model)
        if evaluation.sensitivity:
            self.tables["sensitivity"] = sensitivity_table(model, evaluation.sensitivity)
        if evaluation.noise:
            self.tables["noise"] = noise_table(evaluation.noise)
        if evaluation.mechanisms:
            self.tables["mechanisms"] = mechanism_table(evaluation.mechanisms)
        self.judgement = judge(evaluation, model.scm, association)
        self.verdicts = [
            each.sentence
            for each in self.judgement.verdicts
            if each.variable in model.scm.image_variables
            and not each.question
            and each.grade in ("bad", "doubtful")
        ]
        self.pictures = dict(_draw_pictures(model, evaluation))

    def write(self, folder: Path) -> list[Path]:
        """Write all files into ``folder``, and replace an earlier report atomically.

        Raises:
            ValueError: If the folder cannot be written, or contains anything but a report.
        """
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _NUMBERS).is_file():
            raise ValueError(
                f"folder: {folder} contains files other than an evaluation, which would be lost; "
                "name a new folder."
            )
        with replaced_folder(folder) as new:
            (new / _NUMBERS).write_text(as_json(self.as_plain_data()), encoding="utf-8")
            (new / "evaluation.md").write_text(self.as_markdown(), encoding="utf-8")
            if self.evaluation.calibration is not None:
                found = self.evaluation.calibration.as_plain_data()
                (new / "calibration.json").write_text(as_json(found), encoding="utf-8")
            for name, figure in self.pictures.items():
                save_figure(figure, new / f"{name}.png")
            (new / "evaluation.html").write_text(self.as_html(new), encoding="utf-8")
        return sorted(folder.iterdir())

    def as_plain_data(self) -> dict[str, Any]:
        """Return all numbers as plain data without NaN."""
        evaluation = self.evaluation
        return {
            "format": _FORMAT,
            **self.origin,
            "world": evaluation.world,
            "rows": evaluation.rows,
            "available_rows": evaluation.available,
            "individuals": evaluation.individuals,
            "detail_rows": evaluation.detail_rows,
            "particles": evaluation.particles,
            "association": {
                row.key: {
                    **row.estimate.as_plain_data(),
                    "label": f"{row.label}, {row.unit}",
                    "reference": _or_none(row.reference),
                }
                for row in self.association
            },
            "intervention": [_plain_density(each) for each in evaluation.densities],
            "counterfactual": {
                each.question.text: {
                    "rows": each.rows,
                    "left_out": each.left_out,
                    "quantities": {k: v.as_plain_data() for k, v in each.quantities.items()},
                }
                for each in evaluation.counterfactuals
            },
            "composition": {
                key: each.as_plain_data()
                for key, each in composition_quantities(evaluation).items()
            },
            "verdict": self.judgement.as_plain_data(),
            "reaction": plain_reaction(evaluation.reaction, self.verdicts),
            "sensitivity": plain_sensitivity(evaluation.sensitivity),
            "noise": {
                f"{each.variable}/{each.part}": _plain_noise(each) for each in evaluation.noise
            },
            "overlap": None if evaluation.overlap is None else plain_overlap(evaluation.overlap),
            "mechanisms": plain_mechanisms(evaluation.mechanisms),
            "left_out": self.left_out,
            "seconds": {part: round(value, 1) for part, value in evaluation.seconds.items()},
        }

    def as_markdown(self) -> str:
        """Return the report in Markdown, with links to pictures in the same folder."""
        parts = [
            "# Evaluation",
            f"## Verdict\n\n{verdict_markdown(self.judgement)}",
            f"## About\n\n{self._introduction()}\n\n{self._origin()}",
            *(part for section in self.sections() for part in section.as_markdown()),
        ]
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def as_html(self, folder: Path) -> str:
        """Return the report as one page with its pictures, which loads nothing.

        Args:
            folder: The folder with the files of the pictures.
        """
        pictures = {
            name: Picture((folder / f"{name}.png").read_bytes(), figure.dpi)
            for name, figure in self.pictures.items()
        }
        sections = [*self.sections(), Section("Origin", text=self._origin() or "Unknown.")]
        return render_page("Evaluation", self._introduction(), self.judgement, sections, pictures)

    def sections(self) -> list[Section]:
        """Return all sections but the verdict that are not empty."""
        found = [section for each in _SECTIONS if (section := self._section(*each)) is not None]
        found.append(Section("Assumptions", text=describe_assumptions(self.evaluation)))
        if left_out := self.left_out:
            lines = "\n".join(f"- {for_markdown(reason)}" for reason in left_out)
            found.append(Section("Left out", text=lines))
        return found

    def _section(self, title: str, name: str, picture: str) -> Section | None:
        """A section; None without a table, a picture and a text."""
        table, text = self.tables.get(name), ""
        if title == "Uncertainty" and any(each.rows for each in self.evaluation.counterfactuals):
            text = interval_sentence(self.evaluation.calibration)
        if name == "mechanisms":
            text = mechanism_sentences(self.evaluation.mechanisms)
        if table is None and picture not in self.pictures and not text:
            return None
        explained = "" if table is None or name == "mechanisms" else how_to_read(name, table)
        if picture not in self.pictures:
            return Section(title, explained, table, text)
        return Section(title, explained, table, text, picture, self._caption(picture))

    def main_figures(self) -> dict[str, float]:
        """Return at most ten main numbers by names that are valid in TensorBoard.

        They are the bound, bits per dimension and errors of reconstructions, and then, for as many
        questions as there is room for, the error divided by that of the unchanged factual, the
        reversibility, and the share of images that keep their class.
        """
        measures = ("bits_per_dimension/", "mean_absolute_error/")
        found = {
            row.key: row.estimate.mean
            for row in sorted(self.association, key=lambda row: "/" in row.key)
            if row.key == "bound" or row.key.startswith(measures)
        }
        for key in _MAIN:
            for each in self.evaluation.counterfactuals:
                if key in each.quantities:
                    found[f"{each.question.text}/{key}"] = each.quantities[key].mean
        return dict(list(_tagged(found).items())[:_MOST_MAIN])

    def scalars(self) -> dict[str, float]:
        """Return all numbers of the second and third rung by names valid in TensorBoard."""
        return _tagged(self.numbers())

    def numbers(self) -> dict[str, float]:
        """Return all numbers of the second and third rung by their names."""
        evaluation = self.evaluation
        distances = {f"density/{each.key}": each.distance for each in evaluation.densities}
        found = {key: value for key, value in distances.items() if value is not None}
        for each in evaluation.counterfactuals:
            found |= {f"{each.question.text}/{k}": v.mean for k, v in each.quantities.items()}
        found |= {key: each.mean for key, each in composition_quantities(evaluation).items()}
        if evaluation.reaction is not None:
            quantities = evaluation.reaction.quantities
            found |= {f"reaction/{key}": value.mean for key, value in quantities.items()}
            found["reaction/verdicts"] = float(len(self.verdicts))
        found |= sensitivity_quantities(evaluation.sensitivity)
        for result in evaluation.noise:
            prefix = f"noise/{result.variable}/{result.part}"
            found |= {f"{prefix}/{key}": number for key, number in result.quantities.items()}
        if evaluation.overlap is not None:
            found |= dict(overlap_quantities(evaluation.overlap))
        return found

    @property
    def rows(self) -> str:
        """The evaluated rows, such as ``The first 100 of 500 images of the test split``."""
        evaluation = self.evaluation
        found = f"{evaluation.rows} rows of the test split"
        if evaluation.available not in (None, evaluation.rows):
            found = f"The first {evaluation.rows} of {evaluation.available} rows of the test split"
        if self._is_repeated:
            found += f", from {evaluation.individuals} subjects"
        return found

    @property
    def _is_repeated(self) -> bool:
        """Whether subjects have several images."""
        individuals = self.evaluation.individuals
        return individuals is not None and individuals < self.evaluation.rows

    def _introduction(self) -> str:
        evaluation, world = self.evaluation, self.evaluation.world
        known = "without a known world"
        if world is not None:
            known = f"in a known world ({for_markdown(world)})"
        return (
            f"{self.rows}, {known}. What takes long, such as particles, repetitions and pixel "
            f"noise, is from the first {evaluation.detail_rows} of them, with "
            f"{evaluation.particles} particles each. "
            "Numbers are means over rows; grey levels go from 0 to 255."
            + (_REPEATED if self._is_repeated else "")
        )

    def _origin(self) -> str:
        """The origin of model and data, in Markdown."""
        return "\n\n".join(
            f"{name.capitalize()}: {markdown_code(value)}."
            for name, value in self.origin.items()
            if value and isinstance(value, str) and name != "weights"
        )

    def _caption(self, picture: str) -> str:
        compared = any(example.truth is not None for example in self.evaluation.examples)
        known = self.evaluation.world is not None
        return _CAPTIONS[picture].format(
            compared=_COMPARED if compared else "", solid=_DASHED if known else ""
        )

    @property
    def left_out(self) -> list[str]:
        """Quantities that could not be evaluated, with reasons."""
        reasons = list(self.evaluation.left_out)
        for each in self.evaluation.counterfactuals:
            if each.left_out:
                total = each.rows + each.left_out
                reasons.append(
                    f"{each.question.title}: {each.left_out} of {total} rows, for which it "
                    "leads to an impossible value."
                )
        for result in self.evaluation.noise:
            if result.left_out:
                reasons.append(
                    f"Noise: {result.part} of {result.variable} is infinite for {result.left_out} "
                    f"of {result.rows + result.left_out} rows, whose values are "
                    "impossible in the model."
                )
        answered = [each for each in self.evaluation.counterfactuals if each.rows]
        if answered and not any(each.identity.kept for each in answered):
            reasons.append("Identity: no predictor was given.")
        return reasons


_REPEATED = (
    " Standard errors treat rows of one subject as independent, and are too small if these are "
    "similar; noise is that of the first image of each subject."
)

_SIGNS = {"+": "_plus_", "-": "_minus_", "*": "_times_"}

_MOST_MAIN = 10
_MAIN = (
    "error/ratio/particle",
    "reversibility/mean_absolute_error/10",
    "identity/kept",
)

_CAPTIONS = {
    "densities": "Densities of the model{solid}",
    "errors": "Error against the true counterfactual, divided by that of the unchanged "
    "factual, with two standard errors; diamonds: another original with the same attributes",
    "examples": "Single draws of counterfactuals of the first test images{compared}; hatched: "
    "impossible",
    "coverage": "How often the true pixel is inside central intervals of the particles, over "
    "pixels that vary; the grey line is exact calibration",
    "overlap": "Error against the truth by the effective number of training rows near the answer; "
    "shaded: the limits of the verdicts. Answers beyond the range of the training data extrapolate "
    "whatever the number",
    "noise": "Inferred noise and its prior N(0, 1)",
}
_DASHED = " (solid) and of the world (dashed)"
_COMPARED = ", below each the truth, and the difference (red: the model is brighter)"


def _draw_pictures(model: ModelOnData, evaluation: Evaluation) -> Iterator[tuple[str, Figure]]:
    true = [each for each in evaluation.counterfactuals if each.error.ratio.particle]
    covered = [e for e in true if has_coverage(e)]
    first = "first " if evaluation.detail_rows < evaluation.rows else ""
    particles = f"{evaluation.particles} particles, {first}{evaluation.detail_rows} rows"
    particles = particles if evaluation.particles > 1 else ""
    if evaluation.densities:
        yield "densities", draw_densities(evaluation.densities)
    if true:
        yield "errors", draw_errors(true, particles)
    if evaluation.examples:
        labels = describe_rows(model, len(evaluation.examples[0].images))
        captions = [
            ["extrapolated" if VERDICTS[k] == "extrapolated" else "" for k in found[: len(labels)]]
            for found in (evaluation.overlap.by_row.values() if evaluation.overlap else ())
        ]
        yield "examples", draw_examples(evaluation.examples, labels, captions)
    if covered and particles:
        yield "coverage", draw_coverage(covered, particles)
    if evaluation.overlap is not None and evaluation.overlap.errors:
        yield "overlap", draw_overlap(evaluation.overlap)
    if evaluation.noise:
        yield "noise", draw_noise_results(evaluation.noise)


def _tagged(found: dict[str, float]) -> dict[str, float]:
    """Return the finite numbers by unique names that are valid in TensorBoard."""
    tagged: dict[str, float] = {}
    for name, value in found.items():
        if not math.isfinite(value):
            continue
        readable = re.sub(r"([-+*])=", lambda sign: _SIGNS[sign[1]], name)
        plain = tag = f"evaluation/{for_tag(readable)}"
        copies = 1
        while tag in tagged:
            copies += 1
            tag = f"{plain}_{copies}"
        tagged[tag] = value
    return tagged


def _or_none(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _plain_density(result: DensityResult) -> dict[str, Any]:
    return {
        "density": result.key,
        "variable": result.variable,
        "given": dict(result.given),
        "done": result.done,
        "unit": result.unit,
        "wasserstein_distance": result.distance,
        "floor": result.floor,
        "model": {
            "mean": _or_none(result.model.mean),
            "standard_deviation": _or_none(result.model.deviation),
            "quantiles": {
                f"{share:g}": _or_none(result.model.quantile(share)) for share in QUANTILES
            },
            "effective_size": _or_none(result.model.effective_size),
            "probabilities": {name: result.probability(k) for k, name in enumerate(result.classes)},
        },
    }


def _plain_noise(result: NoiseResult) -> dict[str, Any]:
    return {
        "rows": result.rows,
        "left_out": result.left_out,
        "entries": result.entries,
        "quantities": {name: _or_none(value) for name, value in result.quantities.items()},
    }
