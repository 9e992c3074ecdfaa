"""A callback for the evaluation at the end of a test."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from deepscm_pl.callbacks.association import AssociationReport
from deepscm_pl.checkpoints import load
from deepscm_pl.checkpoints.calibrated import store_calibration
from deepscm_pl.checks import whole_number
from deepscm_pl.configuration import untrusted_packages
from deepscm_pl.data import CausalDataModule
from deepscm_pl.digest import weights_digest
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.escaping import for_terminal
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, check_settings, evaluate
from deepscm_pl.evaluation.calibration import follow_up_pairs
from deepscm_pl.evaluation.cause_predictor import CausePredictor, fingerprint
from deepscm_pl.evaluation.counterfactuals import Classifier
from deepscm_pl.evaluation.mechanism_fit import MechanismFit, evaluate_mechanisms
from deepscm_pl.figures import thumbnail_pixels
from deepscm_pl.reports import Report
from deepscm_pl.reports.numbers import numbers_markdown, report_markdown
from deepscm_pl.reports.settings import chosen_settings
from deepscm_pl.reports.tables import print_table
from deepscm_pl.reports.verdict import print_verdict, verdict_markdown
from deepscm_pl.runs.folders import describe_origin, run_folder, trained_steps
from deepscm_pl.runs.termination import others_wait
from deepscm_pl.suggestions import Asked

__all__ = ["EvaluationReport"]

_WRITTEN = (".json", ".md", ".html")
"""Endings of the files whose names are printed; pictures are in the same folder."""
_CALIBRATION_ROWS = 200
_FEWEST_CALIBRATION_ROWS = 20


class EvaluationReport(pl.Callback):
    """Evaluate the answers of the model on all three rungs of Pearl's ladder after a test.

    The model runs in the precision of the trainer. The callback writes ``evaluation.json``,
    ``evaluation.md``, the page ``evaluation.html`` and pictures into the folder ``evaluation`` of
    the run, prints the verdict, and logs to TensorBoard, its HParams included. An interrupted
    evaluation leaves the previous folder unchanged. Checkpoints of a training contain the settings.

    The quantities depend on the data: see :func:`deepscm_pl.evaluation.evaluate`.

    Args:
        tables: Whether to print all tables before the verdict, those of
            :class:`~deepscm_pl.callbacks.AssociationReport` included. This applies to one run.
        enabled: Whether to evaluate, and to compute the importance-weighted bound of
            :class:`~deepscm_pl.callbacks.AssociationReport`. This applies to one run: the
            setting is not saved in checkpoints.
        rows: How many of the first test images to evaluate on; None for all.
        predictor: Checkpoint of a classifier of images, which measures the identity; None omits
            it. The program loads it; in Python, set ``classifier`` instead.
        members: Checkpoints of further models of the same data, which answer counterfactual
            questions together with the tested one, with equal weights.
        cache_dir: Folder for rendered true images; None for ``~/.cache/deepscm_pl``.
        **settings: See :class:`~deepscm_pl.evaluation.EvaluationSettings`.

    Attributes:
        classifier: Function from images ``(B, C, H, W)`` in grey levels to class indices ``(B,)``.
        report: The result, after the test.
        prints_verdict: Whether to print the verdict; the program prints it as its last lines.
        written: The files written so far.
    """

    keyword_arguments_of: ClassVar = EvaluationSettings
    kept_settings: ClassVar = (
        "rows",
        *(each.name for each in fields(EvaluationSettings) if each.name != "workers"),
    )
    """Settings to save in checkpoints: no paths, and none that depend on the machine."""

    def __init__(
        self,
        enabled: bool = True,
        tables: bool = False,
        rows: int | None = None,
        predictor: str | None = None,
        members: list[str] | None = None,
        cache_dir: str | None = None,
        **settings: Any,
    ) -> None:
        self.enabled = enabled
        self.tables = tables
        self.rows = rows if rows is None else whole_number("rows", rows, least=1)
        self.settings = EvaluationSettings(**settings)
        self.predictor = predictor
        self.members = tuple(members or ())
        self.cache_dir = Path(cache_dir or "~/.cache/deepscm_pl").expanduser()
        self.classifier: Classifier | None = None
        self.report: Report | None = None
        self.prints_verdict = True
        self.written: list[Path] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the settings fit the model and the data.

        Raises:
            ValueError: If model and data have different variables, the test split is too small, an
                intervention does not fit, or the predictor is not loaded.
        """
        if stage not in ("fit", "test"):
            return
        model = self._model_on_data(trainer, pl_module)
        for report in _callbacks(trainer):
            if isinstance(report, AssociationReport):
                report.importance_enabled = self.enabled
                # Without an evaluation, nothing else is printed.
                report.prints_table = self.tables or model is None
        if model is None:
            return
        check_settings(model, self.settings)
        validation = self._validation(trainer, model) if self.settings.follow_up else None
        if validation is not None and validation.originals is None:
            follow_up_pairs(validation, self.settings.follow_up or ())
        if self.predictor is not None and self.classifier is None:
            raise ValueError(
                f"predictor: {self.predictor} is not loaded; set the attribute classifier of the "
                "callback to a function from images to class indices."
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the settings."""
        found = {**vars(self), **asdict(self.settings)}
        checkpoint.setdefault("reports", {})["evaluation"] = {
            name: found[name] for name in self.kept_settings
        }

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate, print, write and log."""
        folder = run_folder(trainer) / "evaluation"
        model = self._model_on_data(trainer, pl_module)
        if model is None:
            return
        model = self._with_members(trainer, model)
        with others_wait():
            if trainer.is_global_zero:
                self._report(trainer, pl_module, model, folder)

    def _report(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, model: ModelOnData, folder: Path
    ) -> None:
        predictor = self._cause_predictor(
            trainer, model, folder.parent / "cause_predictor.safetensors"
        )
        report = self.report = self._evaluate(trainer, model, predictor)
        self.written += [path for path in report.write(folder) if path.suffix in _WRITTEN]
        if not self.members:
            self._store_calibration(trainer, report)
        if self.tables:
            _print_tables(report)
        print(f"Evaluated: {report.rows}.")
        if self.prints_verdict:
            print_verdict(report.judgement)
        step = trained_steps(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _log(report, logger, _settings(pl_module), step)

    def _store_calibration(self, trainer: pl.Trainer, report: Report) -> None:
        calibration, path = report.evaluation.calibration, trainer.ckpt_path
        if calibration is None or path is None:
            return
        try:
            store_calibration(path, calibration)
        except OSError as error:
            print(
                f"calibration: {for_terminal(path)} cannot be written ({error.strerror}); pass "
                "evaluation/calibration.json with your questions instead."
            )

    def _cause_predictor(
        self, trainer: pl.Trainer, model: ModelOnData, path: Path
    ) -> CausePredictor | None:
        """Read the predictor of this run, or train and write it; None if it is not wanted."""
        scm, wanted = model.scm, self.settings.predict_causes
        wanted = not model.measured if wanted is None else wanted
        images, data = scm.image_variables, getattr(trainer, "datamodule", None)
        if not wanted or len(images) != 1 or not isinstance(data, CausalDataModule):
            return None
        if not scm.graph.ancestors(*images) & set(scm.scalar_variables):
            return None
        steps, seed = self.settings.predictor_steps, self.settings.seed
        key = fingerprint(scm, data, steps, seed)
        found = CausePredictor.load(path, key, scm.fitted.device)
        if found is None:
            progress = trainer.progress_bar_callback is not None
            found = CausePredictor.trained_on(scm, data, steps, seed, progress)
            found.save(path, key)
            self.written.append(path)
        return found

    def _evaluate(
        self, trainer: pl.Trainer, model: ModelOnData, predictor: CausePredictor | None
    ) -> Report:
        with trainer.precision_plugin.forward_context():
            found = evaluate(
                model,
                self.settings,
                self.classifier,
                progress=trainer.progress_bar_callback is not None,
                cache_dir=self.cache_dir,
                validation=self._validation(trainer, model),
                cause_predictor=predictor,
            )
        found = replace(found, mechanisms=self._mechanisms(trainer, model))
        tables = [c for c in _callbacks(trainer) if isinstance(c, AssociationReport)]
        origin = {
            "graph": str(model.scm.graph),
            "weights": weights_digest(model.scm),
            **describe_origin(trainer),
        }
        if self.members:
            origin["members"] = list(self.members)
        if posterior := getattr(trainer.lightning_module, "posterior_fit", ""):
            origin["posterior"] = posterior
        origin["ask"] = self._question(trainer, model)
        rows = tables[0].rows if tables else []
        name = tables[0].reference_name if tables else "reference"
        return Report(model, found, rows, origin, name)

    @staticmethod
    def _question(trainer: pl.Trainer, model: ModelOnData) -> str | None:
        """A command that asks the tested model; None without a checkpoint."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = trainer.lightning_module
        if not trainer.ckpt_path:
            return None
        trust = untrusted_packages([dict(module.hparams), data.configuration()])
        rows = {name: model.variables[name][:3] for name in model.scm.graph}
        return Asked(model.scm, [trainer.ckpt_path], trust, rows, new_folder=str).counterfactual()

    def _mechanisms(self, trainer: pl.Trainer, model: ModelOnData) -> list[MechanismFit]:
        """Compare each mechanism with simpler forms on the whole validation split."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        validation = ModelOnData.of(model.scm, data, least=1, split="validation")
        history = getattr(trainer.lightning_module, "validation_history", None)
        progress = trainer.progress_bar_callback is not None
        trained = data.variables("train")
        images = {name: trained[name] for name in model.scm.image_variables}
        return evaluate_mechanisms(validation, history, progress, images)

    def _validation(self, trainer: pl.Trainer, model: ModelOnData) -> ModelOnData | None:
        """Return rows for the calibration of intervals, if there are enough."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        available = len(data.variables("validation")["index"])
        rows = _CALIBRATION_ROWS if (asked := self.settings.calibration_rows) is None else asked
        if min(rows, available) < _FEWEST_CALIBRATION_ROWS:
            return None
        found = ModelOnData.of(model.scm, data, min(rows, available), split="validation")
        return replace(found, ensemble=model.ensemble)

    def _with_members(self, trainer: pl.Trainer, model: ModelOnData) -> ModelOnData:
        """Let the members answer together with the model, if there are any.

        Raises:
            ValueError: If they are models of another graph, of other variables or data.
        """
        if not self.members:
            return model
        if trainer.ckpt_path is None:
            raise ValueError(
                "members: expected a tested checkpoint, but got none; test with --ckpt_path FILE."
            )
        together = load([trainer.ckpt_path, *self.members], model.scm.fitted.device)
        others = together.ensemble.members[1:]
        for other in others:
            other.describe(model.scm.variables)
            other.to(model.scm.fitted.device)
        return replace(model, ensemble=Ensemble([model.scm, *others]))

    def _model_on_data(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> ModelOnData | None:
        data: Any = getattr(trainer, "datamodule", None)
        quick: Any = getattr(trainer, "fast_dev_run", False)
        if not self.enabled or quick or not isinstance(data, CausalDataModule):
            return None
        scm: Any = pl_module.scm
        return ModelOnData.of(scm, data, self.rows)


def _print_tables(report: Report) -> None:
    for name, table in report.tables.items():
        if name != "association":
            print_table(table)
    for each in report.evaluation.mechanisms:
        print(f"{for_terminal(each.sentence)}.")
    for reason in report.left_out:
        print(f"Left out: {for_terminal(reason)}")


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    found: Any = trainer.callbacks  # type: ignore[attr-defined]
    return list(found)


def _settings(module: pl.LightningModule) -> dict[str, Any]:
    """The settings of a model that are not defaults."""
    kind = type(module)
    return chosen_settings(f"{kind.__module__}.{kind.__qualname__}", module.hparams)


def _log(report: Report, logger: TensorBoardLogger, settings: dict[str, Any], step: int) -> None:
    # TensorBoard sorts texts by their names.
    logger.experiment.add_text("evaluation/1 verdict", verdict_markdown(report.judgement), step)
    logger.experiment.add_text("evaluation/2 numbers", numbers_markdown(report), step)
    logger.experiment.add_text("evaluation/3 report", report_markdown(report), step)
    for name, figure in report.pictures.items():
        pixels = thumbnail_pixels(figure)
        logger.experiment.add_image(f"evaluation/{name}", pixels, step, dataformats="HWC")
    logger.log_hyperparams(settings, report.main_figures(), step)
    logger.save()
