"""Options that are taken out of the words of a command line before its parser reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["option_value", "split_configurations", "take_options", "trusted_packages"]


def take_options(
    words: Sequence[str], is_taken: Callable[[str], bool], several: bool = False
) -> tuple[list[tuple[str, str]], list[str]]:
    """Split words into some options with their values and all other words.

    Args:
        words: The words.
        is_taken: Chooses options by name, such as ``--config``.
        several: Whether all words up to the next option are values.

    Returns:
        Option and value, as often as there is one, and the other words. An option without a value
        is among the other words.

    Example:
        >>> take_options(["fit", "--a=1", "--b", "2", "--a", "3"], "--a".__eq__)
        ([('--a', '1'), ('--a', '3')], ['fit', '--b', '2'])
    """
    taken: list[tuple[str, str]] = []
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if not is_taken(option):
            others.append(word)
        elif equals:
            taken.append((option, value))
        elif not rest or rest[0].startswith("--"):
            others.append(word)
        else:
            taken.append((option, rest.pop(0)))
            while several and rest and not rest[0].startswith("-"):
                taken.append((option, rest.pop(0)))
    return taken, others


def option_value(words: Sequence[str], *names: str) -> str | None:
    """Return the value of the first option with one of these names, or None.

    Example:
        >>> option_value(["fit", "-c=a.yaml"], "--config", "-c")
        'a.yaml'
    """
    taken, _ = take_options(words, names.__contains__)
    return taken[0][1] if taken else None


def split_configurations(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into the values of ``--config`` and all other words."""
    taken, others = take_options(words, ("--config", "-c").__contains__)
    return [value for _, value in taken], others


def trusted_packages(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into the values of ``--trust PACKAGE …`` and all other words.

    Example:
        >>> trusted_packages(["test", "--trust", "mine", "yours", "--ckpt_path", "last.ckpt"])
        (['mine', 'yours'], ['test', '--ckpt_path', 'last.ckpt'])
    """
    taken, others = take_options(words, "--trust".__eq__, several=True)
    return [value for _, value in taken], others
