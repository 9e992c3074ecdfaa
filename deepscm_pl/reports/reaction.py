"""The reaction of images in a report: tables and plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.reaction import ReactionResult
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.tables import TextTable, estimated

__all__ = ["plain_reaction", "reaction_table", "shown_table"]

_EMPTY = "–"


def reaction_table(result: ReactionResult, model: ModelOnData) -> TextTable:
    """Return a row for each cause of the image."""
    records = []
    for name, each in result.causes.items():
        error = _error(model, name)
        records.append(
            {
                "cause": name,
                "unit": _unit(model, name),
                "change of the image": _percent(each.change),
                "asked changes shown": _percent(each.response),
                "error of counterfactuals": error(each.error),
                "of test images": error(each.floor),
                "R² of asked and shown": estimated(each.r_squared, 3),
                "skill of the predictor": estimated(each.skill, 3),
            }
        )
    title = "Reaction: whether the image shows the values of other test rows, once they are set"
    return TextTable.of_records(title, records, words=2)


def shown_table(result: ReactionResult, model: ModelOnData) -> TextTable:
    """Return the share of pixel noise of each intervention, and what its images show."""
    graph, records = model.scm.graph, []
    noise = "share of pixel noise"
    if result.pixel_noise is not None:
        records.append(_shown("none", _EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY)
                       | {noise: _percent(result.pixel_noise)})  # fmt: skip
    for each in result.questions:
        title, done = each.question.title, each.question.do.keys()
        affected = graph.descendants(*done)
        rows = [
            _shown(
                title,
                name,
                "set" if name in done else "effect" if name in affected else "kept",
                _unit(model, name),
                _error(model, name)(error),
                _error(model, name)(result.causes[name].floor),
            )
            for name, error in each.shown.items()
        ]
        rows = rows or [_shown(title, _EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY)]
        records += [row | {noise: _percent(each.pixel_noise)} for row in rows]
    if not any(each.shown for each in result.questions):  # without a predictor
        records = [{"intervention": each["intervention"], noise: each[noise]} for each in records]
        title = "Shown: the share of counterfactual images that is pixel noise"
        return TextTable.of_records(title, records)
    title = "Shown: what counterfactual images show, and the share of them that is pixel noise"
    return TextTable.of_records(title, records, words=4)


def _shown(*cells: str) -> dict[str, str]:
    headings = ("intervention", "cause", "is", "unit", "error shown", "error in test images")
    return dict(zip(headings, cells, strict=True))


def plain_reaction(result: ReactionResult | None, verdicts: Sequence[str]) -> dict[str, Any]:
    """Return verdicts and all numbers as plain data."""
    quantities = {} if result is None else result.quantities
    return {
        "verdicts": list(verdicts),
        "quantities": {key: value.as_plain_data() for key, value in quantities.items()},
    }


def _unit(model: ModelOnData, name: str) -> str:
    if model.scm[name].domain.categories is not None:
        return "wrong classes"
    return model.unit(name) or _EMPTY


def _error(model: ModelOnData, name: str) -> Callable[[Estimate | None], str]:
    if model.scm[name].domain.categories is not None:
        return _percent
    return _number


def _number(estimate: Estimate | None) -> str:
    if estimate is None or not math.isfinite(estimate.mean):
        return _EMPTY
    return format_number(estimate.mean)


def _percent(estimate: Estimate | None) -> str:
    if estimate is None or not math.isfinite(estimate.mean):
        return _EMPTY
    # Beyond 100 %, the image without pixel noise is further away than the mean image.
    return "> 100 %" if estimate.mean > 1.005 else f"{100 * estimate.mean:.1f} %"
