"""``fit``, ``validate``, ``test`` and ``predict``, by Lightning's command line."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, distributed

from deepscm_pl.callbacks import (
    AssociationReport,
    CounterfactualGrid,
    EvaluationReport,
    SaveOnTermination,
)
from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.cli.configurations import Configuration, split_configurations
from deepscm_pl.cli.described import (
    REPORTS,
    FromCheckpoint,
    describe_resumption,
    read_described,
    shell_command,
    tell_if_interrupted,
    trusted_packages,
)
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.cli.runs import (
    OneCheckpoint,
    Predictions,
    RunLock,
    RunLogger,
    checkpoint_folders,
    end_with_parent,
    quiet_log_threads,
    write_quantities,
)
from deepscm_pl.cli.settings import (
    check_configuration,
    check_seed,
    check_trainer,
    named_errors,
    require_trained,
)
from deepscm_pl.cli.training_help import TRAINING_COMMANDS
from deepscm_pl.cli.yaml_files import check_yaml
from deepscm_pl.configuration import restore_class, untrusted_packages
from deepscm_pl.data import CausalDataModule
from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import exit_on_termination, names_full_disk, new_file
from deepscm_pl.lazy import import_all
from deepscm_pl.runs.checkpoint_files import (
    AtomicCheckpointIO,
    RunCheckpoint,
    read_last_checkpoint,
)
from deepscm_pl.runs.folders import run_folder
from deepscm_pl.runs.output import ParameterCount, progress_for, without_noise
from deepscm_pl.runs.precision import PrecisionTrainer
from deepscm_pl.runs.reading import load_weights
from deepscm_pl.runs.safetensors_file import is_exported
from deepscm_pl.runs.training_state import restoring
from deepscm_pl.training import DeepSCM, ImageClassifier

__all__ = ["ROOMS", "TrainingCommand", "run_training_command"]

ROOMS = tuple(
    f"deepscm_pl.{room}"
    for room in ("callbacks", "data", "likelihoods", "mechanisms", "nn", "training", "transforms")
)
"""Packages whose classes a configuration may name without their package."""

_NO_FILES = ("last", "best", "hpc")


class _SaveConfiguration(SaveConfigCallback):
    """Keep ``config.yaml`` with a training run, and with nothing else.

    Args:
        arguments: As of Lightning's own.
        described: The model and the data of a checkpoint, which the parser has not seen.
        settings: As of Lightning's own.
    """

    def __init__(
        self, *arguments: Any, described: FromCheckpoint | None = None, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.described = described

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it, unless the run goes on and has one."""
        kept = trainer.log_dir  # asks every process
        goes_on = kept is not None and (Path(kept) / self.config_filename).exists()
        # The first process writes: what others see on file systems of their own does not matter.
        goes_on = trainer.strategy.broadcast(goes_on)
        if stage != "fit" or goes_on:
            return
        path = Path(kept or ".") / self.config_filename
        with names_full_disk(path, "no step was trained"):
            super().setup(trainer, pl_module, stage)
            if self.described is not None and kept is not None and trainer.is_global_zero:
                settings = yaml.safe_load(path.read_text(encoding="utf-8"))
                text = yaml.safe_dump({**settings, **self.described.settings()}, sort_keys=False)
                with new_file(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")


class TrainingCommand(LightningCLI):
    """LightningCLI for a model of this package and any data module.

    Args:
        words: Subcommand and options.
        model: The class of the model. The section ``model`` of a configuration holds the settings
            of a :class:`~deepscm_pl.training.DeepSCM` itself; of others ``class_path`` and
            ``init_args``.
        described: The model and the data that a checkpoint describes, in place of those of a
            configuration.
        trust: Packages whose classes a checkpoint may name.
        typed: The words that the user typed, if ``words`` holds others in addition.
        opened: The checkpoint that ``words`` name, which is not read again.
    """

    def __init__(
        self,
        words: list[str],
        model: type[pl.LightningModule] = DeepSCM,
        described: FromCheckpoint | None = None,
        trust: Sequence[str] = (),
        typed: list[str] | None = None,
        opened: Checkpoint | None = None,
    ) -> None:
        self.causal = model is DeepSCM
        self.words = words
        self.described = described
        self.trust = trust
        self.opened = opened
        self._typed = words if typed is None else typed
        # A second wall: what a file describes is not handed to the parser in the first place.
        set_parsing_settings(instantiate_subclass_spec_in_any=described is None)
        super().__init__(
            model,
            pl.LightningDataModule,
            subclass_mode_model=not self.causal,
            subclass_mode_data=True,
            trainer_class=PrecisionTrainer,
            save_config_callback=_SaveConfiguration,
            save_config_kwargs={"described": described},
            auto_configure_optimizers=False,
            trainer_defaults={
                "callbacks": [OneCheckpoint(), RunLock(), SaveOnTermination(), ParameterCount()],
                "enable_model_summary": False,
            },
            parser_class=FriendlyLightningParser,
            parser_kwargs={
                "prog": "deepscm",
                "description": "Train and evaluate causal models. The options of a data module: "
                "--data.help CLASS, for example deepscm_pl.data.MorphoMNISTDataModule. With "
                "--trust PACKAGE a checkpoint may name classes of that package, too.",
                words[0]: {"description": TRAINING_COMMANDS[words[0]]},
            },
            args=words,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The method of the trainer that runs, with its arguments that are not options.

        A parser for each of the others would take most of the time until the program starts.
        """
        common = {"model", "datamodule", "weights_only", "verbose"}
        not_options = {
            "fit": common | {"train_dataloaders", "val_dataloaders"},
            "validate": common | {"dataloaders"},
            "test": common | {"dataloaders"},
            "predict": common | {"dataloaders", "return_predictions"},
        }
        return {name: names for name, names in not_options.items() if name == self.words[0]}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the trainer, and the model and the data unless a checkpoint describes them."""
        if self.described is None:
            super().add_core_arguments_to_parser(parser)
            return
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        if self.described.data is None:
            parser.add_lightning_class_args(
                self._datamodule_class, "data", subclass_mode=True, required=False
            )

    def instantiate_classes(self) -> None:
        """Make everything but what a checkpoint describes; name the settings that do not fit."""
        command = self.config.subcommand
        check_trainer(self.config[command].trainer, command)
        with named_errors("model"):
            super().instantiate_classes()
        if self.described is not None:
            self.model = self.described.model
            self.datamodule = self.described.data or self.datamodule

    def instantiate_trainer(self, **settings: Any) -> pl.Trainer:
        """Make the trainer, with the reports as a checkpoint describes them."""
        parsed = self.config_init[self.subcommand]
        reports = {} if self.described is None or not self.causal else self.described.reports
        for name, kept in reports.items():
            typed = {word.partition("=")[0].removeprefix(f"--{name}.") for word in self.words}
            from_file = {setting: kept[setting] for setting in kept if setting not in typed}
            settings_typed = vars(self.config[self.subcommand][name])
            parsed[name] = REPORTS[name](**{**settings_typed, **from_file})
        if parsed.trainer.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"].append(progress_for(sys.stdout))
        with named_errors("trainer"):
            return super().instantiate_trainer(**settings)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints on the validation split, and the reports of the test."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": f"validation/{'bound' if self.causal else 'accuracy'}",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "epoch={epoch}",
                "checkpoint.auto_insert_metric_name": False,
            }
        )
        if self.causal:
            parser.add_lightning_class_args(AssociationReport, "association")
            parser.add_lightning_class_args(EvaluationReport, "evaluation")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args`` only, whatever the words of the surrounding program are."""
        self.config = parser.parse_args(args)
        check_seed(self.config[self.config.subcommand].get("seed_everything"))

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's settings come before the words, which may change them."""

    def after_instantiate_classes(self) -> None:
        """Load the predictor; stop where a checkpoint does not fit the configuration's model."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        content = None if path is None or path in _NO_FILES else self._content_of(path)
        opened = {} if content is None else {path: content}
        self.trainer.strategy.checkpoint_io = AtomicCheckpointIO(opened)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluationReport) and callback.predictor is not None:
                callback.classifier = _load_classifier(callback.predictor, self.trust)
        if content is None:
            return
        try:
            load_weights(self.model, content["state_dict"])
        except ValueError as error:
            raise ValueError(
                f"ckpt_path: {path} does not fit the model of the configuration: {error}"
            ) from None

    def _content_of(self, path: str) -> dict[str, Any]:
        """The content of a checkpoint, which is read here unless it was read before."""
        opened, self.opened = self.opened, None
        if opened is None or opened.path != Path(path):
            opened = Checkpoint.read(path)
        return opened.content

    def before_instantiate_classes(self) -> None:
        """Log a training to a new folder, and a test to the run of its checkpoint."""
        command = self.config.subcommand
        settings = self.config[command].trainer
        goes_on = self._go_on() if command == "fit" else {}
        if settings.logger is not None:
            return
        if command == "fit":
            settings.logger = Namespace(
                class_path="deepscm_pl.cli.runs.RunLogger",
                init_args=Namespace(save_dir=str(settings.default_root_dir or "."), **goes_on),
            )
            return
        run = _run_of(self.config[command].get("ckpt_path"))
        if command == "test" and run is not None:
            settings.logger = _tensorboard(save_dir=run.parent, name="", version=run.name)
            return
        settings.logger = False  # and make no folder

    def _go_on(self) -> dict[str, Any]:
        """Find what ``--ckpt_path last`` means, and how its run is logged on."""
        settings = self.config[self.config.subcommand]
        if settings.get("ckpt_path") != "last":
            return {}
        root = Path(settings.trainer.default_root_dir or ".")
        found = read_last_checkpoint(checkpoint_folders(root, settings.checkpoint.dirpath))
        settings.ckpt_path = None if found is None else str(found[0])
        if found is None:
            told = "there is no checkpoint in %s to go on from: training starts anew"
            rank_zero_info(told, for_terminal(root))
            return {}
        # What was saved after this checkpoint is written once more.
        settings.checkpoint.enable_version_counter = False
        self.opened = Checkpoint(*found)
        run = _run_of(str(found[0]))
        steps = self.opened.content["global_step"]
        return {} if run is None else {"version": run.name, "purge_step": steps}

    def fit(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        ckpt_path: str | None = None,
    ) -> None:
        """Train, test the best checkpoint, and say what to do next."""
        callback: Any = self.trainer.checkpoint_callback
        with (
            _into_its_own_folder(ckpt_path),
            self._nothing_left_of_a_refusal(),
            self._tell_if_interrupted(
                lambda: describe_resumption(getattr(callback, "dirpath", None), self._typed)
            ),
            restoring(ckpt_path),
        ):
            try:
                self.trainer.fit(
                    model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True
                )
            finally:
                self._release_locks()
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        require_trained(self.trainer)
        best = callback and (callback.best_model_path or callback.last_model_path)
        if best:
            test = shell_command("test", "--ckpt_path", best, *_trust_options(model, datamodule))
            with self._tell_if_interrupted(lambda: f"the training is done; test it with: {test}"):
                self.test(model, datamodule, best)
            self._say_what_next(model, datamodule, Path(best))
        else:
            print("No checkpoint was written, so there is nothing to test.")

    def _release_locks(self) -> None:
        """Let the run be resumed in this process, too, where Lightning tears nothing down."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunLock):
                callback.release()

    def _tell_if_interrupted(self, advice: Callable[[], str]) -> AbstractContextManager[None]:
        return tell_if_interrupted(self.trainer, "fit", advice)

    @contextmanager
    def _nothing_left_of_a_refusal(self) -> Iterator[None]:
        """Leave no folder of a training that stops before its first step."""
        try:
            yield
        except Exception:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            if isinstance(self.trainer.logger, RunLogger) and progress.total.ready == 0:
                self.trainer.logger.discard()
            raise

    def validate(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        ckpt_path: str | None = None,
    ) -> None:
        """The quantities on the validation split."""
        with _from_another_folder(), exit_on_termination(), restoring(ckpt_path):
            self.trainer.validate(
                model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True
            )

    def test(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        ckpt_path: str | None = None,
    ) -> None:
        """The association table and the evaluation on the test split."""
        # Lightning looks at SIGTERM with the next batch, which a report never asks for.
        with _from_another_folder(), exit_on_termination(), restoring(ckpt_path):
            self.trainer.test(
                model,
                datamodule=datamodule,
                ckpt_path=ckpt_path,
                weights_only=True,
                verbose=not self.causal,  # the reports of a causal model say more
            )
        if self.trainer.is_global_zero:
            _say_written(self.trainer)

    def predict(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        ckpt_path: str | None = None,
    ) -> None:
        """The quantities of every test image, as ``quantities.csv`` in the run's folder."""
        predictions = Predictions()
        self.trainer.callbacks.append(predictions)  # type: ignore[attr-defined]
        with _from_another_folder(), exit_on_termination(), restoring(ckpt_path):
            self.trainer.predict(
                model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True
            )
        path = run_folder(self.trainer) / "quantities.csv"
        rows = predictions.of_all_processes(self.trainer)
        if self.trainer.is_global_zero:
            write_quantities(path, rows)
            print(f"written: {for_terminal(path)}")

    def _say_what_next(
        self, model: pl.LightningModule, datamodule: pl.LightningDataModule, best: Path
    ) -> None:
        folder = self.trainer.log_dir  # asks every process
        if not self.trainer.is_global_zero:
            return
        trust = _trust_options(model, datamodule)
        named = for_terminal(shlex.join(["--ckpt_path", str(best), *trust]))
        print(f"\nWatch the run:       {_command('tensorboard --logdir', folder)}")
        if isinstance(model, DeepSCM):
            print(
                f"Ask the model:       deepscm counterfactual {named} "
                f"{_command('--do', self._intervention(model))} --index 0 1 2 --out answers"
            )
        print(f"Evaluate it again:   deepscm test {named}")

    def _intervention(self, model: DeepSCM) -> str:
        """The first intervention that the run has drawn, or one that fits any model."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, CounterfactualGrid):
                return callback.texts[0]
        return f"{model.scm.graph.nodes[0]}*=1.1"


def _command(words: str, last: object) -> str:
    """Words of a command line for people to copy, the last of which comes from elsewhere."""
    return f"{words} {for_terminal(shlex.quote(str(last)))}"


def run_training_command(words: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    A checkpoint brings its own model and data: without ``--config``, both are taken from it.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is truncated, foreign or hostile, or a configuration is longer
            or deeper than any should be.
    """
    for option, text in pairwise(words):
        check_yaml(text, option.lstrip("-"))
    configurations, others = split_configurations(words)
    configuration = Configuration.read(configurations)
    with configuration.naming_lines():
        # Options come after all files, because they win over them.
        merged = [others[0], *configuration.words(), *others[1:]]
        _run_training_command(merged, configuration, typed=words)


def _run_training_command(words: list[str], configuration: Configuration, typed: list[str]) -> None:
    settings = configuration.settings
    check_configuration(settings)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        end_with_parent()
    path = _option(words, "--ckpt_path")
    checkpoint = None if path is None or path in _NO_FILES else path
    if checkpoint is not None and is_exported(checkpoint) and words[0] == "fit":
        raise ValueError(
            f"ckpt_path: {checkpoint} is an exported model, without the state of the optimiser; "
            "to go on training, give the .ckpt file that it was exported from."
        )
    for room in ROOMS:
        import_all(room)
    trust, words = trusted_packages(words)
    described = opened = None
    if checkpoint is None:
        _require_checkpoint(words, path)
    elif _has_configuration(words) or _names_model(words):
        opened = Checkpoint.read(checkpoint, trust=trust)
    else:
        opened = Checkpoint.read(checkpoint, trust=trust)
        described, words = read_described(opened, words)
    model = _model_class(words, settings) if described is None else type(described.model)
    try:
        with quiet_log_threads(), without_noise():
            TrainingCommand(words, model, described, trust, typed, opened)
    finally:
        _leave_processes()


def _require_checkpoint(words: list[str], path: str | None) -> None:
    """Refuse to evaluate a model that was never trained."""
    if words[0] != "fit" and path is None and not {"-h", "--help"} & set(words[1:]):
        raise ValueError(
            "expected a trained model, but got no --ckpt_path; give the checkpoint of a training "
            "(--ckpt_path FILE.ckpt)."
        )


def _trust_options(model: pl.LightningModule, datamodule: pl.LightningDataModule) -> list[str]:
    """The options by which a command may import what a training has imported."""
    described: Any = [dict(model.hparams)]
    if isinstance(datamodule, CausalDataModule):
        described.append(datamodule.configuration())
    packages = untrusted_packages(described)
    return ["--trust", *packages] if packages else []


def _leave_processes() -> None:
    """End the connections between processes: left to the end of Python, they can abort it."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _tensorboard(**arguments: object) -> Namespace:
    """A logger to TensorBoard; Lightning's own choice would list a metric of −1 in its HParams."""
    texts = {name: str(value) for name, value in arguments.items()}
    return Namespace(
        class_path="pytorch_lightning.loggers.TensorBoardLogger",
        init_args=Namespace({**texts, "default_hp_metric": False}),
    )


def _run_of(path: str | None) -> Path | None:
    """The folder of the run that keeps a checkpoint in its folder ``checkpoints``."""
    if path is None or path in _NO_FILES:
        return None
    folder = Path(path).resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


def _has_configuration(words: list[str]) -> bool:
    return any(_option(words, name) is not None for name in ("--config", "-c"))


def _names_model(words: list[str]) -> bool:
    """Whether the user names a model of another class than that of the checkpoint."""
    return any(_option(words, name) is not None for name in ("--model", "--model.class_path"))


def _model_class(words: list[str], settings: Mapping[str, Any]) -> type[pl.LightningModule]:
    """The class of ``model`` in options or settings; DeepSCM where none is named."""
    model = settings.get("model")
    found = model.get("class_path") if isinstance(model, Mapping) else None
    for name in ("--model", "--model.class_path"):
        found = _option(words, name) or found
    if found is None:
        return DeepSCM
    # The user names it, so its module may be imported.
    return restore_class(str(found), (pl.LightningModule,), [str(found).partition(".")[0]])


def _option(words: list[str], name: str) -> str | None:
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def _load_classifier(path: str, trust: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """From images in grey levels to the classes that the classifier in a checkpoint sees."""
    model = ImageClassifier.load_from_checkpoint(path, trust=trust)
    return lambda images: model.to(images.device)(images.float()).argmax(dim=-1)


@contextmanager
def _without(warning: str) -> Iterator[None]:
    """Say nothing that begins with ``warning``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", warning)
        yield


def _from_another_folder() -> AbstractContextManager[None]:
    """Say nothing of the best checkpoint of a training that goes on elsewhere: none does."""
    return _without("The dirpath has changed")


def _into_its_own_folder(ckpt_path: str | None) -> AbstractContextManager[None]:
    """Say nothing of the checkpoints of a run where it is that run which goes on."""
    return nullcontext() if ckpt_path is None else _without("Checkpoint directory .* exists and is")


def _say_written(trainer: pl.Trainer) -> None:
    """Name each file, but count the pictures that were drawn on the way."""
    written: list[Path] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        written += getattr(callback, "written", [])
    of_epochs = [path for path in written if "-epoch=" in path.stem]
    for path in written:
        if path not in of_epochs:
            print(f"written: {for_terminal(path)}")
    if of_epochs:
        folder = for_terminal(of_epochs[0].parent)
        print(f"And {len(of_epochs)} pictures of earlier epochs in {folder}")
