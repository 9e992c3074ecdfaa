"""Is a counterfactual still an image of the same thing?"""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_particles, require_same_shape
from deepscm_pl.metrics.statistics import PerImageMetric

__all__ = ["IdentityPreservation"]


class IdentityPreservation(PerImageMetric):
    """How often a classifier still sees the same class in the counterfactual.

    Where the class is no effect of what is intervened on, a counterfactual keeps it:

    - ``kept``: the share of particles whose predicted class is that of the factual image;
    - ``correct``: the share of particles whose predicted class is the true label;
    - ``correct/factual``: the same of the factual image, which is the classifier's own accuracy.

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
            ValueError: If shapes or devices do not match, or something else than class indices
                came.
        """
        require_particles(counterfactual=counterfactual, factual=factual)
        require_same_shape(label=label, factual=factual)
        if factual.dim() != 2 or factual.shape[1] != 1:
            raise ValueError(f"factual: expected shape (batch, 1), but got {tuple(factual.shape)}.")
        for name, classes in (
            ("counterfactual", counterfactual),
            ("factual", factual),
            ("label", label),
        ):
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
