"""The size of a condition, with the positions of its named parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["Features", "check_names"]


class Features(int):
    """A number of features, each of which belongs to a name; to other code a plain integer.

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
        features = super().__new__(cls, sum(sizes.values()))
        features.sizes = dict(sizes)
        return features

    def __getnewargs__(self) -> tuple[Mapping[str, int]]:  # type: ignore[override]
        """Return the arguments of a copy."""
        return (self.sizes,)

    def positions(self, argument: str, names: Collection[str]) -> list[int]:
        """Return the positions of the features of ``names``, the setting ``argument``.

        Raises:
            ValueError: If a name is unknown.
        """
        check_names(argument, names, self.sizes)
        owners = [name for name, size in self.sizes.items() for _ in range(size)]
        return [position for position, owner in enumerate(owners) if owner in names]


def check_names(argument: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise a ValueError if one of ``names`` is not a known parent."""
    unknown = [name for name in names if name not in known]
    if unknown:
        wrong = ", ".join(map(repr, unknown))
        raise ValueError(
            f"{argument}: expected names of parents, "
            f"{', '.join(known) or 'of which there are none'}, but got {wrong}."
        )
