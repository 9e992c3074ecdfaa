"""Docstrings of the package as Markdown, an extension of griffe for the reference of the site.

Docstrings contain a few constructs of reStructuredText: roles, formulas and examples headed
``Example:``. Markdown would show roles as text, and examples as quotations.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

__all__ = ["DocstringsAsMarkdown", "as_markdown"]

_ROLE = re.compile(r":(?:attr|class|exc|func|meth|mod|obj):`~?([^`]+)`")
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_MATH = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*| *$))*)", re.MULTILINE)
_TABLE = re.compile(
    r"^( *)=+(?: +=+)+\n(?:.*\n)*?\1=+(?: +=+)+\n(?:(?:.*\n)*?\1=+(?: +=+)+$)?", re.MULTILINE
)
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


def as_markdown(text: str) -> str:
    """Translate the reStructuredText of a docstring into Markdown; tables stay as they are.

    Example:
        >>> as_markdown("A :class:`~deepscm_pl.scm.Pair`.")
        'A `Pair`.'
        >>> print(as_markdown(".. math:: a + b").strip())
        ```math
        a + b
        ```
    """
    text = _MATH.sub(_fenced, text)
    text = _TABLE.sub(lambda found: f"{found[1]}```text\n{found[0]}\n{found[1]}```", text)
    text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    text = _INLINE_MATH.sub(lambda found: f"${found[1]}$", text)
    return _EXAMPLE.sub(r"\1Examples:", text)


def _fenced(found: re.Match[str]) -> str:
    """A fenced block of a formula, of several lines if they are separated by two backslashes."""
    formula = textwrap.dedent(found[2]).strip()
    if r"\\" in formula:
        formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
    lines = ["```math", *formula.splitlines(), "```"]
    return "\n".join(found[1] + line for line in lines) + "\n"


class DocstringsAsMarkdown(griffe.Extension):
    """Apply :func:`as_markdown` to every docstring that griffe reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Translate the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
