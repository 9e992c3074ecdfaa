"""A callback for the association table of the test split."""

from __future__ import annotations

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
    ModelOnData,
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
    """Print the association table after a test, and write it as JSON and Markdown.

    Every row is a mean over the images of the test split with its standard error: log p of each
    variable (or a lower bound), their sum, the divergence of the latents, bits per dimension, and
    the error of reconstructions. The files are ``association.json`` and ``association.md`` in the
    folder of the run. Checkpoints of a training keep the settings.

    Args:
        num_importance_samples: K, draws of the latents for the importance-weighted bound; 0 omits
            it.
        importance_rows: Number of test images for this bound, which takes K times as long as the
            other quantities; None for 500, or all if there are fewer.
        reference: Numbers to compare with, by the name of the quantity in ``association.json``.
        reference_name: Heading of their column.
        seed: Seed of the draws.

    Attributes:
        importance_enabled: Whether to compute the importance-weighted bound in this run.
        prints_table: Whether to print the table in this run.
        rows: The lines of the table, after the test.
        written: The files written so far.

    Raises:
        ValueError: If a number is out of range.
    """

    kept_settings: ClassVar = (
        "num_importance_samples",
        "importance_rows",
        "reference",
        "reference_name",
        "seed",
    )
    """Settings to save in checkpoints."""

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
        self.prints_table = True
        self.rows: list[AssociationRow] = []
        self.written: list[Path] = []
        self._images = 0
        self._texts: dict[Path, str] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the settings fit the model and the data."""
        if stage not in ("fit", "test"):
            return
        scm: Any = pl_module.scm
        association_rows(scm.graph, scm.image_variables, {}, self.reference)
        self._model_on_data(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the settings."""
        checkpoint.setdefault("reports", {})["association"] = {
            name: getattr(self, name) for name in self.kept_settings
        }

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to count images."""
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
        """Sum the counts of all processes."""
        counted = torch.tensor(self._images, device=pl_module.device)
        self._images = int(trainer.strategy.reduce(counted, reduce_op="sum"))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table, except after a trial run of a few batches."""
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
            {name: model.scm[name].likelihood_note for name in model.scm.image_variables},
        )
        table = association_table(self.rows, self.reference_name)
        if self.prints_table:
            print_table(table)
        quantities = {name: value.as_plain_data() for name, value in found.items()}
        for name, value in self.reference.items():
            if name in quantities:
                quantities[name]["reference"] = value
        document = {
            "graph": str(model.scm.graph),
            **describe_origin(trainer),
            "quantities": quantities,
        }
        self._texts = {
            folder / "association.json": as_json(document),
            folder / "association.md": table.as_markdown(),
        }

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the table, unless the evaluation after the test was interrupted."""
        for path, text in self._texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            self.written.append(path)
        self._texts = {}

    def _importance_weighted(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, Estimate]:
        model = self._model_on_data(trainer, pl_module)
        if model is None:
            return {}
        with trainer.precision_plugin.forward_context():
            return evaluate_importance_weighted_bound(
                model,
                self.num_importance_samples,
                seed=self.seed,
                progress=trainer.progress_bar_callback is not None,
            ).quantities

    def _model_on_data(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> ModelOnData | None:
        """Return the rows for the importance-weighted bound, or None if it is omitted."""
        data: Any = getattr(trainer, "datamodule", None)
        scm: Any = pl_module.scm
        is_enabled = self.importance_enabled and self.num_importance_samples
        is_known = all(scm[name].has_likelihood for name in scm.graph.nodes)
        if not (is_enabled and is_known and scm.image_variables) or _is_quick(trainer):
            return None
        if not isinstance(data, CausalDataModule):
            return None
        available = len(data.variables("test")["index"])
        rows = self.importance_rows
        chosen = min(_IMPORTANCE_ROWS, available) if rows is None else rows
        return ModelOnData.of(scm, data, chosen, least=1, is_complete=False)


def _is_quick(trainer: pl.Trainer) -> bool:
    quick: Any = getattr(trainer, "fast_dev_run", False)
    return bool(quick)
