"""Parents whose only effect on an image is how bright it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.mechanisms.context import Context
from deepscm_pl.types import Variables

__all__ = ["Brightness"]


class Brightness(nn.Module):
    """a(pa) = w·pa + b, the share of the range of grey levels that an image fills.

    Affine in the standardised parents, and fitted by least squares to the brightest pixel of every
    training image; both numbers are learned further.

    Args:
        context: The parents that act on the brightness.
        levels: L, the number of grey levels.

    Example:
        >>> from deepscm_pl.types import Domain
        >>> brightness = Brightness(Context({"intensity": Domain()}), levels=256)
        >>> intensity = torch.tensor([[64.0], [128.0]])
        >>> brightness.fit(torch.full((2, 1, 8, 8), 64.0) * torch.tensor([1, 2]).view(2, 1, 1, 1),
        ...                {"intensity": intensity})
        >>> brightness({"intensity": torch.tensor([[127.5]])})
        tensor([[0.5000]], grad_fn=<ClampBackward1>)
    """

    def __init__(self, context: Context, levels: int) -> None:
        super().__init__()
        self.context = context
        self.levels = levels
        self.affine = nn.Linear(context.features, 1)
        nn.init.zeros_(self.affine.weight)
        nn.init.constant_(self.affine.bias, 0.5)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and the affine map to the brightest pixel of every image.

        Args:
            value: Images of the training split, ``(N, C, H, W)``, in grey levels.
            parents: Their parents, ``(N, *event)``.
        """
        self.context.fit(parents)
        features = self.context(parents).double()
        design = torch.cat([features, torch.ones_like(features[:, :1])], dim=-1)
        # The middle of the brightest level's cell.
        target = (value.flatten(1).amax(dim=1).double() + 0.5) / self.levels
        solution = torch.linalg.lstsq(design, target[:, None], driver="gelsd").solution
        with torch.no_grad():
            self.affine.weight.copy_(solution[:-1].T)
            self.affine.bias.copy_(solution[-1])

    def forward(self, parents: Variables) -> Tensor:
        """a(pa), ``(*batch, 1)``, at least one grey level."""
        # In eight bits of a bfloat16, white would be a level off.
        context = self.context(parents)
        with torch.autocast(context.device.type, enabled=False):
            brightness: Tensor = self.affine(context.to(self.affine.weight))
        return brightness.clamp(min=1 / self.levels)


def split_context(context: Context, names: Sequence[str]) -> tuple[Context, Context]:
    """The contexts of the parents ``names`` and of all others.

    Raises:
        ValueError: If a name is no parent, or a categorical one.
    """
    for name in names:
        if name not in context.domains:
            raise ValueError(
                f"brightness: expected names of parents, {', '.join(context.domains) or 'none'}, "
                f"but got {name!r}."
            )
        if context.domains[name].categories is not None:
            raise ValueError(f"brightness: expected continuous parents, but {name} is categorical.")
    chosen = {name: domain for name, domain in context.domains.items() if name in names}
    others = {name: domain for name, domain in context.domains.items() if name not in names}
    return Context(chosen), Context(others)
