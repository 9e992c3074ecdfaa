"""What counterfactuals have to satisfy whatever the world: composition and reversibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from deepscm_pl.metrics.functional import mean_absolute_error
from deepscm_pl.metrics.functional.checks import require_particles, spatial_dims_of
from deepscm_pl.metrics.statistics import PerImageMetric

__all__ = ["Composition", "Reversibility"]


class _Repeated(PerImageMetric):
    """Distance between an image and what came back after k repetitions of something."""

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
            after: For each number of repetitions the images after as many, ``(P, *image.shape)``.

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
            dims = spatial_dims_of(image=image)
            error = mean_absolute_error(after[count], image.expand_as(after[count]), dims)
            quantities[f"mean_absolute_error/{count}"] = error.mean(dim=0)
        self._add(quantities)


class Composition(_Repeated):
    """Error of an image after k null interventions, in grey levels.

    Setting a variable to the value that it has anyway changes nothing: with f the counterfactual
    under the null intervention, x = f(x) = f(f(x)) = …, and the metric is the mean of
    d(x, f^k(x)), d the mean absolute error (Monteiro et al. 2023, "Measuring axiomatic soundness
    of counterfactual image models", arXiv:2303.01274).

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
    factual value, g(f(x)) = x; the metric is the mean of d(x, (g ∘ f)^k(x)), d the mean absolute
    error (Monteiro et al. 2023, "Measuring axiomatic soundness of counterfactual image models",
    arXiv:2303.01274).

    Args:
        repetitions: The numbers k.

    Example:
        >>> import torch
        >>> image = torch.zeros(2, 1, 8, 8)
        >>> metric = Reversibility(repetitions=[1])
        >>> metric.update(image, {1: image[None] + 2})
        >>> metric.compute()["mean_absolute_error/1"].mean
        2.0
    """
