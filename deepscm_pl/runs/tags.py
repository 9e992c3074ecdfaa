"""Names of the curves of a training in TensorBoard, in groups of what belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from deepscm_pl.escaping import for_tag

__all__ = ["GroupedLogger", "TagGroups"]

_STAGES = ("train", "validation", "test")
_OBJECTIVES = ("bound", "objective", "accuracy", "cross_entropy", "squared_error")
"""Quantities of a whole model."""
_BOUNDS = ("bound", "loss")
"""Quantities that each variable has, of which a curve for each is drawn."""
_IMAGE_QUANTITIES = {
    "train": ("kl", "log_prob"),
    "validation": ("kl", "log_prob", "bits_per_dimension"),
    "test": (),
}
_TEST_QUANTITIES = ("bits_per_dimension", "mean_absolute_error")
_MOST_VARIABLES, _MOST_IMAGES = 6, 1
"""Largest numbers of variables, and of images, that have curves."""


class TagGroups:
    """Renames logged quantities, and omits those that others contain.

    Names such as ``validation/bound`` remain those of monitors, of tables and of other loggers. In
    TensorBoard they become ``1 objective/bound validation``; the groups are ``1 objective``,
    ``2 variables``, ``3 image``, ``4 training`` and ``5 test``. Images come first among the
    variables, of which at most six have curves. Names without ``train``, ``validation`` or ``test``
    stay as they are.

    Example:
        >>> TagGroups()({"train/bound": -3.0, "train/kl_weight": 0.5, "train/log_prob/age": -1.0})
        {'1 objective/bound train': -3.0, '4 training/kl_weight': 0.5}
    """

    def __init__(self) -> None:
        self._variables: list[str] = []
        self._images: list[str] = []

    def __call__(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the quantities of one step that are drawn, by their names in TensorBoard."""
        names = [name.split("/", 2) for name in metrics]
        images = [parts[2] for parts in names if len(parts) == 3 and parts[1] == "kl"]
        bounded = [parts[2] for parts in names if len(parts) == 3 and parts[1] in _BOUNDS]
        self._images += [each for each in images if each not in self._images]
        self._images = self._images[:_MOST_IMAGES]
        self._variables += [
            each for each in dict.fromkeys([*images, *bounded]) if each not in self._variables
        ]
        self._variables = self._variables[:_MOST_VARIABLES]
        found = {self._tag(name): value for name, value in metrics.items()}
        return {tag: value for tag, value in found.items() if tag is not None}

    def _tag(self, name: str) -> str | None:
        """The name in TensorBoard; None for a quantity that is not drawn."""
        if name == "epoch":
            return "4 training/epoch"
        stage, _, rest = name.partition("/")
        if stage not in _STAGES or not rest:
            return name
        quantity, _, variable = rest.partition("/")
        if not variable:
            return self._of_model(stage, quantity)
        return self._of_variable(stage, quantity, variable)

    @staticmethod
    def _of_model(stage: str, quantity: str) -> str:
        if stage == "test":
            return f"5 test/{for_tag(quantity)}"
        if quantity in _OBJECTIVES:
            return f"1 objective/{quantity} {stage}"
        suffix = "" if stage == "train" else f" {stage}"
        return f"4 training/{for_tag(quantity)}{suffix}"

    def _of_variable(self, stage: str, quantity: str, variable: str) -> str | None:
        label = for_tag(variable)
        if stage == "test":
            is_drawn = quantity in _TEST_QUANTITIES and variable in (self._images or [variable])
            return f"5 test/{quantity} {label}" if is_drawn else None
        if quantity in _BOUNDS:
            shown = label if quantity == "bound" else f"{label} {quantity}"
            return f"2 variables/{shown} {stage}" if variable in self._variables else None
        if quantity in ("kl", "log_prob", "bits_per_dimension"):
            # The log-probability of any other variable is its bound.
            is_drawn = variable in self._images and quantity in _IMAGE_QUANTITIES[stage]
            return f"3 image/{quantity} {label} {stage}" if is_drawn else None
        return f"3 image/{for_tag(quantity)} {label} {stage}"


class GroupedLogger(TensorBoardLogger):
    """TensorBoard with at most forty curves in groups, see :class:`TagGroups`.

    Args:
        save_dir: The folder of runs.
        name: The name of the experiment, or an empty text.
        version: The name of the run.
        purge_step: The first step that is logged now.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = "",
        version: str | None = None,
        purge_step: int | None = None,
    ) -> None:
        settings: dict[str, Any] = {} if purge_step is None else {"purge_step": purge_step}
        super().__init__(save_dir, name, version, default_hp_metric=False, **settings)
        self._groups = TagGroups()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the numbers that are drawn."""
        super().log_metrics(self._groups(metrics), step)
