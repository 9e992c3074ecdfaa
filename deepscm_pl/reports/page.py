"""The page of a report: one file of HTML with its pictures, which loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

from markdown_it import MarkdownIt

from deepscm_pl.escaping import for_html, policy_source
from deepscm_pl.evaluation.verdict import Judgement, Verdict, worst
from deepscm_pl.reports.sections import Section
from deepscm_pl.reports.tables import TextTable
from deepscm_pl.reports.verdict import changed_limits, limit_table, threshold_table

__all__ = ["Picture", "render_page"]

_NOT_IN_TEXTS = ["link", "image", "autolink", "html_inline", "html_block", "reference"]
"""Kinds of Markdown that no text of a report contains, and that names therefore cannot make."""
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src {}"
_FULL_SIZE = "Full size"
_PICTURES = "Pictures fit the page; click one for its full size."
_PIXELS_PER_INCH = 96
"""Of a page, by the definition of CSS."""


class Picture:
    """A picture that is embedded in a page.

    Args:
        content: The file, PNG.
        resolution: Its pixels per inch, so that it is shown in its own size.

    Attributes:
        width: Its width in the page, in pixels.
    """

    def __init__(self, content: bytes, resolution: float) -> None:
        self.content = content
        # The width is the first number after the signature and the name of the first chunk.
        pixels = int.from_bytes(content[16:20], "big")
        self.width = max(round(pixels * _PIXELS_PER_INCH / resolution), 1)

    def as_html(self, caption: str) -> str:
        """Return the element with its caption.

        The picture fits the width of the page. A check box, which the label hides, switches to its
        full size, in which it scrolls: a page without scripts has no other way to keep a state.
        """
        data = base64.b64encode(self.content).decode("ascii")
        return (
            f'<figure><label title="{_FULL_SIZE}"><input type="checkbox" aria-label="{_FULL_SIZE}">'
            f'<img width="{self.width}" alt="{for_html(caption)}" '
            f'src="data:image/png;base64,{data}"></label></figure>\n'
            f'<p class="caption">{for_html(caption)}</p>'
        )


def render_page(
    title: str,
    introduction: str,
    judgement: Judgement,
    sections: Sequence[Section],
    pictures: Mapping[str, Picture],
) -> str:
    """Make a page of a report.

    Names and texts of files are escaped, the page has no script, and its policy forbids to load
    anything.

    Args:
        title: Its title.
        introduction: A paragraph below the title, in Markdown.
        judgement: The verdict, which comes first.
        sections: The other sections, of which tables and explanations are folded.
        pictures: By the name in their section.
    """
    style = files("deepscm_pl.reports").joinpath("page.css").read_text(encoding="utf-8")
    policy = for_html(_POLICY.format(policy_source(style)))
    links = [("Verdict", "verdict"), *((each.title, each.anchor) for each in sections)]
    contents = "\n".join(
        f'<li><a href="#{for_html(anchor)}">{for_html(name)}</a></li>' for name, anchor in links
    )
    body = "\n".join([_verdict(judgement), *(_section(each, pictures) for each in sections)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{for_html(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{for_html(title)}</h1>
{_paragraphs(introduction)}{f"<p>{_PICTURES}</p>" if pictures else ""}</header>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
<main>
{body}
</main>
</body>
</html>
"""


def _verdict(judgement: Judgement) -> str:
    subjects = "\n".join(_subject(name, each) for name, each in judgement.subjects.items())
    tables = [limit_table(judgement), threshold_table(judgement)]
    changed = changed_limits(judgement)
    folded = "\n".join(_folded(table.title, _table(table)) for table in tables)
    explanation = (
        "The grade of the model is the worst of its variables, and bad if the answers to all "
        "questions are. *Unknown* is what nothing measures. A good grade means that nothing was "
        "found wrong on these rows; it does not mean that the graph is right."
    )
    return f"""<section id="verdict">
<h2>Verdict</h2>
<p class="headline">{_grade(judgement.grade)} {for_html(judgement.headline.capitalize())}.</p>
{subjects}
{f"<p>{for_html(changed)}</p>" if changed else ""}
{_folded("How to read it", _paragraphs(explanation))}
{folded}
</section>"""


def _subject(name: str, verdicts: Sequence[Verdict]) -> str:
    items = "\n".join(
        f"<li>{_grade(each.grade)}<span>{for_html(each.reason)}</span></li>" for each in verdicts
    )
    return (
        f'<div class="subject"><h3>{for_html(name)} {_grade(worst(verdicts))}</h3>\n'
        f"<ul>\n{items}\n</ul></div>"
    )


def _grade(grade: str) -> str:
    return f'<span class="grade {for_html(grade)}">{for_html(grade)}</span>'


def _section(section: Section, pictures: Mapping[str, Picture]) -> str:
    return "\n".join(
        [
            f'<section id="{for_html(section.anchor)}">',
            f"<h2>{for_html(section.title)}</h2>",
            *_content(section, pictures),
            "</section>",
        ]
    )


def _content(section: Section, pictures: Mapping[str, Picture]) -> Iterator[str]:
    if section.picture:
        yield pictures[section.picture].as_html(section.caption)
    if section.text:
        yield _paragraphs(section.text)
    if section.explanation:
        yield _folded("How to read it", _paragraphs(section.explanation))
    if section.table is not None:
        yield _folded(section.table.title, _table(section.table))


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{for_html(summary)}</summary>\n{content}\n</details>"


def _table(table: TextTable) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        found = "".join(
            f"<{kind}{_class(k >= table.words)}>{for_html(cell)}</{kind}>"
            for k, cell in enumerate(cells)
        )
        return f"<tr>{found}</tr>"

    lines = "\n".join(row(each, "td") for each in table.rows)
    head = row(table.columns, "th")
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead>{head}</thead>\n<tbody>\n{lines}\n'
        "</tbody></table></div>"
    )


def _class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _paragraphs(text: str) -> str:
    """Convert Markdown of a report, whose names are escaped."""
    parser = MarkdownIt("commonmark", {"html": False}).disable(_NOT_IN_TEXTS)
    converted: str = parser.render(text)
    return converted
