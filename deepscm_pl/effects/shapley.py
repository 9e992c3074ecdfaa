"""Shapley values: a total divided among players."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from deepscm_pl.checks import whole_number

__all__ = ["EXACT_PLAYERS", "permutations_of", "shapley_values"]

EXACT_PLAYERS = 10
"""Players for which all coalitions are computed, at most."""


def shapley_values(
    worth: Callable[[frozenset[int]], Tensor],
    players: int,
    permutations: int = 200,
    groups: int = 10,
    seed: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Divide worth(all) − worth(none) among players by their mean marginal contributions.

    With at most 10 players all coalitions are computed, which is exact. With more, permutations of
    the players are drawn, each together with its reverse; their sum is still exactly the total.

    Args:
        worth: From a coalition to numbers ``(N,)``.
        players: Number of players, k.
        permutations: Number of drawn permutations, for more than 10 players.
        groups: Number of groups of permutations, whose difference shows the error.
        seed: Seed of the permutations.

    Returns:
        The values ``(k, N)`` and, of drawn permutations, those of each group, ``(groups, k, N)``.

    Example:
        >>> def glove(coalition):  # 0 has a left glove, 1 and 2 have right ones
        ...     return torch.tensor([1.0 if 0 in coalition and len(coalition) > 1 else 0.0])
        >>> values, _ = shapley_values(glove, 3)
        >>> [round(value, 4) for value in values.flatten().tolist()]
        [0.6667, 0.1667, 0.1667]
    """
    whole_number("players", players, least=1)
    if players <= EXACT_PLAYERS:
        return _exact(worth, players), None
    found = []
    for orders in np.array_split(permutations_of(players, permutations, seed), groups):
        marginal = [_along(worth, order.tolist()) for order in orders]
        found.append(torch.stack(marginal).mean(dim=0))
    by_group = torch.stack(found)
    return by_group.mean(dim=0), by_group


def _exact(worth: Callable[[frozenset[int]], Tensor], players: int) -> Tensor:
    nobody = worth(frozenset()).double().cpu()
    values = (-nobody / players).expand(players, *nobody.shape).clone()
    for size in range(1, players + 1):
        share = 1 / (players * math.comb(players - 1, size - 1))
        loss = 1 / (players * math.comb(players - 1, size)) if size < players else 0.0
        for coalition in combinations(range(players), size):
            found = worth(frozenset(coalition)).double()
            inside = torch.zeros(players, dtype=torch.bool)
            inside[list(coalition)] = True
            scale = torch.where(inside, share, -loss).double()
            values += scale.view(-1, *[1] * found.dim()) * found.cpu()
    return values


def permutations_of(players: int, count: int, seed: int) -> np.ndarray:
    """Permutations of players, each followed by its reverse, ``(count, players)``."""
    whole_number("permutations", count, least=20)
    generator = np.random.default_rng(seed)
    half = [generator.permutation(players) for _ in range(-(-count // 2))]
    return np.array([order for each in half for order in (each, each[::-1])])


def _along(worth: Callable[[frozenset[int]], Tensor], order: list[int]) -> Tensor:
    """The marginal contribution of each player along a permutation, ``(k, N)``."""
    before = worth(frozenset()).double()
    values = torch.zeros(len(order), *before.shape, dtype=torch.float64)
    for place, player in enumerate(order, 1):
        after = worth(frozenset(order[:place])).double()
        values[player] = (after - before).cpu()
        before = after
    return values
