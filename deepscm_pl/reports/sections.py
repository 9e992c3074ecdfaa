"""Sections of a report, from which its Markdown and its page are made."""

from __future__ import annotations

from dataclasses import dataclass

from deepscm_pl.escaping import for_markdown
from deepscm_pl.reports.tables import TextTable

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its heading.
        explanation: How to read it, in Markdown.
        table: Its numbers.
        text: Further paragraphs, in Markdown.
        picture: The name of its picture without the ending; empty for none.
        caption: The caption of the picture.

    Example:
        >>> Section("Noise", text="All is well.").as_markdown()
        ['## Noise', 'All is well.']
    """

    title: str
    explanation: str = ""
    table: TextTable | None = None
    text: str = ""
    picture: str = ""
    caption: str = ""

    @property
    def anchor(self) -> str:
        """The name of the section in addresses."""
        return self.title.lower().replace(" ", "-")

    def as_markdown(self) -> list[str]:
        """Return the paragraphs, with a link to the picture in the same folder."""
        parts = [f"## {self.title}"]
        parts += [self.explanation] if self.explanation else []
        if self.table is not None:
            parts += [f"{for_markdown(self.table.title)}.", self.table.as_markdown()]
        parts += [self.text] if self.text else []
        if self.picture:
            parts.append(f"![{self.caption}]({self.picture}.png)\n\n*{self.caption}*")
        return parts
