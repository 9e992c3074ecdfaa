"""The part of a Lightning module that saves, loads and protects its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.configuration import describe
from deepscm_pl.metrics import PerImageStatistics, Statistic
from deepscm_pl.runs.clock import TrainingClock
from deepscm_pl.runs.finite import FiniteCheck
from deepscm_pl.runs.repeatable import RepeatableRun, absent

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["StoredModule"]


class StoredModule(pl.LightningModule):
    """A Lightning module whose checkpoints describe the model and its data.

    Attributes:
        loss_terms: Terms of the latest loss by name, ``(batch,)`` each, for error messages.
    """

    required_settings: ClassVar[tuple[str, ...]] = ()
    """Names of the hyper-parameters that every checkpoint of the class has."""

    def __init__(self) -> None:
        super().__init__()
        self.loss_terms: dict[str, Tensor] = {}
        self._run_callbacks = [RepeatableRun(), FiniteCheck(), TrainingClock()]

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        trust: Sequence[str] = (),
        **changes: Any,
    ) -> Self:
        """Load the trained model in a checkpoint, in evaluation mode.

        No code in the file is executed. The arguments of the model are taken from the file.

        Args:
            checkpoint_path: A ``.ckpt`` file, or an exported ``.safetensors`` file.
            map_location: Device of the tensors, as in :func:`torch.load`.
            trust: Packages whose classes the file may name, in addition to ``deepscm_pl``,
                ``torch.nn``, ``torch.optim`` and those that you have imported.
            changes: Arguments of the model that replace those in the file.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file is truncated, foreign or hostile, does not fit the model that it
                describes, or holds a causal model that was never fitted to data.
        """
        return Checkpoint.read(checkpoint_path, map_location, trust).build(cls, changes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the description of the data module, and the limit of gradients, with the model."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "configuration"):
            checkpoint["data"] = describe(datamodule.configuration())
        limit = getattr(self.trainer, "gradient_clip_val", None)
        if limit is not None:
            checkpoint["gradient_clip_val"] = limit

    def configure_callbacks(self) -> list[pl.Callback]:
        """Add reproducible random numbers, the check for losses that are not finite, a clock."""
        return absent(self.trainer, self._run_callbacks)

    def log_means(self, stage: str, statistics: PerImageStatistics) -> dict[str, Statistic]:
        """Log the mean of each quantity over all images as ``<stage>/<name>``, and reset it."""
        computed = statistics.compute()
        statistics.reset()
        means = {f"{stage}/{name}": statistic.mean for name, statistic in computed.items()}
        # The means are equal on all processes; ``sync_dist`` only prevents a warning.
        self.log_dict(means, sync_dist=True)
        return computed
