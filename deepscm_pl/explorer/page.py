"""The page of the explorer: HTML, styles and script around plain data, in one text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from deepscm_pl.escaping import policy_source

__all__ = ["embedded_json", "read_style", "render_page"]

_MARK = re.compile(r"\{\{(\w+)\}\}")


def render_page(data: Mapping[str, Any], title: str) -> str:
    """Make the page, which loads nothing from anywhere: its policy forbids it.

    Args:
        data: What the script shows: plain data with texts that need no escaping, because the script
            makes texts of them, never markup.
        title: The title of the page.
    """
    style, script = read_style("parts.css", "page.css"), _read("page.js")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {policy_source(style)}; script-src {policy_source(script)}"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": embedded_json(data),
    }
    # In one pass, so that marks in the data stay as they are.
    return _MARK.sub(lambda found: parts[found[1]], _read("page.html"))


def embedded_json(data: Mapping[str, Any]) -> str:
    r"""Serialise plain data as JSON that cannot end the element of HTML that it is in.

    Example:
        >>> embedded_json({"unit": "</script><!--"})
        '{"unit":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def read_style(*names: str) -> str:
    """The styles in some files of this package, in one text."""
    return "\n".join(map(_read, names))


def _read(name: str) -> str:
    return files("deepscm_pl.explorer").joinpath(name).read_text(encoding="utf-8")
