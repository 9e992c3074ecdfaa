"""``fit``, ``validate``, ``test`` and ``predict``, by Lightning's command line."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from torch import Tensor

from deepscm_pl.callbacks import AssociationReport, CounterfactualGrid
from deepscm_pl.callbacks.run_folder import run_folder
from deepscm_pl.cli.parser import FriendlyLightningParser
from deepscm_pl.configuration import restore
from deepscm_pl.files import new_file
from deepscm_pl.training import DeepSCM, read_checkpoint

__all__ = ["TrainingCommand", "run_training_command"]

_NO_FILES = ("last", "best", "hpc")


class _SaveConfiguration(SaveConfigCallback):
    """Keep ``config.yaml`` with a training run, and with nothing else."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class TrainingCommand(LightningCLI):
    """LightningCLI for :class:`~deepscm_pl.training.DeepSCM` and any data module.

    Args:
        words: Subcommand and options.
    """

    def __init__(self, words: list[str]) -> None:
        super().__init__(
            DeepSCM,
            pl.LightningDataModule,
            subclass_mode_data=True,
            save_config_callback=_SaveConfiguration,
            auto_configure_optimizers=False,
            parser_class=FriendlyLightningParser,
            parser_kwargs={
                "prog": "deepscm",
                "description": "Train and evaluate causal models. The options of a data module: "
                "--data.help CLASS, for example deepscm_pl.data.MorphoMNISTDataModule.",
            },
            args=words,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The methods of the trainer, with the arguments that are not for the command line."""
        common = {"model", "datamodule", "weights_only", "verbose"}
        return {
            "fit": common | {"train_dataloaders", "val_dataloaders"},
            "validate": common | {"dataloaders"},
            "test": common | {"dataloaders"},
            "predict": common | {"dataloaders", "return_predictions"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints on the validation split, and the report of the test."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "validation/bound",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "epoch={epoch}",
                "checkpoint.auto_insert_metric_name": False,
            }
        )
        parser.add_lightning_class_args(AssociationReport, "association")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args`` only, whatever the words of the surrounding program are."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's settings come before the words, which may change them."""

    def after_instantiate_classes(self) -> None:
        """Stop where a checkpoint does not fit the model of a configuration."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is None or path in _NO_FILES:
            return
        try:
            self.model.load_state_dict(read_checkpoint(path)["state_dict"])
        except RuntimeError as error:
            raise ValueError(
                f"ckpt_path: {path} does not fit the model of the configuration: {error}"
            ) from None

    def before_instantiate_classes(self) -> None:
        """Make no log folder where nothing is trained: results go to the checkpoint's run."""
        settings = self.config[self.config.subcommand].trainer
        if self.config.subcommand != "fit" and settings.logger is None:
            settings.logger = False

    def fit(
        self, model: DeepSCM, datamodule: pl.LightningDataModule, ckpt_path: str | None = None
    ) -> None:
        """Train, test the best checkpoint, and say what to do next."""
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        callback: Any = self.trainer.checkpoint_callback
        best = callback and (callback.best_model_path or callback.last_model_path)
        if best:
            self.test(model, datamodule, best)
            self._say_what_next(model, Path(best))
        else:
            print("No checkpoint was written, so there is nothing to test.")

    def validate(
        self, model: DeepSCM, datamodule: pl.LightningDataModule, ckpt_path: str | None = None
    ) -> None:
        """The quantities on the validation split."""
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)

    def test(
        self, model: DeepSCM, datamodule: pl.LightningDataModule, ckpt_path: str | None = None
    ) -> None:
        """The association table on the test split."""
        self.trainer.test(
            model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True, verbose=False
        )
        if self.trainer.is_global_zero:
            _say_written(self.trainer)

    def predict(
        self, model: DeepSCM, datamodule: pl.LightningDataModule, ckpt_path: str | None = None
    ) -> None:
        """The quantities of every test image, as ``quantities.csv`` in the run's folder."""
        batches = self.trainer.predict(
            model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True
        )
        path = run_folder(self.trainer) / "quantities.csv"
        if self.trainer.is_global_zero:
            _write_quantities(path, batches or [])  # type: ignore[arg-type]
            print(f"written: {path}")

    def _say_what_next(self, model: DeepSCM, best: Path) -> None:
        folder = self.trainer.log_dir  # asks every process
        if not self.trainer.is_global_zero:
            return
        do = f"{model.scm.graph.nodes[0]}*=1.1"
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, CounterfactualGrid):
                do = callback.texts[0]
        print(
            f"\nWatch the run:       tensorboard --logdir {folder}\n"
            f"Ask the model:       deepscm counterfactual --ckpt_path {best} "
            f"--do {shlex.quote(do)} --index 0 1 2 --out answers\n"
            f"Evaluate it again:   deepscm test --ckpt_path {best}"
        )


def run_training_command(words: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    A checkpoint brings its own model and data: without ``--config``, both are taken from it.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is truncated, foreign or hostile.
    """
    if len(words) == 1:
        raise ValueError(
            "give --config FILE.yaml, such as experiments/digits/full.yaml, or "
            "--ckpt_path FILE.ckpt; "
            f"deepscm {words[0]} --help lists all options."
        )
    path = _option(words, "--ckpt_path")
    if path is not None and path not in _NO_FILES:
        DeepSCM.load_from_checkpoint(path)  # whatever is wrong with it is said here
        if _option(words, "--config") is None and _option(words, "-c") is None:
            words = [words[0], "--config", json.dumps(_settings_of(path)), *words[1:]]
    TrainingCommand(words)


def _settings_of(path: str) -> dict[str, Any]:
    """The model and the data that a checkpoint describes, as a configuration."""
    checkpoint = read_checkpoint(path)
    found = {"model": checkpoint["hyper_parameters"]}
    if "data" in checkpoint:
        restore(checkpoint["data"], allowed=(pl.LightningDataModule,))
        found["data"] = checkpoint["data"]
    return found


def _option(words: list[str], name: str) -> str | None:
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def _say_written(trainer: pl.Trainer) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for path in getattr(callback, "written", []):
            print(f"written: {path}")


def _write_quantities(path: Path, batches: list[dict[str, Tensor]]) -> None:
    names = list(batches[0]) if batches else []
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", *names])
        row = 0
        for batch in batches:
            for values in zip(*(batch[name].tolist() for name in names), strict=True):
                writer.writerow([row, *values])
                row += 1
