"""Results of one protocol for several models, side by side."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from deepscm_pl.evaluation.protocols.results import Figure, ProtocolResult
from deepscm_pl.files import new_file
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.tables import TextTable

__all__ = [
    "comparison_tables",
    "differences",
    "read_protocol",
    "read_protocols",
    "summary",
    "write_comparison",
]

_FILE = "protocol.json"
_UNKNOWN = "–"


def read_protocol(folder: str | Path) -> ProtocolResult:
    """Read the result in a folder of ``deepscm test --protocol``.

    Raises:
        FileNotFoundError: If there is no ``protocol.json``.
        ValueError: If the file has been written by something else.
    """
    path = Path(folder) / _FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"compare: expected a folder with {_FILE}, as deepscm test --protocol writes it, but "
            f"{folder} has none; name such folders."
        )
    try:
        return ProtocolResult.of_plain_data(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"compare: {path}: {error}") from None


def read_protocols(folders: Sequence[str | Path], protocol: str) -> dict[str, ProtocolResult]:
    """Read the results of several models by the names of their folders.

    Args:
        folders: The folders; their last parts are the names of the models, or whole paths where
            those are equal.
        protocol: The protocol that all have to be of.

    Raises:
        FileNotFoundError: As of :func:`read_protocol`.
        ValueError: If one is of another protocol, or given twice.
    """
    paths = [Path(folder) for folder in folders]
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("compare: expected different folders, but one is given twice; remove it.")
    found = {name: read_protocol(path) for name, path in zip(names, paths, strict=True)}
    for name, result in found.items():
        if result.protocol != protocol:
            raise ValueError(
                f"compare: expected figures of {protocol}, but {name} has those of "
                f"{result.protocol}; test the model by --protocol {protocol}."
            )
    return found


def comparison_tables(results: Mapping[str, ProtocolResult]) -> list[TextTable]:
    """Return a table of the main figures, and one of all; each model has a column.

    Example:
        >>> from deepscm_pl.evaluation import Estimate
        >>> found = Figure("do(a ~ train)", "a", "mean absolute error", "px", "morphometry",
        ...                Estimate(0.15, 0.01, 100), floor=0.12)
        >>> result = ProtocolResult("ours", [found], 100, 100, [0])
        >>> first, second = comparison_tables({"flow": result, "vae": result})
        >>> first.columns, first.rows[0]
        (['figure', 'flow', 'vae'], ['a under do(a ~ train), px', '0.15', '0.15'])
        >>> second.columns[-2:], second.rows[0][-2:]
        (['flow', 'vae'], ['0.15', '0.15'])
    """
    return [_summaries(results), _all_figures(results)]


def _summaries(results: Mapping[str, ProtocolResult]) -> TextTable:
    found = {name: summary(result) for name, result in results.items()}
    headings = dict.fromkeys(heading for each in found.values() for heading in each)
    records = [
        {"figure": heading, **{name: each.get(heading, _UNKNOWN) for name, each in found.items()}}
        for heading in headings
    ]
    return TextTable.of_records("Main figures", records, words=1)


def summary(result: ProtocolResult) -> dict[str, str]:
    """Return the main figures of a result, as texts by heading.

    - of each cause its error under its own intervention, and the worst under those on others;
    - the error against the truth, divided by that of doing nothing: a mean over interventions with
      values of the data, and each intervention by constants; that of untouched pixels;
    - the largest error after most cycles, the mean coverage, and figures of the model.
    """
    found = _effectiveness(result, "mean absolute error", max)
    found |= _effectiveness(result, "accuracy", min)
    by_quantity: dict[str, list[Figure]] = {}
    for each in result.figures:
        by_quantity.setdefault(each.quantity, []).append(each)
    for quantity, figures in by_quantity.items():
        if quantity in ("error ÷ doing nothing", "untouched error"):
            drawn = [each for each in figures if "~" in each.intervention]
            found |= _joined(f"{quantity}, values of the data", drawn, _mean)
            for each in figures:
                if each not in drawn:
                    found |= _joined(f"{quantity}, {each.intervention}", [each], _mean)
        elif quantity.startswith("coverage"):
            found |= _joined(f"{quantity}, mean", figures, _mean)
    cycles = [name for name in by_quantity if name.startswith("error after")]
    if cycles:
        found |= _joined(f"{cycles[-1]}, at worst", by_quantity[cycles[-1]], max)
    for each in result.figures:
        if not each.intervention:
            found |= _joined(each.quantity, [each], _mean)
    return found


def _effectiveness(
    result: ProtocolResult, quantity: str, worst: Callable[[Sequence[float]], float]
) -> dict[str, str]:
    """The figures of causes by one judge each: a measurement where there is one."""
    judged = [each for each in result.figures if each.quantity == quantity and each.judge]
    found: dict[str, str] = {}
    for name in dict.fromkeys(each.variable for each in judged):
        kinds = sorted(each.judge for each in judged if each.variable == name)  # morphometry first
        own = [each for each in judged if each.variable == name and each.judge == kinds[0]]
        others = []
        for each in own:
            if each.intervention.startswith(f"do({name} ~"):
                found |= _joined(f"{name} under {each.intervention}", [each], _mean)
            elif "subset" not in each.intervention:
                others.append(each)
        found |= _joined(f"{name} under others, at worst", others, worst)
    return found


def _joined(
    heading: str, figures: Sequence[Figure], join: Callable[[Sequence[float]], float]
) -> dict[str, str]:
    values = [each.defined.mean for each in figures if not math.isnan(each.defined.mean)]
    if not values:
        return {}
    unit = f", {figures[0].unit}" if figures[0].unit else ""
    return {f"{heading}{unit}": format_number(join(values))}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _all_figures(results: Mapping[str, ProtocolResult]) -> TextTable:
    by_model = {
        name: {_key(each): each for each in result.figures} for name, result in results.items()
    }
    keys = dict.fromkeys(key for each in by_model.values() for key in each)
    records = []
    for key in keys:
        intervention, variable, quantity, unit, judge = key
        record = {
            "intervention": intervention or _UNKNOWN,
            "variable": variable,
            "quantity": f"{quantity}, {unit}" if unit else quantity,
            "judge": judge or _UNKNOWN,
            "floor": _text(next(e[key].floor for e in by_model.values() if key in e)),
        }
        for name, figures in by_model.items():
            figure = figures.get(key)
            record[name] = _text(None if figure is None else figure.defined.mean)
            record[f"{name}, as published"] = _text(None if figure is None else figure.published)
        records.append(record)
    return TextTable.of_records("Figures, as defined", records, words=4)


def _key(figure: Figure) -> tuple[str, str, str, str, str]:
    return figure.intervention, figure.variable, figure.quantity, figure.unit, figure.judge


def _text(value: float | None) -> str:
    return _UNKNOWN if value is None or math.isnan(value) else format_number(value)


def differences(results: Mapping[str, ProtocolResult]) -> Iterator[str]:
    """Yield sentences on why figures of models cannot be compared as they are."""
    for what, of in (
        ("numbers of images", lambda each: each.rows),
        ("seeds", lambda each: tuple(each.seeds)),
        ("judges", lambda each: tuple(sorted(each.judges.items()))),
    ):
        if len({of(each) for each in results.values()}) > 1:
            yield f"the models were tested with different {what}; compare them with care"


def write_comparison(
    results: Mapping[str, ProtocolResult], protocol: str, folder: Path
) -> list[Path]:
    """Write ``comparison.md``, and the main figures as ``comparison.csv``, into a folder."""
    tables = comparison_tables(results)
    markdown, table = folder / "comparison.md", folder / "comparison.csv"
    notes = "".join(f"- {note}.\n" for note in differences(results))
    parts = [f"## {each.title}\n\n{each.as_markdown()}" for each in tables]
    with new_file(markdown) as temporary:
        text = "\n".join([f"# {protocol}\n", *parts, notes]).rstrip() + "\n"
        temporary.write_text(text, encoding="utf-8")
    with new_file(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(tables[0].columns)
        writer.writerows(tables[0].rows)
    return [markdown, table]
