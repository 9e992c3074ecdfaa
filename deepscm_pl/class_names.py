"""Classes of categorical variables by the names that the data have for them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NamedClass", "class_named"]


class NamedClass(float):
    """The index of a class, with its name.

    Args:
        index: Of the class.
        name: Of the class.

    Example:
        >>> male = NamedClass(1, "male")
        >>> male + 0.0, male.name
        (1.0, 'male')
    """

    name: str

    def __new__(cls, index: float, name: str) -> NamedClass:
        """A number that has a name."""
        made = super().__new__(cls, index)
        made.name = name
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        """For copies."""
        return float(self), self.name


def class_named(text: str, names: Sequence[str]) -> NamedClass | None:
    """The class that a text means: the one of this name, otherwise the one of this index.

    Data may have numbers as names, as where 1 and 2 stand for the sexes; then a number is a name.

    Args:
        text: As someone wrote it.
        names: Of the classes, in the order of their indices.

    Returns:
        None where no class is meant.

    Example:
        >>> class_named("male", ("female", "male")), class_named("1", ("female", "male"))
        (1.0, 1.0)
        >>> class_named("1", ("1", "2")), class_named("3", ("1", "2"))
        (0.0, None)
    """
    if text in names:
        return NamedClass(names.index(text), text)
    number = _number(text)
    if number is None:
        return None
    numbers = [_number(name) for name in names]
    if number in numbers:
        return NamedClass(numbers.index(number), names[numbers.index(number)])
    if None not in numbers or number not in range(len(names)):
        return None
    return NamedClass(number, names[int(number)])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
