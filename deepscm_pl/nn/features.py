"""The size of a condition, and the positions of its named parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["Features", "check_names", "positions"]


class Features(int):
    """A number of features of which each belongs to a name.

    It is the plain number for every network that does not ask for names.

    Args:
        sizes: The number of features of each name, in order.

    Example:
        >>> features = Features({"sex": 2, "age": 1})
        >>> features + 1, features.positions("place", ["age"])
        (4, [2])
    """

    sizes: Mapping[str, int]

    def __new__(cls, sizes: Mapping[str, int]) -> Features:
        """Add up the sizes."""
        found = super().__new__(cls, sum(sizes.values()))
        found.sizes = dict(sizes)
        return found

    def __getnewargs__(self) -> tuple[Mapping[str, int]]:  # type: ignore[override]
        """The arguments of a copy."""
        return (self.sizes,)

    def positions(self, argument: str, names: Collection[str]) -> list[int]:
        """The positions of the features of some names.

        Args:
            argument: The setting that names them, for the message.
            names: The names.

        Raises:
            ValueError: If there is no such name.
        """
        check_names(argument, names, self.sizes)
        owners = [name for name, size in self.sizes.items() for _ in range(size)]
        return [position for position, owner in enumerate(owners) if owner in names]


def positions(argument: str, features: int, names: Collection[str]) -> list[int]:
    """The positions of named features in a condition that may have no names.

    Raises:
        ValueError: If there is no such name.
    """
    known = features if isinstance(features, Features) else Features({})
    return known.positions(argument, names)


def check_names(argument: str, names: Collection[str], known: Collection[str]) -> None:
    """Refuse names of no parent.

    Raises:
        ValueError: If a name is unknown.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        wrong = ", ".join(map(repr, unknown))
        raise ValueError(
            f"{argument}: expected names of parents, "
            f"{', '.join(known) or 'of which there are none'}, but got {wrong}."
        )
