"""Axioms of counterfactuals: composition, reversibility, identity and minimality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from deepscm_pl.metrics.functional import mean_absolute_error
from deepscm_pl.metrics.functional.checks import (
    require_particles,
    require_same_shape,
    spatial_dims_of,
)
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["Composition", "IdentityPreservation", "Minimality", "Reversibility"]


class _Repeated(PerImageMetric):
    """Distance between an image and the result of k repetitions of an operation."""

    def __init__(self, repetitions: Sequence[int] = (1, 10)) -> None:
        if not repetitions or min(repetitions) < 1 or len(set(repetitions)) < len(repetitions):
            raise ValueError(
                "repetitions: expected different whole numbers of at least 1, but got "
                f"{list(repetitions)}."
            )
        super().__init__([f"mean_absolute_error/{count}" for count in repetitions])
        self.repetitions = tuple(repetitions)

    def update(self, image: Tensor, after: Mapping[int, Tensor]) -> None:
        """Add a batch of images in grey levels.

        Args:
            image: ``(B, C, H, W)``, or volumes ``(B, C, D, H, W)``.
            after: The images after each number of repetitions, ``(P, *image.shape)``.

        Raises:
            ValueError: If a number of repetitions is missing, or shapes or devices do not match.
        """
        missing = [str(count) for count in self.repetitions if count not in after]
        if missing:
            raise ValueError(
                f"after: expected images after {', '.join(map(str, self.repetitions))} "
                f"repetitions, but {', '.join(missing)} is missing."
            )
        quantities = {}
        for count in self.repetitions:
            require_particles(**{f"after[{count}]": after[count], "image": image})
            dims = spatial_dims_of("image", image)
            error = mean_absolute_error(after[count], image.expand_as(after[count]), dims)
            quantities[f"mean_absolute_error/{count}"] = error.mean(dim=0)
        self._add(quantities)


class Composition(_Repeated):
    """Error of an image after k null interventions, in grey levels.

    Setting a variable to its own value changes nothing: with f the counterfactual under the null
    intervention, x = f(x) = f(f(x)) = …. The metric is the mean of d(x, f^k(x)), with d the mean
    absolute error (Monteiro et al. 2023, "Measuring axiomatic soundness of counterfactual image
    models", arXiv:2303.01274).

    Args:
        repetitions: The numbers k.

    Example:
        >>> import torch
        >>> image = torch.zeros(2, 1, 8, 8)
        >>> metric = Composition(repetitions=[1, 10])
        >>> metric.update(image, {1: image[None], 10: image[None] + 3})
        >>> metric.compute()["mean_absolute_error/10"].mean
        3.0
    """


class Reversibility(_Repeated):
    """Error of an image after k cycles of an intervention and its reversal, in grey levels.

    With f the counterfactual under an intervention and g the one that sets the variable back to its
    factual value, g(f(x)) = x. The metric is the mean of d(x, (g ∘ f)^k(x)), with d as in
    :class:`Composition`.

    Args:
        repetitions: The numbers k.
    """


class IdentityPreservation(PerImageMetric):
    """Agreement of a classifier's classes of the counterfactual and of the factual image.

    If the intervention does not affect the class, a counterfactual preserves it:

    - ``kept``: fraction of particles whose predicted class is that of the factual image;
    - ``correct``: fraction of particles whose predicted class is the true label;
    - ``correct/factual``: fraction of factual images whose predicted class is the true label, which
      is the accuracy of the classifier.

    Example:
        >>> import torch
        >>> factual, label = torch.tensor([[7], [4]]), torch.tensor([[7], [9]])
        >>> metric = IdentityPreservation()
        >>> metric.update(torch.tensor([[[7], [4]], [[1], [4]]]), factual, label)
        >>> {name: statistic.mean for name, statistic in metric.compute().items()}
        {'kept': 0.75, 'correct': 0.25, 'correct/factual': 0.5}
    """

    def __init__(self) -> None:
        super().__init__(["kept", "correct", "correct/factual"])

    def update(self, counterfactual: Tensor, factual: Tensor, label: Tensor) -> None:
        """Add a batch of class indices.

        Args:
            counterfactual: Predicted class of each counterfactual image, ``(P, B, 1)``.
            factual: Predicted class of the factual image, ``(B, 1)``.
            label: True class of the factual image, ``(B, 1)``.

        Raises:
            ValueError: If shapes or devices do not match, or values are not whole numbers.
        """
        require_particles(counterfactual=counterfactual, factual=factual)
        require_same_shape(label=label, factual=factual)
        if factual.dim() != 2 or factual.shape[1] != 1:
            raise ValueError(f"factual: expected shape (batch, 1), but got {tuple(factual.shape)}.")
        named = {"counterfactual": counterfactual, "factual": factual, "label": label}
        for name, classes in named.items():
            if classes.is_floating_point():
                raise ValueError(
                    f"{name}: expected class indices, whole numbers, but got {classes.dtype}; "
                    "take the argmax of scores."
                )
        kept, correct = counterfactual == factual, counterfactual == label
        self._add(
            {
                "kept": kept.double().mean(dim=0).squeeze(-1),
                "correct": correct.double().mean(dim=0).squeeze(-1),
                "correct/factual": (factual == label).double().squeeze(-1),
            }
        )


class Minimality(PerImageMetric):
    """Change of the counterfactual from the factual image, relative to the true change.

    With d the mean absolute error in grey levels:

    - ``counterfactual``: d(counterfactual, factual), averaged over particles;
    - ``truth``: d(truth, factual), the necessary change;
    - ``ratio``: ratio of the two means, above one if more changes than necessary. Unlike a mean of
      ratios, it is not dominated by images with a small necessary change.

    A counterfactual should stay as close to its factual as the intervention allows (minimality:
    Sanchez and Tsaftaris 2022, "Diffusion causal models for counterfactual estimation",
    arXiv:2202.10166; Melistas et al. 2024, "Benchmarking counterfactual image generation",
    arXiv:2403.20287). These papers measure it in a latent space, as they have no true
    counterfactual; here, a known world provides one.

    Example:
        >>> import torch
        >>> factual = torch.zeros(2, 1, 8, 8)
        >>> metric = Minimality()
        >>> metric.update(factual[None] + 30, factual, truth=factual + 20)
        >>> metric.compute()["ratio"].mean
        1.5
    """

    def __init__(self) -> None:
        super().__init__(["counterfactual", "truth"])

    def update(self, counterfactual: Tensor, factual: Tensor, truth: Tensor) -> None:
        """Add a batch of images in grey levels.

        Args:
            counterfactual: ``(P, B, C, H, W)``, or volumes ``(P, B, C, D, H, W)``.
            factual: ``(B, C, H, W)``, or volumes ``(B, C, D, H, W)``.
            truth: The true counterfactual images, of the shape of ``factual``.

        Raises:
            ValueError: If shapes or devices do not match.
        """
        require_particles(counterfactual=counterfactual, factual=factual)
        require_same_shape(truth=truth, factual=factual)
        dims = spatial_dims_of("factual", factual)
        change = mean_absolute_error(counterfactual, factual.expand_as(counterfactual), dims)
        needed = mean_absolute_error(truth, factual, dims)
        self._add({"counterfactual": change.mean(dim=0), "truth": needed})

    def compute(self) -> dict[str, Statistic]:
        """Return the two distances in grey levels, and their ratio."""
        return super().compute() | {"ratio": self._ratio("counterfactual", "truth")}
