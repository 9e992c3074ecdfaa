"""YAML in which every setting has its reason as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

__all__ = ["commented_yaml"]

_WIDTH = 100


def commented_yaml(settings: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """Write settings as YAML, each with the reason for its value.

    A comment is at the end of its line if the line is not longer than 100 characters with it, and
    above the line otherwise.

    Args:
        settings: Nested settings: mappings, lists, texts, numbers, truth values and None.
        reasons: Dotted path of a setting, such as ``data.init_args.batch_size``, to its reason;
            entries of a list have their number as name.

    Returns:
        Text that YAML reads as ``settings``.

    Example:
        >>> print(commented_yaml({"data": {"batch_size": 32}}, {"data.batch_size": "353 rows"}))
        data:
          batch_size: 32  # 353 rows
        <BLANKLINE>
    """
    return "\n".join(_lines(settings, "", "", reasons)) + "\n"


def _lines(node: Any, path: str, indent: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """The lines of a mapping or of a list of mappings that are not empty."""
    entries = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in entries:
        where = f"{path}.{key}" if path else str(key)
        start = f"{indent}{_scalar(key)}:" if isinstance(node, Mapping) else f"{indent}-"
        folded = _folded(value, f"{indent}  ") if len(start) + len(str(value)) >= _WIDTH else None
        if folded is not None:
            yield from _with_reason(f"{start} >-", indent, reasons.get(where, ""))
            yield from folded
        elif not _is_block(value):
            yield from _with_reason(f"{start} {_scalar(value)}", indent, reasons.get(where, ""))
        elif start.endswith("-"):
            yield from _comment(indent, reasons.get(where, ""))
            yield from _item(_lines(value, where, f"{indent}  ", reasons), indent)
        else:
            yield from _with_reason(start, indent, reasons.get(where, ""))
            yield from _lines(value, where, f"{indent}  ", reasons)


def _item(lines: Iterator[str], indent: str) -> Iterator[str]:
    """The lines of an entry of a list, with a dash before the first that is no comment."""
    is_open = True
    for line in lines:
        if is_open and not line.lstrip().startswith("#"):
            line, is_open = f"{indent}- {line.removeprefix(f'{indent}  ')}", False
        yield line


def _folded(value: Any, indent: str) -> list[str] | None:
    """The lines of a long text, whose breaks YAML reads as blanks; None if it has no such lines."""
    if not isinstance(value, str) or not value.isprintable() or value != " ".join(value.split()):
        return None
    lines = textwrap.wrap(
        value, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False
    )
    return [f"{indent}{line}" for line in lines]


def _is_block(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and any(isinstance(each, Mapping) for each in value)


def _scalar(value: Any) -> str:
    """A scalar, or a list or mapping of scalars, in one line."""
    if isinstance(value, list):
        # In a list of one, a scalar is quoted as lists need it.
        return f"[{', '.join(_dumped([each])[1:-1] for each in value)}]"
    return _dumped(value)


def _dumped(value: Any) -> str:
    style = '"' if "\n" in str(value) or "\\n" in str(value) else None
    text = yaml.safe_dump(
        value,
        default_flow_style=True,
        default_style=style,
        allow_unicode=True,
        width=10**9,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _with_reason(line: str, indent: str, reason: str) -> Iterator[str]:
    complete = f"{line}  # {reason}"
    if not reason:
        yield line
    elif len(complete) <= _WIDTH:
        yield complete
    else:
        yield from _comment(indent, reason)
        yield line


def _comment(indent: str, reason: str) -> Iterator[str]:
    for line in textwrap.wrap(reason, _WIDTH - len(indent) - 2, break_long_words=False):
        yield f"{indent}# {line}"
