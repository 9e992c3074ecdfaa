"""The evaluation at the end of a test: are the answers of a model right?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from deepscm_pl.callbacks.association import AssociationReport
from deepscm_pl.checks import whole_number
from deepscm_pl.data import CausalDataModule
from deepscm_pl.escaping import for_terminal
from deepscm_pl.evaluation import EvaluationSettings, Subject, check_settings, evaluate
from deepscm_pl.evaluation.counterfactuals import Classifier
from deepscm_pl.reports import Report
from deepscm_pl.reports.tables import print_table
from deepscm_pl.runs.folders import describe_origin, run_folder, trained_steps
from deepscm_pl.runs.termination import others_wait

__all__ = ["EvaluationReport"]


class EvaluationReport(pl.Callback):
    """After a test, evaluate the answers of the model on all three rungs of Pearl's ladder.

    The model runs in the precision of the trainer, as in the test itself.

    Writes ``evaluation.json`` and ``evaluation.md`` with pictures into the folder ``evaluation`` of
    the run, prints the tables, and logs to TensorBoard, its HParams included. The folder is
    replaced as a whole when everything is there: an evaluation that is interrupted leaves the
    previous one intact, and starts from the beginning when it is run again. The settings are
    saved in the checkpoints of a training.

    What can be evaluated depends on the data: see :func:`deepscm_pl.evaluation.evaluate`.

    Args:
        enabled: Whether to do anything, the importance-weighted bound of
            :class:`~deepscm_pl.callbacks.AssociationReport` included. This applies to one run: the
            setting is not saved in checkpoints.
        rows: How many of the first test images to evaluate on; None for all.
        predictor: Checkpoint of a classifier that judges the identity of images; None for no such
            judgement. The program loads it; in Python, set ``classifier`` instead.
        cache_dir: Where rendered truth is kept; None for ``~/.cache/deepscm_pl``.
        **settings: See :class:`~deepscm_pl.evaluation.EvaluationSettings`.

    Attributes:
        settings: How the model is evaluated.
        classifier: From images ``(B, C, H, W)`` in grey levels to class indices ``(B,)``.
        report: What was found, once the test has ended.
        written: The files written so far.
    """

    keyword_arguments_of: ClassVar = EvaluationSettings
    kept_settings: ClassVar = (
        "rows",
        "interventions",
        "num_particles",
        "detail_rows",
        "batch_size",
        "density_values",
        "density_size",
        "seed",
    )
    """Settings that travel with a checkpoint: no paths, and nothing that depends on the machine."""

    def __init__(
        self,
        enabled: bool = True,
        rows: int | None = None,
        predictor: str | None = None,
        cache_dir: str | None = None,
        **settings: Any,
    ) -> None:
        self.enabled = enabled
        self.rows = rows if rows is None else whole_number("rows", rows, least=1)
        self.settings = EvaluationSettings(**settings)
        self.predictor = predictor
        self.cache_dir = Path(cache_dir or "~/.cache/deepscm_pl").expanduser()
        self.classifier: Classifier | None = None
        self.report: Report | None = None
        self.written: list[Path] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop before the work where the settings do not fit the model or the data.

        Raises:
            ValueError: If model and data have other variables, the test split is too small, an
                intervention cannot be asked, or the predictor is not loaded.
        """
        if stage not in ("fit", "test"):
            return
        for report in _callbacks(trainer):
            if isinstance(report, AssociationReport):
                report.importance_enabled = self.enabled
        subject = self._subject(trainer, pl_module)
        if subject is None:
            return
        check_settings(subject, self.settings)
        if self.predictor is not None and self.classifier is None:
            raise ValueError(
                f"predictor: {self.predictor} is not loaded; set the attribute classifier of the "
                "callback to a function from images to class indices."
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the settings with the model."""
        found = {**vars(self), **vars(self.settings)}
        checkpoint.setdefault("reports", {})["evaluation"] = {
            name: found[name] for name in self.kept_settings
        }

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate, print, write and log."""
        folder = run_folder(trainer) / "evaluation"
        subject = self._subject(trainer, pl_module)
        if subject is None:
            return
        with others_wait():
            if trainer.is_global_zero:
                self._report(trainer, pl_module, subject, folder)

    def _report(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, subject: Subject, folder: Path
    ) -> None:
        self.report = self._evaluate(trainer, subject)
        self.written += [
            path for path in self.report.write(folder) if path.suffix in (".json", ".md")
        ]
        _print(self.report)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _log(
                    self.report, logger, dict(pl_module.hparams), trained_steps(trainer, pl_module)
                )

    def _evaluate(self, trainer: pl.Trainer, subject: Subject) -> Report:
        with trainer.precision_plugin.forward_context():
            found = evaluate(
                subject,
                self.settings,
                self.classifier,
                progress=trainer.progress_bar_callback is not None and sys.stderr.isatty(),
                cache_dir=self.cache_dir,
            )
        tables = [c for c in _callbacks(trainer) if isinstance(c, AssociationReport)]
        origin = {"graph": str(subject.scm.graph), **describe_origin(trainer)}
        if posterior := getattr(trainer.lightning_module, "posterior_fit", ""):
            origin["posterior"] = posterior
        rows = tables[0].rows if tables else []
        name = tables[0].reference_name if tables else "reference"
        return Report(subject, found, rows, origin, name)

    def _subject(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Subject | None:
        data: Any = getattr(trainer, "datamodule", None)
        quick: Any = getattr(trainer, "fast_dev_run", False)
        if not self.enabled or quick or not isinstance(data, CausalDataModule):
            return None
        scm: Any = pl_module.scm
        return Subject.of(scm, data, self.rows)


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    found: Any = trainer.callbacks  # type: ignore[attr-defined]
    return list(found)


def _print(report: Report) -> None:
    print(f"Evaluated: {report.rows}.")
    for name, table in report.tables.items():
        if name != "association":
            print_table(table)
    for reason in report.left_out:
        print(f"Left out. {for_terminal(reason)}")


def _log(report: Report, logger: TensorBoardLogger, settings: dict[str, Any], step: int) -> None:
    for name, value in report.scalars().items():
        logger.experiment.add_scalar(name, value, step)
    for name, figure in report.pictures.items():
        logger.experiment.add_figure(f"evaluation/{name}", figure, step, close=False)
    logger.log_hyperparams(settings, report.main_figures(), step)
    logger.save()
