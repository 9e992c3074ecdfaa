r"""Texts that come from files, made harmless for what shows them.

Names of classes, units, identifiers of rows, file names and messages are texts of somebody else. A
terminal obeys control characters, Markdown and HTML obey markup, a spreadsheet computes what
begins with an equals sign. Texts are kept as they are in memory and in JSON; whatever writes one
elsewhere passes it through the function of its kind.

==================  ==============================================================
where it is shown   function
==================  ==============================================================
terminal            :func:`for_terminal`
Markdown, HTML      :func:`for_markdown`, :func:`markdown_code`
pictures            :func:`for_picture`, and :class:`~deepscm_pl.figures.PlainFigure`
CSV                 :class:`TableWriter`, and :func:`from_spreadsheet` to read it back
JSON                :func:`as_json`
names of files      :func:`for_file_name`
tags of a log       :func:`for_tag`
==================  ==============================================================
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

__all__ = [
    "TableWriter",
    "as_json",
    "for_file_name",
    "for_markdown",
    "for_picture",
    "for_spreadsheet",
    "for_tag",
    "for_terminal",
    "from_spreadsheet",
    "markdown_code",
    "one_line",
]

_MARKUP = re.compile(
    r"[\\`*\[\]<>&|~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside a word is none of Markdown
    r"|:(?=//)|(?<=\bwww)\."  # addresses become links without any markup
)
_BLOCK = re.compile(r"^(?:[#+=-]|\d+[.)])(?=[\s#=-]|$)")
"""What makes a list or a heading of a line."""

_BACKTICKS = re.compile(r"`+")

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|nan)", re.ASCII)
_BEFORE_FORMULA = re.compile(r"(?<![\s;'])[\s;']*(?=[=+\-@＝＋－＠])")
"""What precedes a character with which a formula begins, spaces, separators and apostrophes."""
_SEPARATOR = re.compile(r"[;\t\r\n]")
"""Where other programs than ours may begin a cell, whatever the quotes."""

_LONGEST_LINE, _MOST_LINES = 120, 100
_LONGEST_NAME = 100
"""Bytes of the part of a file name."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def for_terminal(text: object, lines: bool = False) -> str:
    r"""A text in one line in which everything is seen and nothing is obeyed.

    Characters that control a terminal, that change the direction of what is written or that cannot
    be seen are written as Python writes them.

    Args:
        text: Anything that has a text.
        lines: Whether line breaks and tabs stay, for messages of several lines.

    Example:
        >>> print(for_terminal("\x1b[31mred\nmm³"))
        \x1b[31mred\nmm³
    """
    kept = "\n\t" if lines else ""
    return "".join(each if _is_seen(each) or each in kept else _escape(each) for each in str(text))


def for_markdown(text: object) -> str:
    r"""A text in one line of Markdown, table cells included, without links, images and HTML.

    Args:
        text: Anything that has a text.

    Example:
        >>> print(for_markdown("brain_volume [mm] | <b>"))
        brain_volume \[mm\] \| \<b\>
    """
    marked = _MARKUP.sub(lambda found: f"\\{found[0]}", for_terminal(text).strip())
    return _BLOCK.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", marked)


def markdown_code(text: object) -> str:
    """A text in one line of Markdown as code; for paragraphs, not for cells of tables.

    Args:
        text: Anything that has a text, one that is not empty.

    Example:
        >>> print(markdown_code("a -> b"), markdown_code("a`b"))
        `a -> b` ``a`b``
    """
    shown = for_terminal(text)
    longest = max(map(len, _BACKTICKS.findall(shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if shown[:1] in "` " or shown[-1:] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def for_picture(text: object) -> str:
    r"""A text of some lines without characters that have no picture, none of them very long.

    Args:
        text: Anything that has a text.

    Example:
        >>> print(for_picture("test 1\nsex \x1b[31mred"))
        test 1
        sex \x1b[31mred
    """
    lines = [_shortened(for_terminal(line)) for line in str(text).split("\n")]
    return "\n".join(lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "…"])


def for_spreadsheet(cell: str) -> str:
    """A text that a spreadsheet takes for a text: an apostrophe precedes what it would compute.

    So it does where a semicolon or tab inside of the text may be held for the end of a cell.
    Numbers stay numbers. :func:`from_spreadsheet` gives back the same text, unless it holds halves
    of characters, which UTF-8 lacks: they are written as Python writes them.

    Example:
        >>> for_spreadsheet("=1+1"), for_spreadsheet("-5"), for_spreadsheet("a;=1")
        ("'=1+1", '-5', "a;'=1")
    """
    if _NUMBER.fullmatch(cell):
        return cell
    return _BEFORE_FORMULA.sub(_with_apostrophes, _without_halves(cell))


def from_spreadsheet(cell: str) -> str:
    """The text that :func:`for_spreadsheet` was given; other texts as they are.

    Example:
        >>> from_spreadsheet("'=1+1"), from_spreadsheet("'tis")
        ('=1+1', "'tis")
    """
    return _BEFORE_FORMULA.sub(_without_apostrophes, cell)


class TableWriter:
    r"""Writes a CSV table whose texts no spreadsheet computes.

    Args:
        file: Opened for text, with ``newline=""``.

    Example:
        >>> import io
        >>> file = io.StringIO()
        >>> TableWriter(file).writerows([["sex", "change"], ["=male", -0.5]])
        >>> file.getvalue()
        "sex,change\r\n'=male,-0.5\r\n"
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)

    def writerow(self, cells: Iterable[object]) -> None:
        """Write a row.

        Args:
            cells: Texts and numbers.
        """
        self._writer.writerow(
            [for_spreadsheet(cell) if isinstance(cell, str) else cell for cell in cells]
        )

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)


def as_json(document: Mapping[str, Any]) -> str:
    r"""Plain data as a JSON document of UTF-8, with null for NaN and infinity, which JSON lacks.

    Args:
        document: Plain data.

    Example:
        >>> print(as_json({"unit": "mm³", "mean": math.nan}), end="")
        {
          "unit": "mm³",
          "mean": null
        }
    """
    text = json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)
    # A half of a character has no place in UTF-8, and what cannot be seen is for no terminal.
    lines = (
        "".join(each if _is_seen(each) else json.dumps(each)[1:-1] for each in line)
        for line in text.split("\n")  # those between entries, for texts have none
    )
    return "\n".join(lines) + "\n"


def for_file_name(text: object) -> str:
    """A part of a file name that stays inside its folder and is not too long for any system.

    Letters, digits and the characters ``-_.=`` stay; a text that has others, or is too long, ends
    in a code that tells it from others alike.

    Args:
        text: Anything that has a text.

    Example:
        >>> for_file_name("brain_volume"), for_file_name("../../etc")
        ('brain_volume', '____etc-74ccf3')
    """
    name = str(text)
    plain = re.sub(r"[^\w.=-]", "_", name)
    plain = re.sub(r"^[.-]+|\.\.+", "_", plain)
    if plain == name and len(name.encode()) <= _LONGEST_NAME:
        return plain
    code = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    short = plain.encode()[: _LONGEST_NAME - 7].decode(errors="ignore")
    return f"{short}-{code}"


def for_tag(text: object) -> str:
    """A name of the characters that TensorBoard takes for a tag.

    Args:
        text: Anything that has a text.

    Example:
        >>> for_tag("p(age | sex = male)/mean")
        'p_age_sex_male_/mean'
    """
    return re.sub(r"[^-/\w.]+", "_", str(text))


def _is_seen(character: str) -> bool:
    # Python holds all spaces but the usual one for unprintable.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _without_halves(text: str) -> str:
    return _SURROGATE.sub(lambda found: _escape(found[0]), text)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"


def _with_apostrophes(found: re.Match[str]) -> str:
    marked = _SEPARATOR.sub(lambda separator: f"{separator[0]}'", found[0])
    return marked if found.start() else f"'{marked}"


def _without_apostrophes(found: re.Match[str]) -> str:
    marked = found[0] if found.start() else found[0].removeprefix("'")
    return re.sub(rf"({_SEPARATOR.pattern})'", r"\1", marked)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_line(message: object, longest: int = 500) -> str:
    r"""The first line of a message, without what a terminal would obey.

    Args:
        message: An exception, or anything that has a text.
        longest: Characters that are kept.

    Example:
        >>> one_line(RuntimeError("no room\nfor the second line"))
        'no room'
        >>> one_line(ValueError("a bell \a"))
        'a bell \\x07'
        >>> one_line(KeyError())
        'KeyError'
    """
    lines = str(message).strip().splitlines() or [type(message).__name__]
    text = for_terminal(lines[0])
    return text if len(text) <= longest else f"{text[:longest]}…"
