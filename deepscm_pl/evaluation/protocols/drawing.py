"""Stochastic interventions: a value for each image, drawn from a column of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["DrawnDo", "of_other_bins", "of_training", "random_subset"]


@dataclass(frozen=True)
class DrawnDo:
    """An intervention with values of its own for each of N rows.

    Attributes:
        title: Such as ``do(thickness ~ train)``.
        values: The value of each intervened variable, ``(N, 1)``.
        chosen: The rows in which a variable is intervened on, ``(N,)``; all rows where a variable
            is missing here.
    """

    title: str
    values: Mapping[str, Tensor]
    chosen: Mapping[str, Tensor]

    def mask(self, name: str, size: int) -> Tensor:
        """Return the rows, of ``size``, in which a variable is intervened on."""
        return self.chosen.get(name, torch.ones(size, dtype=torch.bool))

    def groups(self, size: int, some: slice) -> Iterator[tuple[list[str], Tensor]]:
        """Yield names and the rows of a slice, as a mask, in which just these are intervened on."""
        names = list(self.values)
        masks = [self.mask(name, size)[some] for name in names]
        pattern = torch.stack([*masks, torch.ones(size, dtype=torch.bool)[some]], dim=1)
        for changed in pattern.unique(dim=0):
            asked = [name for name, flag in zip(names, changed.tolist(), strict=False) if flag]
            yield asked, (pattern == changed).all(dim=1)

    def first(self, rows: int) -> DrawnDo:
        """Return the intervention on the first rows."""
        values = {name: each[:rows] for name, each in self.values.items()}
        return DrawnDo(self.title, values, {n: each[:rows] for n, each in self.chosen.items()})

    @classmethod
    def null(cls) -> DrawnDo:
        """Return the null intervention, which changes nothing."""
        return cls("null", {}, {})

    @classmethod
    def constant(cls, title: str, do: Mapping[str, float], size: int) -> DrawnDo:
        """Return an intervention by the same values in N rows.

        Example:
            >>> DrawnDo.constant("do(age = 5)", {"age": 5.0}, 2).values["age"].flatten()
            tensor([5., 5.])
        """
        return cls(title, {n: torch.full((size, 1), float(v)) for n, v in do.items()}, {})


def of_training(
    name: str, column: Tensor, size: int, generator: torch.Generator, batch: int
) -> DrawnDo:
    """Draw the first values of a random permutation of the training column, anew for each batch.

    Example:
        >>> column = torch.arange(9.0)[:, None]
        >>> do = of_training("age", column, 3, torch.Generator().manual_seed(0), batch=2)
        >>> do.title, do.values["age"].shape
        ('do(age ~ train)', torch.Size([3, 1]))
    """
    return DrawnDo(f"do({name} ~ train)", {name: _permuted(column, size, generator, batch)}, {})


def random_subset(
    columns: Mapping[str, Tensor], size: int, generator: torch.Generator, batch: int
) -> DrawnDo:
    """Intervene on each variable with probability 1/2, with values as above.

    In every row at least one variable is intervened on: coins are thrown again where all have
    failed. Each row has coins of its own, so that rows are independent; the published code throws
    them once for each batch, which has the same expectation.
    """
    drawn = {
        name: of_training(name, each, size, generator, batch) for name, each in columns.items()
    }
    coins = torch.rand(size, len(columns), generator=generator) < 0.5
    while not bool(coins.any(dim=1).all()):
        empty = ~coins.any(dim=1)
        again = torch.rand(int(empty.sum()), len(columns), generator=generator)
        coins[empty] = again < 0.5
    return DrawnDo(
        "do(random subset ~ train)",
        {name: do.values[name] for name, do in drawn.items()},
        dict(zip(columns, coins.unbind(dim=1), strict=True)),
    )


def of_other_bins(
    name: str,
    column: Tensor,
    range_of: Tensor,
    categories: int | None,
    generator: torch.Generator,
    bins: int = 9,
) -> DrawnDo:
    """Draw, for each row, a distinct value of its column that lies in another bin than its own.

    The bins divide the range of the training column, [-1, 1] after its normalisation; values
    outside of it belong to the first and the last bin.

    Args:
        name: The variable.
        column: Its recorded values, ``(N, 1)``, from which values are drawn, too.
        range_of: The training column, whose range is divided into equal bins.
        categories: Number of classes, each a bin of its own; None for numbers.
        generator: Random numbers.
        bins: Number of bins.

    Raises:
        ValueError: If all values are in one bin.
    """
    values = column.double().flatten().numpy()
    distinct = np.unique(values)
    edges = np.linspace(float(range_of.min()), float(range_of.max()), bins + 1)[1:-1]
    place = distinct if categories else np.searchsorted(edges, distinct)
    own = values if categories else np.searchsorted(edges, values)
    if (place == place[0]).all():
        raise ValueError(
            f"{name}: expected values in at least two of {bins} bins, but got one; choose other "
            "rows, or another protocol."
        )
    drawn = np.empty_like(values)
    for each in np.unique(own):
        others, rows = distinct[place != each], np.flatnonzero(own == each)
        picks = torch.randint(len(others), (len(rows),), generator=generator).numpy()
        drawn[rows] = others[picks]
    value = torch.from_numpy(drawn).to(column.dtype)[:, None]
    return DrawnDo(f"do({name} ~ another bin)", {name: value}, {})


def _permuted(column: Tensor, size: int, generator: torch.Generator, batch: int) -> Tensor:
    parts: list[Tensor] = []
    sizes: Sequence[int] = [min(batch, size - start) for start in range(0, size, batch)]
    for count in sizes:
        rows = torch.randperm(len(column), generator=generator)
        # A column that is shorter than a batch is repeated.
        rows = rows.repeat(-(-count // len(rows)))[:count]
        parts.append(column[rows])
    return torch.cat(parts)
