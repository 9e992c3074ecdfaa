r"""Escaping of untrusted texts for each place where they are shown.

Class names, units, row identifiers, file names and messages may come from other people's files.
Terminals execute control characters, Markdown and HTML interpret markup, and spreadsheets evaluate
formulas. Texts are stored unchanged in memory and in JSON, and escaped where they are written.

==================  ==============================================================
output              function
==================  ==============================================================
terminal            :func:`for_terminal`
commands            :func:`for_shell`
Markdown            :func:`for_markdown`, :func:`markdown_code`
HTML                :func:`for_html`, and :func:`policy_source` for styles and scripts
pictures            :func:`for_picture`, and :class:`~deepscm_pl.figures.PlainFigure`
CSV                 :class:`TableWriter`, and :func:`from_spreadsheet` to read it back
JSON                :func:`as_json`
file names          :func:`for_file_name`
TensorBoard tags    :func:`for_tag`
==================  ==============================================================
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

__all__ = [
    "TableWriter",
    "as_json",
    "for_file_name",
    "for_html",
    "for_markdown",
    "for_picture",
    "for_shell",
    "for_spreadsheet",
    "for_tag",
    "for_terminal",
    "from_spreadsheet",
    "markdown_code",
    "one_line",
    "policy_source",
    "shortened",
]

_MARKUP = re.compile(
    r"[\\`*\[\]<>&|~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # Markdown ignores an underscore inside a word
    r"|:(?=//)|(?<=\bwww)\."  # addresses become links without any markup
)
_BLOCK_START = re.compile(r"^(?:[#+=-]|\d+[.)])(?=[\s#=-]|$)")
"""The start of a list item or a heading."""

_NUMERAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|nan)", re.ASCII)
_BEFORE_FORMULA = re.compile(r"(?<![\s;'])[\s;']*(?=[=+\-@＝＋－＠])")
"""Spaces, separators and apostrophes before a character that begins a formula."""
_SEPARATOR = re.compile(r"[;\t\r\n]")
"""Characters that some programs read as the end of a cell, even between quotes."""

_LINE_CHARACTERS, _MOST_LINES = 120, 100
_FILE_NAME_BYTES = 100


def for_terminal(text: object, lines: bool = False) -> str:
    r"""Escape a text for one line of a terminal.

    Control characters, direction marks and invisible characters become Python escapes.

    Args:
        text: A text, or an object that is converted to one.
        lines: Whether to keep line breaks and tabs.

    Example:
        >>> print(for_terminal("\x1b[31mred\nmm³"))
        \x1b[31mred\nmm³
    """
    kept = "\n\t" if lines else ""
    return "".join(
        each if _is_visible(each) or each in kept else _escape(each) for each in str(text)
    )


def for_shell(*words: str) -> str:
    r"""Quote the words of a command, so that it can be shown on a terminal and run by bash.

    Example:
        >>> print(for_shell("deepscm", "test", "--ckpt_path", "my run/last.ckpt"))
        deepscm test --ckpt_path 'my run/last.ckpt'
        >>> print(for_shell("a\nb"))
        $'a\nb'
    """
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if for_terminal(word) == word:
        return shlex.quote(word)
    escaped = "".join(
        f"\\{each}" if each in "\\'" else each if _is_visible(each) else _shell_escape(each)
        for each in word
    )
    return f"$'{escaped}'"


def _shell_escape(character: str) -> str:
    # A number of two digits is a byte in a shell, but a character in Python.
    return _escape(character) if ord(character) < 0x80 else f"\\U{ord(character):08x}"


def for_markdown(text: object) -> str:
    r"""Escape a text for one line or table cell of Markdown: no links, images or HTML."""
    marked = _MARKUP.sub(lambda found: f"\\{found[0]}", for_terminal(text).strip())
    return _BLOCK_START.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", marked)


def for_html(text: object) -> str:
    """Escape a text for an element or a quoted attribute of HTML.

    Example:
        >>> for_html('<b title="x">')
        '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(for_terminal(text))


def policy_source(text: str) -> str:
    """The digest by which a content security policy admits a style or a script of the same page.

    Example:
        >>> policy_source("p { margin: 0 }")
        "'sha256-7IWhgxoOGTB5NQzjGk9OPt0FwhVeBvZGoWgF9xLLh8c='"
    """
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def markdown_code(text: object) -> str:
    """Format a text that is not empty as inline code of Markdown, but not for table cells."""
    shown = for_terminal(text)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown[:1] in "` " or shown[-1:] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def for_picture(text: object) -> str:
    r"""Escape a text of several lines for a figure, and shorten long lines."""
    lines = [for_terminal(line) for line in str(text).split("\n")]
    most = _LINE_CHARACTERS
    lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    return "\n".join(lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "…"])


def for_spreadsheet(cell: str) -> str:
    """Escape a text for a cell of CSV: an apostrophe precedes the start of a formula.

    This includes a start after a semicolon or tab, which some programs read as the end of a cell.
    Numbers are not changed. :func:`from_spreadsheet` is the inverse, except for lone surrogates,
    which UTF-8 cannot encode: they become Python escapes.

    Example:
        >>> for_spreadsheet("=1+1"), for_spreadsheet("-5"), for_spreadsheet("a;=1")
        ("'=1+1", '-5', "a;'=1")
    """
    if _NUMERAL.fullmatch(cell):
        return cell
    encodable = re.sub("[\ud800-\udfff]", lambda found: _escape(found[0]), cell)
    return _BEFORE_FORMULA.sub(_with_apostrophes, encodable)


def from_spreadsheet(cell: str) -> str:
    """Invert :func:`for_spreadsheet`, without changing other texts."""
    return _BEFORE_FORMULA.sub(_without_apostrophes, cell)


class TableWriter:
    r"""A writer of CSV tables that escapes formulas in texts.

    Args:
        file: A text file, opened with ``newline=""``.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)

    def writerow(self, cells: Iterable[object]) -> None:
        """Write a row of texts and numbers."""
        self.writerows([cells])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        self._writer.writerows(
            [for_spreadsheet(cell) if isinstance(cell, str) else cell for cell in row]
            for row in rows
        )


def as_json(document: Mapping[str, Any]) -> str:
    r"""Serialise plain data as JSON in UTF-8, with null for NaN and infinity."""
    text = json.dumps(_without_nan(document), indent=2, ensure_ascii=False, allow_nan=False)
    # Lone surrogates cannot be encoded, and invisible characters could act on a terminal.
    lines = (
        "".join(each if _is_visible(each) else json.dumps(each)[1:-1] for each in line)
        for line in text.split("\n")  # strings have no line breaks, so these separate entries
    )
    return "\n".join(lines) + "\n"


def for_file_name(text: object) -> str:
    """Convert a text to a part of a file name that stays inside its folder.

    Letters, digits and the characters ``-_.=`` are kept. If there are others, or the text is long,
    a hash is appended, so that different texts have different names.

    Example:
        >>> for_file_name("brain_volume"), for_file_name("../../etc")
        ('brain_volume', '____etc-74ccf3')
    """
    name = str(text)
    plain = re.sub(r"[^\w.=-]", "_", name)
    plain = re.sub(r"^[.-]+|\.\.+", "_", plain)
    if plain == name and len(name.encode()) <= _FILE_NAME_BYTES:
        return plain
    code = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    short = plain.encode()[: _FILE_NAME_BYTES - 7].decode(errors="ignore")
    return f"{short}-{code}"


def for_tag(text: object) -> str:
    """Convert a text to the characters that TensorBoard allows in a tag."""
    return re.sub(r"[^-/\w.]+", "_", str(text))


def one_line(message: object, longest: int = 500) -> str:
    r"""Take the first line of a message, escaped for a terminal.

    Args:
        message: An exception, or an object that is converted to a text.
        longest: Most characters to keep.
    """
    lines = str(message).strip().splitlines() or [type(message).__name__]
    text = for_terminal(lines[0])
    return text if len(text) <= longest else f"{text[:longest]}…"


def shortened(text: str, most: int) -> str:
    """Cut a text to some characters, of which the last is then an ellipsis.

    Example:
        >>> shortened("thickness", 6), shortened("age", 6)
        ('thick…', 'age')
    """
    return text if len(text) <= most else f"{text[: max(most - 1, 1)]}…"


def _is_visible(character: str) -> bool:
    # For Python, all spaces but U+0020 are unprintable.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _with_apostrophes(found: re.Match[str]) -> str:
    marked = _SEPARATOR.sub(lambda separator: f"{separator[0]}'", found[0])
    return marked if found.start() else f"'{marked}"


def _without_apostrophes(found: re.Match[str]) -> str:
    marked = found[0] if found.start() else found[0].removeprefix("'")
    return re.sub(rf"({_SEPARATOR.pattern})'", r"\1", marked)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
