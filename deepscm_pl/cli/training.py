"""``fit``, ``validate``, ``test`` and ``predict``, by Lightning's command line."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities import rank_zero_info
from torch import distributed

from deepscm_pl.callbacks import (
    CounterfactualGrid,
    EvaluationReport,
    GraphPicture,
    SaveOnTermination,
)
from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.described import (
    REPORTS,
    FromCheckpoint,
    describe_resumption,
    read_described,
    report_interruption,
    report_with,
    shell_command,
)
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.cli.members import Member, take_members, train_members
from deepscm_pl.cli.runs import (
    OneCheckpoint,
    Predictions,
    RunLock,
    RunLogger,
    checkpoint_folders,
    end_with_parent,
    quiet_log_threads,
)
from deepscm_pl.cli.settings import (
    check_configuration,
    check_seed,
    check_trainer,
    named_errors,
    named_trainer_error,
    require_trained,
)
from deepscm_pl.cli.training_help import DRY_RUN, TABLES, TRAINING_COMMANDS
from deepscm_pl.cli.words import (
    option_value,
    split_configurations,
    take_options,
    trusted_packages,
)
from deepscm_pl.cli.yaml_files import check_yaml
from deepscm_pl.configuration import restore_class, untrusted_packages
from deepscm_pl.data import CausalDataModule
from deepscm_pl.escaping import for_shell, for_terminal
from deepscm_pl.files import exit_on_termination, names_full_disk, new_file
from deepscm_pl.lazy import import_all
from deepscm_pl.reports.verdict import print_verdict
from deepscm_pl.runs.checkpoint_files import (
    AtomicCheckpointIO,
    RunCheckpoint,
    read_last_checkpoint,
)
from deepscm_pl.runs.folders import run_folder
from deepscm_pl.runs.noise import without_noise
from deepscm_pl.runs.output import ParameterCount, progress_for
from deepscm_pl.runs.precision import PrecisionTrainer
from deepscm_pl.runs.reading import load_weights
from deepscm_pl.runs.safetensors_file import is_exported
from deepscm_pl.runs.training_state import restoring
from deepscm_pl.shipped.names import model_names
from deepscm_pl.suggestions import Asked
from deepscm_pl.training import DeepSCM, ImageClassifier
from deepscm_pl.training.dry_run import measure_training

__all__ = ["PACKAGES", "TrainingCommand", "run_training_command"]

PACKAGES = tuple(
    f"deepscm_pl.{name}"
    for name in ("callbacks", "data", "likelihoods", "mechanisms", "nn", "training", "transforms")
)
"""Packages whose classes a configuration may name without the name of the package."""

_NOT_PATHS = ("last", "best", "hpc")
_MODEL_OPTIONS = ("--model", "--model.class_path")


def run_training_command(words: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Without ``--config``, model and data are those of the checkpoint.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is truncated, malicious or of another program, or a
            configuration is too long or too deeply nested.
    """
    for option, text in pairwise(words):
        check_yaml(text, option.lstrip("-"))
    is_dry = words[0] == "fit" and DRY_RUN in words
    members, others = take_members([word for word in words if not is_dry or word != DRY_RUN])
    files, others = split_configurations(_with_one_checkpoint(others))
    configuration = Configuration.read(files)
    with configuration.naming_lines():
        # Options come after all files, because they override them.
        merged = [others[0], *configuration.words(), *others[1:]]
        _run_merged(merged, configuration.settings, words, None if is_dry else members, is_dry)


def _with_one_checkpoint(words: list[str]) -> list[str]:
    """Replace ``--ckpt_path A B C`` of a test, whose models answer together, by one and others."""
    if words[0] != "test":
        return words
    taken, others = take_options(words, "--ckpt_path".__eq__, several=True)
    paths = [path for _, path in taken]
    if len(paths) < 2:
        return words
    return [*others, "--ckpt_path", paths[0], f"--evaluation.members={json.dumps(paths[1:])}"]


def _run_merged(
    words: list[str],
    settings: Mapping[str, Any],
    typed: list[str],
    members: int | None,
    is_dry: bool = False,
) -> None:
    check_configuration(settings)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        end_with_parent()
    path = _trained_model(words)
    for package in PACKAGES:
        import_all(package)
    trust, words = trusted_packages(words)
    described = opened = None
    if path is not None:
        opened = Checkpoint.read(path, trust=trust)
        if option_value(words, "--config", "-c", *_MODEL_OPTIONS) is None:
            described, words = read_described(opened, words)
    model = _model_class(words, settings) if described is None else type(described.model)
    if TABLES in words:
        words = [word for word in words if word != TABLES]
        words += ["--evaluation.tables=true"] if model is DeepSCM else []
    try:
        with quiet_log_threads(), without_noise():
            if members is None:
                TrainingCommand(words, model, described, trust, typed, opened, is_dry=is_dry)
            else:
                train_members(
                    members,
                    lambda member, data: TrainingCommand(
                        words, model, trust=trust, typed=typed, member=member, data=data
                    ),
                )
    finally:
        # Open connections between processes can abort Python when it exits.
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def _trained_model(words: list[str]) -> str | None:
    """The file of the option ``--ckpt_path`` of a command; None for none, and for ``last``.

    Raises:
        ValueError: If the command needs a file, or cannot use this one.
    """
    path = option_value(words, "--ckpt_path")
    is_fit = words[0] == "fit"
    if path is None and not is_fit and not {"-h", "--help"} & set(words):
        raise ValueError(
            "expected a trained model, but got no --ckpt_path; give the checkpoint of a training "
            "(--ckpt_path FILE.ckpt)."
        )
    path = None if path in _NOT_PATHS else path
    if path is not None and is_fit and is_exported(path):
        raise ValueError(
            f"ckpt_path: {path} is an exported model, without the state of the optimiser; to "
            "resume the training, give the .ckpt file that it was exported from."
        )
    if not is_fit and path in model_names() and not Path(path).is_file():
        raise ValueError(
            f"ckpt_path: expected a file, because {words[0]} writes beside the model, but got the "
            f"name {path}; copy {model_names()[path]} to a folder of your own, and name the copy."
        )
    return path


def _model_class(words: list[str], settings: Mapping[str, Any]) -> type[pl.LightningModule]:
    """The class of ``model`` in options or settings, :class:`DeepSCM` by default."""
    model = settings.get("model")
    name = option_value(words, *_MODEL_OPTIONS)
    if name is None and isinstance(model, Mapping):
        name = model.get("class_path")
    if name is None:
        return DeepSCM
    # The user names it, so its module may be imported.
    return restore_class(str(name), (pl.LightningModule,), [str(name).partition(".")[0]])


class _SaveConfiguration(SaveConfigCallback):
    """Save ``config.yaml`` with a training run, including what a checkpoint describes."""

    def __init__(
        self, *arguments: Any, described: FromCheckpoint | None = None, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.described = described

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file, unless the run is resumed and has one."""
        folder = trainer.log_dir  # a collective operation
        exists = folder is not None and (Path(folder) / self.config_filename).exists()
        # The first process determines this, because others may have different file systems.
        exists = trainer.strategy.broadcast(exists)
        if stage != "fit" or exists:
            return
        path = Path(folder or ".") / self.config_filename
        with names_full_disk(path, "no step was trained"):
            super().setup(trainer, pl_module, stage)
            if self.described is not None and folder is not None and trainer.is_global_zero:
                settings = yaml.safe_load(path.read_text(encoding="utf-8"))
                text = yaml.safe_dump({**settings, **self.described.settings()}, sort_keys=False)
                with new_file(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")


class TrainingCommand(LightningCLI):
    """LightningCLI for a model of this package and any data module.

    Args:
        words: Subcommand and options.
        model: The class of the model. The section ``model`` of a configuration contains the
            settings of a :class:`~deepscm_pl.training.DeepSCM` directly, and ``class_path`` and
            ``init_args`` of other models.
        described: The model and the data that a checkpoint describes, in place of those of a
            configuration.
        trust: Packages whose classes a checkpoint may name.
        typed: The words that the user typed, if ``words`` contains others in addition.
        opened: The checkpoint that ``words`` name, which is not read again.
        member: The member of an ensemble that is trained; None for a single model.
        data: The data of earlier members, which are not read again.
        is_dry: Whether ``fit`` only measures a few steps.

    Attributes:
        tested: The tested checkpoint of a complete training; None before.
    """

    def __init__(
        self,
        words: list[str],
        model: type[pl.LightningModule] = DeepSCM,
        described: FromCheckpoint | None = None,
        trust: Sequence[str] = (),
        typed: list[str] | None = None,
        opened: Checkpoint | None = None,
        member: Member | None = None,
        data: pl.LightningDataModule | None = None,
        is_dry: bool = False,
    ) -> None:
        self.member, self.is_dry = member, is_dry
        self.tested: str | None = None
        self._data = data
        self._resumes = False
        self.is_causal = model is DeepSCM
        self.words = words
        self.described = described
        self.trust = trust
        self.opened = opened
        self._typed = words if typed is None else typed
        # A second safeguard: settings of a checkpoint do not reach the parser in the first place.
        set_parsing_settings(instantiate_subclass_spec_in_any=described is None)
        super().__init__(
            model,
            pl.LightningDataModule,
            subclass_mode_model=not self.is_causal,
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
                "--trust PACKAGE a checkpoint may name classes of that package as well.",
                words[0]: {"description": TRAINING_COMMANDS[words[0]]},
            },
            args=words,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the method of the trainer that runs, with its arguments that are not options.

        A parser for each of the others would take most of the time until the program starts.
        """
        loaders = {"fit": {"train_dataloaders", "val_dataloaders"}}
        not_options = {"model", "datamodule", "weights_only", "verbose", "return_predictions"}
        return {self.words[0]: not_options | loaders.get(self.words[0], {"dataloaders"})}

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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add checkpoints on the validation split, and the reports of the test."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": f"validation/{'bound' if self.is_causal else 'accuracy'}",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "epoch={epoch}",
                "checkpoint.auto_insert_metric_name": False,
            }
        )
        for name, report in REPORTS.items() if self.is_causal else ():
            parser.add_lightning_class_args(report, name)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args`` only, not those of the surrounding program."""
        self.config = parser.parse_args(args)
        settings = self.config[self.config.subcommand]
        if self.member is not None:
            check_seed(settings.get("seed_everything"))
            self._resumes = settings.get("ckpt_path") == "last"
            self.member.apply(settings)
        check_seed(settings.get("seed_everything"))

    def _parse_ckpt_path(self) -> None:
        """Do nothing: a checkpoint's settings come before the words, which may change them."""

    def before_instantiate_classes(self) -> None:
        """Log a training to a new folder, and a test to the run of its checkpoint."""
        command = self.config.subcommand
        settings = self.config[command].trainer
        resumed = self._find_last_checkpoint() if command == "fit" else {}
        if settings.logger is not None:
            return
        run = _run_of_checkpoint(self.config[command].get("ckpt_path"))
        if command == "fit":
            folder = str(settings.default_root_dir or ".")
            settings.logger = Namespace(
                class_path="deepscm_pl.cli.runs.RunLogger",
                init_args=Namespace(save_dir=folder, **resumed),
            )
        elif command == "test" and run is not None:
            settings.logger = Namespace(
                class_path="deepscm_pl.runs.tags.GroupedLogger",
                init_args=Namespace(save_dir=str(run.parent), name="", version=run.name),
            )
        else:
            settings.logger = False  # so that no folder is made

    def _find_last_checkpoint(self) -> dict[str, Any]:
        """Resolve ``--ckpt_path last``; return the settings to continue the log of its run."""
        settings = self.config[self.config.subcommand]
        if settings.get("ckpt_path") != "last":
            return {}
        root = Path(settings.trainer.default_root_dir or ".")
        found = read_last_checkpoint(checkpoint_folders(root, settings.checkpoint.dirpath))
        if found is None:
            settings.ckpt_path = None
            message = "there is no checkpoint in %s to resume from: a new training starts"
            rank_zero_info(message, for_terminal(root))
            return {}
        self.opened = Checkpoint(*found)
        settings.ckpt_path = str(found[0])
        settings.checkpoint.enable_version_counter = False  # later checkpoints are overwritten
        run = _run_of_checkpoint(settings.ckpt_path)
        steps = self.opened.content["global_step"]
        return {} if run is None else {"version": run.name, "purge_step": steps}

    def instantiate_classes(self) -> None:
        """Make everything that no checkpoint describes; name the settings that do not fit."""
        check_trainer(self.config[self.config.subcommand].trainer, self.config.subcommand)
        with named_errors("model"):
            super().instantiate_classes()
        if self.described is not None:
            self.model = self.described.model
            self.datamodule = self.described.data or self.datamodule
        if self._data is not None:
            self.datamodule = self._data

    def instantiate_trainer(self, **settings: Any) -> pl.Trainer:
        """Make the trainer, with the reports that a checkpoint describes."""
        parsed = self.config_init[self.subcommand]
        reports = {} if self.described is None or not self.is_causal else self.described.reports
        for name, saved in reports.items():
            typed = {word.partition("=")[0].removeprefix(f"--{name}.") for word in self.words}
            given = vars(self.config[self.subcommand][name])
            parsed[name] = report_with(REPORTS[name], given, saved, typed)
        if parsed.trainer.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"].append(progress_for(sys.stdout))
        if self.is_causal:
            self.trainer_defaults["callbacks"].append(GraphPicture())
        try:
            with named_errors("trainer"):
                return super().instantiate_trainer(**settings)
        except ValueError as error:
            raise ValueError(named_trainer_error(str(error), vars(parsed.trainer))) from error

    def after_instantiate_classes(self) -> None:
        """Set up the evaluation; stop if a checkpoint does not fit the configuration's model."""
        for callback in self._callbacks(EvaluationReport):
            callback.prints_verdict = False
            if callback.predictor is not None:
                model = ImageClassifier.load_from_checkpoint(callback.predictor, trust=self.trust)
                callback.classifier = lambda images, model=model: model.to(images.device)(
                    images.float()
                ).argmax(dim=-1)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is None or path in _NOT_PATHS:
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO({})
            return
        opened, self.opened = self.opened, None
        if opened is None or opened.path != Path(path):
            opened = Checkpoint.read(path)
        self.trainer.strategy.checkpoint_io = AtomicCheckpointIO({path: opened.content})
        try:
            load_weights(self.model, opened.content["state_dict"])
        except ValueError as error:
            raise ValueError(
                f"ckpt_path: {path} does not fit the model of the configuration: {error}"
            ) from None

    def _callbacks(self, kind: type[Any]) -> list[Any]:
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, kind)]

    def fit(self, **settings: Any) -> None:
        """Train, test the best checkpoint, and print what to do next."""
        if self.is_dry:
            print(measure_training(self.trainer, settings["model"], settings["datamodule"]))
            return
        typed = self._typed
        if self.member is not None:
            trained = self.member.trained() if self._resumes else None
            if trained is not None:
                self.tested = str(trained)
                if self.trainer.is_global_zero:
                    print(f"\nMember {self.member.number} is trained: {for_terminal(trained)}")
                return
            self.member.begin()
            typed = [*take_options(typed, "--ckpt_path".__eq__)[1], "--ckpt_path", "last"]
        self._train(settings, typed)
        if self.trainer.interrupted or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        require_trained(self.trainer)
        callback: Any = self.trainer.checkpoint_callback
        best = callback and (callback.best_model_path or callback.last_model_path)
        if not best:
            print("No checkpoint was written, so there is nothing to test.")
            return
        self._test_best(settings["model"], settings["datamodule"], str(best), typed)

    def _train(self, settings: dict[str, Any], typed: Sequence[str]) -> None:
        """Train, so that an interrupted run can be resumed, and a refused one leaves no folder."""
        callback: Any = self.trainer.checkpoint_callback
        path = settings["ckpt_path"]
        with (
            # A resumed run may write to its own folder.
            nullcontext() if path is None else _ignored("Checkpoint directory .* exists and is"),
            self._discarding_refused_run(),
            report_interruption(
                self.trainer,
                lambda: describe_resumption(getattr(callback, "dirpath", None), typed),
            ),
            restoring(path),
        ):
            try:
                self.trainer.fit(**settings, weights_only=True)
            finally:  # so that this process, too, can resume the run
                for lock in self._callbacks(RunLock):
                    lock.release()

    def _test_best(self, model: Any, datamodule: Any, best: str, typed: Sequence[str]) -> None:
        """Test the best checkpoint, and print what to do next."""
        trust = _trust_options(model, datamodule)
        if self.member is None:
            test = shell_command("test", "--ckpt_path", best, *trust)
            advice = f"the training is done; test it with: {test}"
        else:
            advice = f"the training is done; test it and go on with: {shell_command(*typed)}"
        with report_interruption(self.trainer, lambda: advice):
            self.test(model=model, datamodule=datamodule, ckpt_path=best)
        folder = self.trainer.log_dir  # a collective operation
        self.tested = best
        if self.trainer.is_global_zero:
            if self.member is not None:
                self.member.complete(best)
            watch = for_shell("tensorboard", "--logdir", str(folder))
            print(f"\nWatch the run:       {watch}")
            if isinstance(model, DeepSCM):
                print(f"Ask the model:       {self.question([best])}")
            again = shell_command("test", "--ckpt_path", best, *trust)
            print(f"Evaluate it again:   {again}")
            self._print_verdict()

    def question(self, checkpoints: Sequence[str]) -> str:
        """Return a command that asks trained models, all of the class of this one."""
        data: Any = self.datamodule
        has_data = isinstance(data, CausalDataModule)
        rows = data.variables("test") if has_data else None
        trust = _trust_options(self.model, data)[1:]
        grids = self._callbacks(CounterfactualGrid)
        scm = self.model.scm
        some = None if rows is None else {name: rows[name] for name in scm.graph}
        asked = Asked(scm, checkpoints, trust, some, has_data)
        return asked.counterfactual(grids[0].texts[0] if grids else None)

    @contextmanager
    def _discarding_refused_run(self) -> Iterator[None]:
        """Remove the folder of a training that stops before its first step."""
        try:
            yield
        except Exception:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            if isinstance(self.trainer.logger, RunLogger) and progress.total.ready == 0:
                self.trainer.logger.discard()
            raise

    def validate(self, **settings: Any) -> None:
        """Print the quantities on the validation split."""
        self._evaluate(self.trainer.validate, settings)

    def test(self, **settings: Any) -> None:
        """Write the association table and the evaluation on the test split."""
        # The reports of a causal model contain more than Lightning's table.
        self._evaluate(self.trainer.test, {**settings, "verbose": not self.is_causal})
        if self.trainer.is_global_zero:
            _print_written_files(self.trainer)
            if self.subcommand == "test":
                path = settings["ckpt_path"]
                if self.is_causal and path is not None and path not in _NOT_PATHS:
                    print(f"\nAsk the model:       {self.question([str(path)])}")
                self._print_verdict()

    def _print_verdict(self) -> None:
        """Print the verdict of the evaluation, as the last lines."""
        for callback in self._callbacks(EvaluationReport):
            if callback.report is not None:
                print()
                print_verdict(callback.report.judgement)

    def predict(self, **settings: Any) -> None:
        """Write the quantities of every test image as ``quantities.csv`` in the run's folder."""
        predictions = Predictions()
        self.trainer.callbacks.append(predictions)  # type: ignore[attr-defined]
        self._evaluate(self.trainer.predict, settings)
        predictions.write(self.trainer, run_folder(self.trainer) / "quantities.csv")

    def _evaluate(self, method: Callable[..., Any], settings: Mapping[str, Any]) -> None:
        # Lightning reacts to SIGTERM at the next batch, but a report takes long without any batch.
        # It is irrelevant that a training is resumed in another folder than its best checkpoint's.
        with (
            _ignored("The dirpath has changed"),
            exit_on_termination(),
            restoring(settings["ckpt_path"]),
        ):
            method(**settings, weights_only=True)


def _trust_options(model: pl.LightningModule, datamodule: pl.LightningDataModule) -> list[str]:
    """The options that allow a command to import the packages that a training has imported."""
    described: Any = [dict(model.hparams)]
    if isinstance(datamodule, CausalDataModule):
        described.append(datamodule.configuration())
    packages = untrusted_packages(described)
    return ["--trust", *packages] if packages else []


def _run_of_checkpoint(path: str | None) -> Path | None:
    """The folder of the run that has a checkpoint in its folder ``checkpoints``."""
    if path is None or path in _NOT_PATHS:
        return None
    folder = Path(path).resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


@contextmanager
def _ignored(warning: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", warning)
        yield


def _print_written_files(trainer: pl.Trainer) -> None:
    """Print each file, but only the number of the pictures of earlier epochs."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    written = [path for callback in callbacks for path in getattr(callback, "written", [])]
    of_epochs = [path for path in written if "-epoch=" in path.stem]
    for path in written:
        if path not in of_epochs:
            print(f"written: {for_terminal(path)}")
    if of_epochs:
        folder = for_terminal(of_epochs[0].parent)
        print(f"And {len(of_epochs)} pictures of earlier epochs in {folder}")
