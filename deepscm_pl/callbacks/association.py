"""The association table: how well a model explains the test split."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch

from deepscm_pl.checks import real_number, seed_number, shown, whole_number
from deepscm_pl.data import CausalDataModule
from deepscm_pl.escaping import as_json
from deepscm_pl.evaluation import (
    AssociationRow,
    Estimate,
    Subject,
    association_rows,
    evaluate_importance_weighted_bound,
)
from deepscm_pl.files import new_file
from deepscm_pl.reports.tables import association_table, print_table
from deepscm_pl.runs.folders import describe_origin, run_folder
from deepscm_pl.runs.termination import others_wait
from deepscm_pl.variables import Variables

__all__ = ["AssociationReport"]

_IMPORTANCE_ROWS = 500
_MOST_SAMPLES = 1_000_000


class AssociationReport(pl.Callback):
    """After a test, print the association table and write it as JSON and Markdown.

    Every row is a mean over the images of the test split with its standard error: log p of each
    variable (a lower bound where it is one), their sum, the divergence of the latents, bits per
    dimension, and the error of reconstructions. The files ``association.json`` and
    ``association.md`` lie in the run's folder. The settings travel with the checkpoints of a
    training.

    Args:
        num_importance_samples: K, draws of the latents for the importance-weighted bound; 0 for no
            such bound.
        importance_rows: On how many of the first test images it is computed, for it takes K times
            as long as the others; None for 500, or all if there are fewer.
        reference: Numbers to compare with, by the name of the quantity in ``association.json``.
        reference_name: Where they are from, the heading of their column.
        seed: Of the draws.

    Attributes:
        importance_enabled: Whether the importance-weighted bound is computed in this run.
        rows: The lines of the table, once the test has ended.
        written: The files written so far.

    Raises:
        ValueError: If a number is less than it can be.
    """

    kept_settings: ClassVar = (
        "num_importance_samples",
        "importance_rows",
        "reference",
        "reference_name",
        "seed",
    )
    """Settings that travel with a checkpoint."""

    def __init__(
        self,
        num_importance_samples: int = 100,
        importance_rows: int | None = None,
        reference: dict[str, float] | None = None,
        reference_name: str = "reference",
        seed: int = 0,
    ) -> None:
        self.num_importance_samples = whole_number(
            "num_importance_samples", num_importance_samples, least=0, most=_MOST_SAMPLES
        )
        if importance_rows is not None:
            whole_number("importance_rows", importance_rows, least=1)
        self.importance_rows = importance_rows
        self.reference = {
            name: real_number(f"reference.{name}", value)
            for name, value in (reference or {}).items()
        }
        if not isinstance(reference_name, str):
            raise ValueError(f"reference_name: expected a text, but got {shown(reference_name)}.")
        self.reference_name = reference_name
        self.seed = seed_number("seed", seed)
        self.importance_enabled = True
        self.rows: list[AssociationRow] = []
        self.written: list[Path] = []
        self._images = 0
        self._texts: dict[Path, str] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop before the work where the settings do not fit the model or the data."""
        if stage not in ("fit", "test"):
            return
        scm: Any = pl_module.scm
        association_rows(scm.graph, scm.image_variables, {}, self.reference)
        self._subject(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the settings with the model."""
        checkpoint.setdefault("reports", {})["association"] = {
            name: getattr(self, name) for name in self.kept_settings
        }

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count images."""
        self._images = 0

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Variables,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count images."""
        self._images += len(next(iter(batch.values())))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count those of all processes."""
        counted = torch.tensor(self._images, device=pl_module.device)
        self._images = int(trainer.strategy.reduce(counted, reduce_op="sum"))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table, unless it is of a few batches only."""
        self._texts = {}
        if _is_quick(trainer):
            return
        folder = run_folder(trainer)
        with others_wait():
            if trainer.is_global_zero:
                self._report(trainer, pl_module, folder)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, folder: Path) -> None:
        model: Any = pl_module
        found = {
            name: Estimate(value.mean, value.standard_error, self._images)
            for name, value in model.association.items()
        }
        found.update(self._importance_weighted(trainer, pl_module))
        self.rows = association_rows(
            model.scm.graph,
            model.scm.image_variables,
            found,
            self.reference,
            self.num_importance_samples,
            model.num_evaluation_particles,
        )
        table = association_table(self.rows, self.reference_name)
        print_table(table)
        document = {
            "graph": str(model.scm.graph),
            **describe_origin(trainer),
            "quantities": _plain_quantities(found, self.reference),
        }
        self._texts = {
            folder / "association.json": as_json(document),
            folder / "association.md": table.as_markdown(),
        }

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the table, once the whole test has ended.

        A test that is interrupted later, in its evaluation, leaves the former table beside the
        former evaluation.
        """
        for path, text in self._texts.items():
            self._write(path, text)
        self._texts = {}

    def _importance_weighted(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, Estimate]:
        subject = self._subject(trainer, pl_module)
        if subject is None:
            return {}
        with trainer.precision_plugin.forward_context():
            return evaluate_importance_weighted_bound(
                subject,
                self.num_importance_samples,
                seed=self.seed,
                progress=trainer.progress_bar_callback is not None and sys.stderr.isatty(),
            ).quantities

    def _subject(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Subject | None:
        """The rows of the importance-weighted bound, if it is asked for and there is one."""
        data: Any = getattr(trainer, "datamodule", None)
        scm: Any = pl_module.scm
        is_asked = self.importance_enabled and self.num_importance_samples
        if not is_asked or not scm.image_variables or _is_quick(trainer):
            return None
        if not isinstance(data, CausalDataModule):
            return None
        available = len(data.variables("test")["index"])
        rows = self.importance_rows
        chosen = min(_IMPORTANCE_ROWS, available) if rows is None else rows
        return Subject.of(scm, data, chosen, least=1)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self.written.append(path)


def _is_quick(trainer: pl.Trainer) -> bool:
    """Whether this is a trial run of a few batches, which must not replace results."""
    quick: Any = getattr(trainer, "fast_dev_run", False)
    return bool(quick)


def _plain_quantities(
    found: Mapping[str, Estimate], reference: Mapping[str, float]
) -> dict[str, dict[str, float | int | None]]:
    return {
        name: {
            **value.as_plain_data(),
            **({"reference": reference[name]} if name in reference else {}),
        }
        for name, value in found.items()
    }
