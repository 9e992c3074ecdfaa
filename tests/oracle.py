"""Models with the mechanisms of the tiny world, and models with known errors."""

from __future__ import annotations

import torch
from torch import nn

from deepscm_pl.mechanisms import Evidence, Mechanism
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

GRAPH = "thickness -> intensity; thickness, intensity -> image"


class _Known(Mechanism):
    """A mechanism without parameters, in double precision."""

    def __init__(self, context):
        super().__init__(context)
        self.zero = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def evidence(self, value, parents, num_particles=1):
        log_prob = self.log_prob(value, parents)
        return Evidence(log_prob, torch.zeros_like(log_prob))

    def model(self, name, parents):
        raise NotImplementedError


class _Scalar(_Known):
    def sample_noise(self, shape):
        return {"u": torch.randn(*shape, 1, dtype=torch.float64)}


class Thickness(_Scalar):
    @property
    def domain(self):
        return Domain(lower=1.0, upper=8.0)

    def forward(self, noise, parents):
        return 1 + 5 * torch.special.ndtr(noise["u"])

    def abduct(self, value, parents, sample_shape=()):
        noise = torch.special.ndtri((value - 1) / 5)
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def log_prob(self, value, parents):
        return torch.full(value.shape[:-1], -torch.log(torch.tensor(5.0)).item()).to(value)


class Intensity(_Scalar):
    @property
    def domain(self):
        return Domain(lower=64.0, upper=255.0, open=True)

    def _location(self, parents):
        return parents["thickness"] - 3

    def forward(self, noise, parents):
        return 64 + 191 * torch.sigmoid(self._location(parents) + 0.5 * noise["u"])

    def abduct(self, value, parents, sample_shape=()):
        noise = 2 * (torch.logit((value - 64) / 191) - self._location(parents))
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def log_prob(self, value, parents):
        share = (value - 64) / 191
        noise = 2 * (torch.logit(share) - self._location(parents))
        density = torch.distributions.Normal(0.0, 1.0).log_prob(noise)
        return (density - torch.log(0.5 * 191 * share * (1 - share))).squeeze(-1)


class IntensityAlone(Intensity):
    """An intensity that depends on the mean thickness, 3.5, instead of the thickness."""

    def _location(self, parents):
        return torch.full((1,), 0.5, dtype=torch.float64)


class Picture(_Known):
    """The renderer of the world; hidden parts of the texture are drawn from their prior."""

    @property
    def domain(self):
        return Domain((1, 8, 8), 0.0, 255.0, whole=True)

    def quantise(self, value):
        return value.round()

    def sample_noise(self, shape):
        return {"u": torch.randn(*shape, 7, 8, dtype=torch.float64)}

    def forward(self, noise, parents):
        thickness, intensity = (parents[n][..., None] for n in ("thickness", "intensity"))
        columns = torch.arange(8.0, dtype=torch.float64)
        ruler = intensity * (thickness - columns).clamp(0, 1)
        texture = 1 + (255 * torch.special.ndtr(noise["u"])).floor().clamp(max=254)
        shown = torch.where(columns < thickness, texture, 0)
        batch = torch.broadcast_shapes(ruler.shape[:-2], shown.shape[:-2])
        image = torch.cat([ruler.expand(*batch, 1, 8), shown.expand(*batch, 7, 8)], dim=-2)
        return image.unsqueeze(-3)

    def abduct(self, value, parents, sample_shape=()):
        texture = value[..., 0, 1:, :].expand(*sample_shape, *value.shape[:-3], 7, 8)
        uniform = torch.rand_like(texture)
        known = torch.special.ndtri((texture - 1 + uniform) / 255)
        return {"u": torch.where(texture > 0, known, torch.randn_like(texture))}

    def log_prob(self, value, parents):
        return value.new_zeros(value.shape[:-3])


class Photograph(Picture):
    """An image that ignores its parents: the counterfactual equals the factual."""

    def sample_noise(self, shape):
        return {"u": torch.randint(0, 256, (*shape, 1, 8, 8)).double()}

    def forward(self, noise, parents):
        batch = torch.broadcast_shapes(noise["u"].shape[:-3], parents["thickness"].shape[:-1])
        return noise["u"].expand(*batch, 1, 8, 8)

    def abduct(self, value, parents, sample_shape=()):
        return {"u": value.expand(*sample_shape, *value.shape)}


class Timid(Picture):
    """An overconfident image: all particles have the same hidden texture."""

    def abduct(self, value, parents, sample_shape=()):
        drawn = super().abduct(value, parents)["u"]
        return {"u": drawn.expand(*sample_shape, *drawn.shape)}


class Drifting(Picture):
    """An image that adds a grey level to the texture in every prediction."""

    def forward(self, noise, parents):
        image = super().forward(noise, parents)
        texture = image[..., 1:, :]
        bright = torch.where(texture > 0, (texture + 1).clamp(max=255), texture)
        return torch.cat([image[..., :1, :], bright], dim=-2)


class Black(Photograph):
    """An image that never has a stroke."""

    def forward(self, noise, parents):
        return 0 * super().forward(noise, parents)


def make(picture=Picture, intensity=Intensity, graph=GRAPH) -> StructuralCausalModel:
    """The oracle, or a model in which some mechanisms are replaced."""
    mechanisms = {"thickness": Thickness, "intensity": intensity, "image": picture}
    return StructuralCausalModel(graph, mechanisms).eval()


__all__ = [
    "GRAPH",
    "Black",
    "Drifting",
    "Intensity",
    "IntensityAlone",
    "Photograph",
    "Picture",
    "Thickness",
    "Timid",
    "make",
]
