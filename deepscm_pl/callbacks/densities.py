"""Callbacks that draw densities of attributes and histograms of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepscm_pl.callbacks.figure_callback import (
    FigureCallback,
    Figures,
)
from deepscm_pl.figures import (
    DensityPanel,
    JointPanel,
    draw_joint_densities,
    draw_marginal_densities,
    draw_noise,
    kernel_density,
)
from deepscm_pl.interventions import check_do, format_do, parse_do, read_variables
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variables

__all__ = ["AttributeDensities", "NoiseHistograms"]

_GRID = 100


class AttributeDensities(FigureCallback):
    """Densities of the continuous scalar variables, one at a time and in pairs.

    The figure ``marginal`` has a panel for each variable: the data, samples of the model, and the
    counterfactuals of the data under each intervention. The figure ``joint`` has a panel for each
    pair: the data as dots and contours of the model's density, which is exact for two variables
    without other causes (as in Pawlowski et al. 2020, figure 3), and otherwise a kernel estimate
    from samples. Images are not computed.

    Args:
        interventions: A curve each, as text: ``thickness=3``, ``thickness+=1, intensity=100``.
        variables: Which variables to draw; by default, all continuous scalars.
        pairs: Which pairs to draw, each the variable of the horizontal axis and that of the
            vertical one; by default, each cause with its effect among ``variables``.
        units: Deprecated; the data give variables their units.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_observations: Number of observations, and of samples of the model.
        seed: Seed of the samples.

    Raises:
        ValueError: If an intervention cannot be parsed, a pair is not of two variables, or a number
            is less than 1; when the run starts, if a variable is not a continuous scalar of the
            model, or an intervention does not fit it.

    Example:
        >>> densities = AttributeDensities(["thickness+=1"])
        >>> densities.num_observations
        2000
    """

    name = "density"

    def __init__(
        self,
        interventions: list[str] | None = None,
        variables: list[str] | None = None,
        pairs: list[list[str]] | None = None,
        units: dict[str, str] | None = None,
        every_n_epochs: int = 10,
        num_observations: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, num_observations, seed, units)
        self.texts = list(interventions or ())
        for text in self.texts:
            check_do(text)
        self.variables = None if variables is None else tuple(variables)
        self.pairs = None if pairs is None else [tuple(pair) for pair in pairs]
        for pair in self.pairs or []:
            if len(set(pair)) != 2 or len(pair) != 2:
                raise ValueError(f"pairs: expected two different variables, but got {list(pair)}.")

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check that variables are continuous scalars, and that interventions fit."""
        continuous = [name for name in scm.scalar_variables if scm[name].domain.categories is None]
        pairs = [name for pair in self.pairs or () for name in pair]
        for argument, names in (("variables", self.variables or ()), ("pairs", pairs)):
            for name in names:
                if name not in continuous:
                    kind = "no continuous scalar" if name in scm.graph else "unknown"
                    expected = ", ".join(continuous) or "none, because the model has none"
                    raise ValueError(
                        f"{argument}: the variable {name!r} is {kind}; expected some of {expected}."
                    )
        for text in self.texts:
            scm.check_do(parse_do(text, scm.variables))
        return None if self.chosen(scm) else "the model has no continuous scalar variable."

    def needed(self, scm: StructuralCausalModel) -> Sequence[str]:
        """Return the chosen variables with their causes; images only if they are causes."""
        return self._part(scm).graph.nodes if self.chosen(scm) else ()

    def chosen(self, scm: StructuralCausalModel) -> tuple[str, ...]:
        """Return the variables to draw."""
        if self.variables is not None:
            return self.variables
        return tuple(name for name in scm.scalar_variables if scm[name].domain.categories is None)

    def chosen_pairs(self, scm: StructuralCausalModel) -> list[tuple[str, ...]]:
        """Return the pairs to draw."""
        if self.pairs is not None:
            return self.pairs
        chosen = self.chosen(scm)
        return [edge for edge in scm.graph.edges if edge[0] in chosen and edge[1] in chosen]

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw the figures ``marginal`` and ``joint``."""
        if not self.chosen(scm):
            return
        part = self._part(scm)
        factual = {name: observations[name] for name in part.graph.nodes}
        samples = part.sample(self.num_observations)
        yield "marginal", draw_marginal_densities(self.marginal_panels(part, factual, samples))
        labels = {name: each.label for name, each in self.described(scm).items()}
        panels = []
        for pair in self.chosen_pairs(scm):
            x, y = (_evenly(torch.cat([factual[name], samples[name]])) for name in pair)
            observed = torch.cat([factual[name].flatten(1) for name in pair], dim=-1)
            density = joint_density(part, pair, (x, y), samples)
            panels.append(JointPanel(labels[pair[0]], labels[pair[1]], observed, x, y, density))
        if panels:
            yield "joint", draw_joint_densities(panels)

    def marginal_panels(
        self, scm: StructuralCausalModel, factual: Variables, samples: Variables
    ) -> list[DensityPanel]:
        """Return a panel for each variable, with a curve for the model and each intervention."""
        curves, described = {"model": samples}, self.described(scm)
        for text in self.texts:
            do = parse_do(text, described)
            curves[format_do(do, described)] = scm.counterfactual(factual, do)
        return [
            DensityPanel(
                described[name].label,
                factual[name].flatten(),
                {title: values[name].flatten() for title, values in curves.items()},
                scm[name].domain.lower,
                scm[name].domain.upper,
            )
            for name in self.chosen(scm)
        ]

    def _part(self, scm: StructuralCausalModel) -> StructuralCausalModel:
        pairs = [name for pair in self.chosen_pairs(scm) for name in pair]
        dos = [parse_do(text, scm.variables) for text in self.texts]
        changed = [name for do in dos for name in read_variables(do)]
        return scm.restrict(dict.fromkeys([*self.chosen(scm), *pairs, *changed]))


def joint_density(
    scm: StructuralCausalModel, pair: Sequence[str], axes: Sequence[Tensor], samples: Variables
) -> Tensor:
    """The model's density of two scalars on a grid, ``(Y, X)``.

    Exact if the two have no other causes, otherwise a kernel estimate from ``samples``.

    Args:
        scm: The model.
        pair: The variable along the horizontal axis, then that along the vertical one.
        axes: Their values, ``(X,)`` and ``(Y,)``, inside of their domains.
        samples: Values of both, ``(N, 1)`` each.
    """
    x, y = torch.meshgrid(axes[0], axes[1], indexing="xy")
    pair_model = scm.restrict(pair)
    if set(pair_model.graph.nodes) == set(pair):
        return pair_model.log_prob({pair[0]: x[..., None], pair[1]: y[..., None]}).exp()
    points = torch.stack([x.flatten(), y.flatten()]).cpu().double().numpy()
    values = torch.cat([samples[name].flatten(1) for name in pair], dim=-1).T
    return torch.from_numpy(kernel_density(values, points)).view(x.shape)


def _evenly(values: Tensor) -> Tensor:
    low, high = values.min().item(), values.max().item()
    return torch.linspace(low, high, _GRID, dtype=values.dtype, device=values.device)


_BATCH_SIZE = 250


class NoiseHistograms(FigureCallback):
    """The noise inferred from observations, beside its prior N(0, 1).

    The figure has a histogram for u of each scalar and for u of all pixels of an image, and mean
    and standard deviation of each dimension of z over the observations. Categories are omitted.
    Deviations from a standard normal distribution, and correlation with the parents, show that a
    mechanism does not fit its data.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_observations: Number of observations to infer the noise of.
        seed: Seed of the draws of z.
    """

    name = "noise"

    def __init__(
        self, every_n_epochs: int = 10, num_observations: int = 1000, seed: int = 0
    ) -> None:
        super().__init__(every_n_epochs, num_observations, seed)

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check that a variable is no category."""
        if all(scm[name].domain.categories is not None for name in scm.graph.nodes):
            return "all variables of the model are categories."
        return None

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw the figure ``inferred`` of all noise."""
        histograms: dict[str, Tensor] = {}
        latents: dict[str, Tensor] = {}
        for name, parts in infer_noise(scm, observations).items():
            if scm[name].domain.categories is not None:
                continue
            for key, value in parts.items():
                if key == "z":
                    latents[f"z of {name}"] = value.flatten(1)
                else:
                    pooled = "" if value[0].numel() == 1 else ", all pixels"
                    histograms[f"{key} of {name}{pooled}"] = value
        if histograms or latents:
            yield "inferred", draw_noise(histograms, latents)


def infer_noise(
    scm: StructuralCausalModel, observations: Variables
) -> Mapping[str, Mapping[str, Tensor]]:
    """Infer one draw of the noise of each variable, ``(N, ...)``, in batches to save memory."""
    rows = range(0, len(observations[scm.graph.nodes[0]]), _BATCH_SIZE)
    parts = [
        scm.abduct({name: observations[name][k : k + _BATCH_SIZE] for name in scm.graph.nodes})
        for k in rows
    ]
    return {
        name: {key: torch.cat([part[name][key][0] for part in parts]) for key in parts[0][name]}
        for name in scm.graph.nodes
    }
