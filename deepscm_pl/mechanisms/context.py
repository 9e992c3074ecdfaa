"""What a mechanism sees of its parents."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from deepscm_pl.types import Domain, Variables

__all__ = ["Context"]


class Context(nn.Module):
    """Parents as one vector: continuous ones standardised, categorical ones one-hot.

    The means and standard deviations are those of the training split. They are buffers, so they
    move, save and load with the model.

    Args:
        domains: For each parent, where it lives. The order is that of the features.

    Attributes:
        features: Length of the vector.

    Example:
        >>> context = Context({"age": Domain(), "sex": Domain(categories=2)})
        >>> context({"age": torch.tensor([[40.0]]), "sex": torch.tensor([[1.0]])})
        tensor([[40.,  0.,  1.]])
    """

    def __init__(self, domains: Mapping[str, Domain] | None = None) -> None:
        super().__init__()
        self.domains = dict(domains or {})
        self.features = sum(domain.features for domain in self.domains.values())
        for name, domain in self.domains.items():
            if domain.categories is None:
                self.register_buffer(f"{name}_mean", torch.zeros(domain.features))
                self.register_buffer(f"{name}_deviation", torch.ones(domain.features))

    @property
    def parents(self) -> tuple[str, ...]:
        """The names of the parents."""
        return tuple(self.domains)

    def positions(self, names: Collection[str]) -> list[int]:
        """Where the features of some parents lie in the vector.

        Raises:
            ValueError: If a name is none of a parent.

        Example:
            >>> Context({"sex": Domain(categories=2), "age": Domain()}).positions(["age"])
            [2]
        """
        unknown = [name for name in names if name not in self.domains]
        if unknown:
            raise ValueError(
                f"expected names of parents, {', '.join(self.domains) or 'of which there are none'}"
                f", but got {', '.join(map(repr, unknown))}."
            )
        owners = [name for name, domain in self.domains.items() for _ in range(domain.features)]
        return [position for position, owner in enumerate(owners) if owner in names]

    def fit(self, variables: Variables) -> None:
        """Take means and standard deviations of the parents over the training split, ``(N, *)``."""
        for name, domain in self.domains.items():
            if domain.categories is None:
                flat = variables[name].double().flatten(1)
                deviation = flat.std(dim=0, correction=0)
                varies = flat.amax(dim=0) > flat.amin(dim=0)
                self.get_buffer(f"{name}_mean").copy_(flat.mean(dim=0))
                # A feature that never varies says nothing; dividing by 1 leaves it at zero.
                deviation = torch.where(varies, deviation, torch.ones_like(deviation))
                self.get_buffer(f"{name}_deviation").copy_(deviation)

    def forward(self, variables: Variables) -> Tensor:
        """The context ``(*batch, features)``, batch dimensions broadcast over all parents.

        Without parents, a tensor of shape ``(0,)``, which broadcasts with everything.

        Raises:
            ValueError: If a parent is missing.
        """
        missing = [name for name in self.domains if name not in variables]
        if missing:
            raise ValueError(
                f"parents: expected {', '.join(self.domains)}, but {', '.join(missing)} is missing."
            )
        encoded = [self._encode(name, variables[name]) for name in self.domains]
        if not encoded:
            return torch.zeros(0)
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in encoded))
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in encoded], dim=-1)

    def _encode(self, name: str, value: Tensor) -> Tensor:
        domain = self.domains[name]
        if domain.categories is not None:
            # Not functional.one_hot, which looks at the values, and so waits for the device.
            classes = torch.arange(domain.categories, device=value.device)
            return (value.long() == classes).to(torch.get_default_dtype())
        mean, deviation = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_deviation")
        flat = value.flatten(value.dim() - len(domain.shape))
        return (flat - mean) / deviation
