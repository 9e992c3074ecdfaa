"""Model cards: what a model is, how to ask it, what was measured, and when not to use it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscm_pl.digest import weights_digest
from deepscm_pl.escaping import for_markdown, markdown_code, one_line
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.tables import TextTable
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.suggestions import Asked

__all__ = ["INTENDED_USE", "Measured", "ModelCard", "read_measured"]

_FILES = ("evaluation.json", "protocol.json")
_EFFECTIVENESS = "effectiveness/{}/intended/absolute_error"
_FRONT = """---
library_name: deepscm_pl
pipeline_tag: {task}
tags: [causal-inference, counterfactual, structural-causal-model, pytorch-lightning, pyro]
---"""
INTENDED_USE = """Research on causal questions of data like those of the training. The answers are
not validated for decisions about people, such as diagnosis or treatment."""
_ASSUMED = """
- Interventional answers are right only if the graph is, and if no two variables have a common
  cause that is missing. Counterfactual answers also assume the form of each mechanism, which no
  data can test.
- All particles of one model share its errors: their spread is a lower bound of the uncertainty.
- Outside of the ranges below, answers extrapolate; commands mark such answers.
""".strip()


@dataclass(frozen=True)
class Measured:
    """Figures of a model that a command has written, with the number of rows behind them.

    Attributes:
        title: What was run, for a heading.
        table: The figures.
        remarks: Warnings of the evaluation.
        verdict: The verdict of the evaluation in Markdown; empty for protocols and earlier files.
        digest: The :func:`~deepscm_pl.digest.weights_digest` of the model; empty in earlier files.
        source: The file.
    """

    title: str
    table: TextTable
    remarks: Sequence[str]
    digest: str
    source: Path
    verdict: str = ""

    @property
    def figures(self) -> dict[str, str]:
        """The figures as texts, by their question and name."""
        rows = [dict(zip(self.table.columns, row, strict=True)) for row in self.table.rows]
        return {
            ": ".join(part for part in (row["question"], row["figure"]) if part != "–"): row[
                "value"
            ]
            for row in rows
            if "value" in row
        }


def read_measured(folder: str | Path) -> Measured:
    """Read the figures in a folder that ``deepscm test`` has written.

    Raises:
        ValueError: If the folder contains neither ``evaluation.json`` nor ``protocol.json``, or
            one that cannot be read.
    """
    paths = [Path(folder) / name for name in _FILES]
    path = next((each for each in paths if each.is_file()), None)
    if path is None:
        raise ValueError(
            f"card: expected a folder with {' or '.join(_FILES)}, but got {folder}; name one that "
            "'deepscm test' has written."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        read = _protocol if path.name == "protocol.json" else _evaluation
        title, records = read(content)
        remarks = [str(each) for each in (content.get("reaction") or {}).get("verdicts") or ()]
        digest, verdict = str(content.get("weights") or ""), _verdict(content.get("verdict"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"card: {path} cannot be read ({type(error).__name__}: {one_line(error)}); make it "
            "again by 'deepscm test'."
        ) from None
    table = TextTable.of_records(title, records, words=2)
    return Measured(title, table, remarks, digest, path, verdict)


def _verdict(content: Mapping[str, Any] | None) -> str:
    """The verdict with its reasons where it is not good."""
    if not content:
        return ""
    grade, headline = (for_markdown(str(content[key])) for key in ("grade", "headline"))
    lines = [f"Verdict: **{grade}** – {headline}."]
    found = [each for each in content["verdicts"] if each["grade"] in ("bad", "doubtful")]
    items = "\n".join(f"- *{each['grade']}*: {for_markdown(each['sentence'])}." for each in found)
    return "\n\n".join([*lines, items] if items else lines)


def _protocol(content: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]]:
    title = f"Protocol {content['protocol']}, {content['rows']:,} test rows"
    records = [
        {
            "question": each["intervention"] or "–",
            "figure": ", ".join(
                filter(None, [each["variable"], each["quantity"], each["unit"], each["judge"]])
            ),
            "value": _estimated(each["defined"]),
            "floor": _number(each["floor"]),
        }
        for each in content["figures"]
    ]
    return title, records


def _evaluation(content: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]]:
    title = f"Evaluation, {content['rows']:,} test rows"
    records = [
        {"question": "–", "figure": each.get("label") or key, "value": _estimated(each)}
        for key, each in content["association"].items()
    ]
    for question, found in content["counterfactual"].items():
        for label, estimate in _answers(found["quantities"]):
            value = _estimated(estimate)
            records.append({"question": f"do({question})", "figure": label, "value": value})
    return title, records


def _answers(quantities: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The figures of one question that say most."""
    if "error/ratio/particle" in quantities:
        yield "error against the truth ÷ doing nothing", quantities["error/ratio/particle"]
    before, after = _EFFECTIVENESS.split("{}")
    for key, estimate in quantities.items():
        if key.startswith(before) and key.endswith(after):
            name = key.removeprefix(before).removesuffix(after)
            yield f"{name}, measured, off by", estimate


def _estimated(estimate: Mapping[str, Any]) -> str:
    error = estimate.get("standard_error")
    spread = f" ± {format_number(error)}" if error else ""
    return _number(estimate["mean"]) + spread


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else format_number(value)


@dataclass(frozen=True)
class ModelCard:
    """The card of a trained model in Markdown, with the front matter of the Hugging Face Hub.

    Attributes:
        name: Name of the model, the heading.
        scm: The model.
        description: The entries of its file without tensors.
        file: Name of the file beside the card.
        measured: Figures of the model.
        observations: Number of rows of the test split that travel with the model.

    Raises:
        ValueError: If figures are those of other weights.
    """

    name: str
    scm: StructuralCausalModel
    description: Mapping[str, Any]
    file: str
    measured: Sequence[Measured] = ()
    observations: int = 0

    def __post_init__(self) -> None:
        digest = weights_digest(self.scm)
        for each in self.measured:
            if each.digest != digest:
                raise ValueError(
                    f"card: expected figures of the weights that are exported, but {each.source} "
                    "has those of others, or of an earlier version; test this checkpoint."
                )

    def as_markdown(self) -> str:
        """Return the card."""
        task = "image-to-image" if self.scm.image_variables else "tabular-regression"
        parts = [_FRONT.format(task=task), f"# {for_markdown(self.name)}", *self._about()]
        parts += [f"## Ask it\n\n{self._usage()}", f"## Data\n\n{self._data()}"]
        parts += [f"## Training\n\n{self._training()}", "## Measured"]
        for each in self.measured:
            parts += [f"### {for_markdown(each.title)}", each.verdict, each.table.as_markdown()]
            if not each.verdict:  # which contains them
                parts += ["\n".join(f"- **{for_markdown(text)}.**" for text in each.remarks)]
        if not self.measured:
            parts.append("No figures were given: do not trust this model before it is tested.")
        parts += [
            f"## Intended use\n\n{INTENDED_USE}",
            f"## Limits\n\n{_ASSUMED}\n\n{self._ranges()}",
        ]
        return "\n\n".join(part.strip() for part in parts if part) + "\n"

    def _about(self) -> Iterator[str]:
        graph = markdown_code(self.scm.graph)
        yield f"A deep structural causal model of the graph {graph}, for `deepscm_pl`."
        parameters = sum(each.numel() for each in self.scm.parameters())
        yield f"{parameters:,} parameters in {len(self.scm.mechanisms)} mechanisms:"
        records = [
            {
                "variable": name,
                "parents": ", ".join(self.scm.graph.parents[name]) or "–",
                "mechanism": type(self.scm[name]).__name__,
                "values": str(variable.domain),
                "unit or classes": ", ".join(variable.classes) or variable.unit or "–",
            }
            for name, variable in self.scm.variables.items()
        ]
        yield TextTable.of_records("", records, words=5).as_markdown()

    def _usage(self) -> str:
        asked = Asked(self.scm, [self.file], new_folder=lambda folder: folder)
        lines = [f"model = deepscm_pl.load({self.file!r})", "answer = model.sample(8, seed=0)"]
        return (
            f"```bash\n{asked.intervene()}\n{asked.counterfactual()}\n```\n\n"
            "```python\nimport deepscm_pl\n\n" + "\n".join(lines) + "\n```"
        )

    def _data(self) -> str:
        data = self.description.get("data")
        if not isinstance(data, Mapping):
            return "The file does not describe the data."
        kind = str(data.get("class_path")).rpartition(".")[2]
        settings = data.get("init_args") or {}
        shown = {k: v for k, v in settings.items() if k not in _PLACES and v is not None}
        lines = "\n".join(f"- {for_markdown(k)}: {markdown_code(v)}" for k, v in shown.items())
        rows = int(self.scm.training_distribution.rows)
        kept = (
            f" The first {self.observations:,} rows of the test split travel with the model: "
            "`--index` takes them where the data are not there."
            if self.observations
            else ""
        )
        return f"`{kind}`, {rows:,} rows in the training split.{kept}\n\n{lines}"

    def _training(self) -> str:
        found = self.description
        version = (found.get("deepscm_pl") or {}).get("version", "unknown")
        lines = [f"- version of the program: {version}"]
        for key in ("epoch", "global_step", "random_seed"):
            if found.get(key) is not None:
                lines.append(f"- {key.replace('_', ' ')}: {found[key]}")
        averaged = "current_model_state" in found or found.get("weights") == "averaged"
        lines.append(
            f"- weights: {'averaged over the last steps' if averaged else 'of the last step'}"
        )
        tuned = sorted(found.get("provenance") or {})
        if tuned:
            lines.append(
                f"- tuned so that predictors of {', '.join(map(for_markdown, tuned))} see in "
                "counterfactuals what was asked; these predictors must not judge it"
            )
        return "\n".join(lines)

    def _ranges(self) -> str:
        kept = self.scm.training_distribution
        if not kept.is_known:
            return "The file does not contain the ranges of the training data."
        records = [
            {
                "variable": name,
                "from": format_number(kept.limits(name)[0]),
                "to": format_number(kept.limits(name)[1]),
                "unit": self.scm.variables[name].unit or "–",
            }
            for name in kept.domains
            if self.scm.variables[name].domain.categories is None
        ]
        return TextTable.of_records("", records, words=1).as_markdown() if records else ""


_PLACES = ("root", "cache_dir", "cache", "num_workers")
"""Settings of data modules that say where files are, and not what they contain."""
