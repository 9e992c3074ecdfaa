"""Messages of others, short enough for one line of one's own."""

from __future__ import annotations

from deepscm_pl.escaping import for_terminal

__all__ = ["one_line"]


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
