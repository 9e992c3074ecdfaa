"""Formulas of the site as MathML, which browsers draw without a script or a font from elsewhere."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

__all__ = ["block", "inline"]

_CODE = re.compile(r"(<(pre|code|script|style)\b.*?</\2>)", re.DOTALL)
_FORMULA = re.compile(r"(?<![\\$\w])\$(?=\S)([^$\n<]+?)(?<=\S)\$(?![\d$])")


def block(source: str, *_: Any, **__: Any) -> str:
    r"""A fenced block ``math`` as a displayed formula, a formatter of ``pymdownx.superfences``.

    Example:
        >>> block("a")[:40]
        '<div class="formula"><math xmlns="http:/'
    """
    formula = source.replace(r"\begin{aligned}", r"\begin{align*}")
    formula = formula.replace(r"\end{aligned}", r"\end{align*}")
    return f'<div class="formula">{_mathml(formula, "block")}</div>'


def inline(page: str) -> str:
    """Formulas between dollar signs as MathML, in the HTML of a page outside its code.

    Example:
        >>> inline("<p>$a$</p>")[:9], inline("<code>$a$</code>"), inline("costs 5 $ or 6 $")
        ('<p><math ', '<code>$a$</code>', 'costs 5 $ or 6 $')
    """
    parts = _CODE.split(page)  # text, code, its element, text, ...
    parts = [each for k, each in enumerate(parts) if k % 3 != 2]
    for k in range(0, len(parts), 2):
        parts[k] = _FORMULA.sub(lambda found: _mathml(found[1], "inline"), parts[k])
    return "".join(parts)


def _mathml(formula: str, display: str) -> str:
    """A formula as MathML, in which the sign of a distribution is an operator with spaces."""
    made: str = convert(html.unescape(formula), display=display)
    return made.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
