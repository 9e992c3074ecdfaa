"""Mechanisms of the variables of a table."""

from __future__ import annotations

from typing import Any

from deepscm_pl.data.tables.kinds import MANY_ZEROS, are_repeated, standard_bounds
from deepscm_pl.planning.columns import ColumnFingerprint

__all__ = ["scalar_mechanism"]

_MECHANISMS = "deepscm_pl.mechanisms"
_TRANSFORMS = "deepscm_pl.transforms"
_FEW_ROWS = 100
_MANY_ROWS = 5000


def scalar_mechanism(
    column: ColumnFingerprint, has_parents: bool, rows: int
) -> tuple[dict[str, Any] | str, dict[str, str]]:
    """Choose the mechanism of a variable.

    Args:
        column: The variable.
        has_parents: Whether it has causes in the graph.
        rows: Number of training rows, which determines the size of the network.

    Returns:
        Class and arguments, and the reasons by dotted path within them.
    """
    kind, reason = column.kind, f"{column.kind}: {column.reason}"
    hidden, reason_of_hidden = _hidden(rows)
    if kind in ("binary", "ordinal", "categorical"):
        names = {"binary": "Bernoulli", "ordinal": "Ordinal", "categorical": "Categorical"}
        arguments: dict[str, Any] = {} if kind == "binary" else {"categories": column.distinct}
        if has_parents:
            arguments["hidden"] = hidden
        return _described(
            names[kind],
            arguments,
            reason,
            {"categories": "number of classes", "hidden": reason_of_hidden},
        )
    flow, reasons = _flow(column, has_parents, rows)
    if kind == "count" or _is_stepped(column):
        step = column.step or 1.0
        why = {"step": f"recorded in steps of {step:g}", "flow": "of numbers in [x, x + step)"}
        return _described(
            "SteppedFlow",
            {"flow": flow, "step": step},
            reason,
            why | {f"flow.{key}": value for key, value in reasons.items()},
        )
    if column.lowest == 0 and column.zeros >= MANY_ZEROS:
        arguments = {"flow": flow} | ({"hidden": hidden} if has_parents else {})
        why = {"flow": "of the values above zero", "hidden": reason_of_hidden}
        return _described(
            "ZeroInflatedFlow",
            arguments,
            f"{reason}; {column.zeros:.0%} of them are exactly zero",
            why | {f"flow.{key}": value for key, value in reasons.items()},
        )
    return flow, {"": reason, **reasons}


def _hidden(rows: int) -> tuple[list[int], str]:
    if rows < _FEW_ROWS:
        return [], f"linear in the causes: {rows} training rows are too few for a network"
    width = 16 if rows < _MANY_ROWS else 32
    return [width, width], f"two hidden layers: any smooth function of the causes, {rows:,} rows"


def _is_stepped(column: ColumnFingerprint) -> bool:
    """Whether values repeat so much that a flow would report densities above any probability."""
    return column.step is not None and are_repeated(
        column.distinct, column.rows, column.most_frequent, column.zeros
    )


def _is_score(column: ColumnFingerprint) -> bool:
    """Whether whole numbers are all those from 1 to at most 10, as those of a scale."""
    low, high = column.lowest or 0, column.highest or 0
    return column.kind == "count" and low == 1 and column.distinct == high <= 10


def _flow(
    column: ColumnFingerprint, has_parents: bool, rows: int
) -> tuple[dict[str, Any], dict[str, str]]:
    constraint, reason = _constraint(column)
    hidden, reason_of_hidden = _hidden(rows)
    arguments: dict[str, Any] = {"constraint": constraint}
    reasons = {"init_args.constraint": reason}
    if has_parents:
        arguments["hidden"] = hidden
        reasons["init_args.hidden"] = reason_of_hidden
    if rows < _FEW_ROWS:
        return {"class_path": f"{_MECHANISMS}.AffineFlow", "init_args": arguments}, reasons
    arguments["bins"] = 5 if rows < _MANY_ROWS else 8
    reasons["init_args.bins"] = "of the spline, which learns the shape of the distribution"
    return {"class_path": f"{_MECHANISMS}.SplineFlow", "init_args": arguments}, reasons


def _constraint(column: ColumnFingerprint) -> tuple[dict[str, Any] | str, str]:
    low, high = column.lowest or 0.0, column.highest or 0.0
    step = column.step or 1.0
    if column.kind == "bounded":
        bounds = _bounds(low, high)
        return _class(f"{_TRANSFORMS}.Interval", bounds), "the bounds, which no value can exceed"
    if _is_score(column) or (column.kind != "count" and _is_stepped(column)):
        bounds = {"low": low, "high": high + step}
        return _class(f"{_TRANSFORMS}.Interval", bounds), f"scores from {low:g} to {high:g}"
    if column.kind == "count":
        return f"{_TRANSFORMS}.Positive", "counts are whole numbers from 0 on"
    if low > 0 or (low == 0 and column.zeros >= MANY_ZEROS):
        return f"{_TRANSFORMS}.Positive", f"all are above zero, up to {high:g}"
    return f"{_TRANSFORMS}.Real", "any number"


def _bounds(low: float, high: float) -> dict[str, float]:
    """The usual bounds around two numbers; with those numbers on them, slightly wider ones."""
    found = standard_bounds(low, high) or (low, high)
    margin = 0.001 * (found[1] - found[0])
    return {
        "low": found[0] - (margin if low <= found[0] else 0),
        "high": found[1] + (margin if high >= found[1] else 0),
    }


def _class(path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def _described(
    name: str, arguments: dict[str, Any], reason: str, reasons: dict[str, str]
) -> tuple[dict[str, Any] | str, dict[str, str]]:
    path = f"{_MECHANISMS}.{name}"
    if not arguments:
        return path, {"": reason}
    used = {f"init_args.{k}": v for k, v in reasons.items() if k.partition(".")[0] in arguments}
    return _class(path, arguments), {"": reason, **used}
