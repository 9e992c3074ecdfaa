"""Models and data of checkpoints, and the options that change them, such as ``--data.root DIR``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepscm_pl.callbacks import AssociationReport, EvaluationReport
from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.checks import nearest
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.cli.words import option_value, take_options
from deepscm_pl.configuration import annotations_of, describe, restore_arguments, restore_class
from deepscm_pl.escaping import for_shell, for_terminal
from deepscm_pl.runs.checkpoint_files import furthest_checkpoint
from deepscm_pl.training import DeepSCM

__all__ = [
    "REPORTS",
    "FromCheckpoint",
    "Override",
    "apply_overrides",
    "describe_resumption",
    "read_described",
    "report_interruption",
    "report_with",
    "shell_command",
    "split_overrides",
]


@dataclass(frozen=True)
class Override:
    """An option that changes a setting of a checkpoint.

    Attributes:
        option: The option as typed, such as ``--data.init_args.root``.
        names: The path of the setting, such as ``("root",)``.
        text: The new value.
    """

    option: str
    names: tuple[str, ...]
    text: str


def split_overrides(words: Sequence[str], section: str) -> tuple[list[Override], list[str]]:
    """Split words into the options of a section, ``"model"`` or ``"data"``, and all other words.

    Example:
        >>> found, left = split_overrides(["test", "--data.root", "here", "--seed", "1"], "data")
        >>> found[0].names, found[0].text, left
        (('root',), 'here', ['test', '--seed', '1'])
    """
    prefix = f"--{section}."
    taken, left = take_options(words, lambda option: option.startswith(prefix))
    for word in left:
        if word.startswith(prefix):
            raise ValueError(f"{word}: expected a value after it; give one.")
    overrides = [
        Override(option, tuple(name for name in option.split(".")[1:] if name != "init_args"), text)
        for option, text in taken
    ]
    return overrides, left


def apply_overrides(
    target: type, arguments: Mapping[str, Any], overrides: Sequence[Override]
) -> dict[str, Any]:
    """Replace arguments of a class by the values of options, of which later ones win.

    Args:
        target: The class.
        arguments: Values by name, with ``functools.partial`` in place of objects.
        overrides: The options.

    Raises:
        ValueError: If an option names no argument.
        SystemExit: If a value is not of the type that the argument has.
    """
    changed = dict(arguments)
    for override in overrides:
        _replace(target, changed, override, override.names)
    return changed


def _replace(kind: Any, values: dict[str, Any], override: Override, names: Sequence[str]) -> None:
    """Replace one value among the arguments of a class, or among the values of a mapping."""
    name, *deeper = names
    known = annotations_of(kind) if isinstance(kind, type) else None
    if known is not None and name not in known:
        raise ValueError(
            f"{override.option}: {kind.__qualname__} has no argument {name!r}"
            f"{nearest(name, known)}."
        )
    found = values.get(name)
    if not deeper:
        values[name] = _parse(override, Any if known is None else known[name][0])
    elif isinstance(found, functools.partial):
        keywords = dict(found.keywords)
        _replace(found.func, keywords, override, deeper)
        values[name] = functools.partial(found.func, **keywords)
    elif isinstance(found, Mapping):
        values[name] = dict(found)
        _replace(None, values[name], override, deeper)
    else:
        raise ValueError(f"{override.option}: {name} has no part {deeper[0]!r}; leave it out.")


def _parse(override: Override, annotation: Any) -> Any:
    parser = FriendlyLightningParser(prog="deepscm", add_help=False)
    parser.add_argument(override.option, type=annotation)
    found = parser.parse_args([f"{override.option}={override.text}"])
    return parser.instantiate(found)[override.option.removeprefix("--")]


REPORTS: Mapping[str, type[pl.Callback]] = {
    "association": AssociationReport,
    "evaluation": EvaluationReport,
}
"""The reports of a test, by the section of a configuration that holds their settings."""


@dataclass(frozen=True)
class FromCheckpoint:
    """A model, its data and the settings of its reports.

    Attributes:
        model: The model with its weights.
        data: The data, not loaded yet; None if the checkpoint describes none, or the user names
            others.
        reports: Settings by name, for each of :data:`REPORTS`.
    """

    model: pl.LightningModule
    data: pl.LightningDataModule | None
    reports: Mapping[str, Mapping[str, Any]]

    def settings(self) -> dict[str, Any]:
        """Return the model and the data as sections of a configuration."""
        model: Any = dict(self.model.hparams)
        if type(self.model) is not DeepSCM:
            kind = type(self.model)
            model = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": model}
        data: Any = self.data
        return {"model": model} | ({} if data is None else {"data": describe(data.configuration())})


def read_described(
    checkpoint: Checkpoint, words: Sequence[str]
) -> tuple[FromCheckpoint, list[str]]:
    """Build what a checkpoint, or an exported model, describes, with the changes in options.

    The settings in the file never reach the parser of the command line, which would build what a
    text in them names: they are rebuilt by :mod:`deepscm_pl.configuration`.

    Returns:
        The model, data and reports, and the words that are left for the parser.

    Raises:
        ValueError: If the file is foreign or hostile, or an option does not fit.
    """
    overrides, left = split_overrides(words, "model")
    kind = _trained_class(checkpoint)
    arguments: dict[str, Any] = {}
    if overrides:
        settings = checkpoint.content["hyper_parameters"]
        arguments = restore_arguments(kind, settings, checkpoint.trust, "model")
        changed = apply_overrides(kind, arguments, overrides)
        arguments = {override.names[0]: changed[override.names[0]] for override in overrides}
    model = checkpoint.build(kind, arguments)
    data: pl.LightningDataModule | None = None
    if option_value(left, "--data", "--data.class_path") is None:
        found = checkpoint.described_data()
        if found is not None:
            overrides, left = split_overrides(left, "data")
            data = found[0](**apply_overrides(*found, overrides))
    return FromCheckpoint(model, data, _read_reports(checkpoint)), left


def _trained_class(checkpoint: Checkpoint) -> type[Any]:
    name = checkpoint.content.get("model_class")
    if name is None:
        return DeepSCM
    try:
        return restore_class(name, (pl.LightningModule,), checkpoint.trust)
    except ValueError as error:
        raise ValueError(
            f"checkpoint: {checkpoint.path} names no model of this program: {error}"
        ) from None


def _read_reports(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Read the settings of the reports that are saved in a checkpoint."""
    saved = checkpoint.content.get("reports", {})
    try:
        if not isinstance(saved, Mapping):
            raise ValueError("expected settings by name")
        return {
            name: _restore_report(name, report, saved[name])
            for name, report in REPORTS.items()
            if name in saved
        }
    except ValueError as error:
        raise ValueError(
            f"checkpoint: the settings of reports in {checkpoint.path} do not fit this version of "
            f"the program: {error}"
        ) from None


def report_with(
    report: type[pl.Callback],
    given: Mapping[str, Any],
    saved: Mapping[str, Any],
    typed: Set[str],
) -> pl.Callback:
    """Make a report with the settings of a checkpoint, except those that the user typed.

    Args:
        report: The class.
        given: All settings that were parsed; those of a dataclass as a namespace.
        saved: Settings of the checkpoint.
        typed: Names of the options that the user typed, such as ``verdict.shown``.
    """
    chosen: dict[str, Any] = {}
    for name, (kind, _) in annotations_of(report).items():
        chosen[name] = given[name] if name in typed else saved.get(name, given[name])
        if is_dataclass(kind) and isinstance(kind, type):
            parts = {
                part: getattr(given[name], part) if f"{name}.{part}" in typed else value
                for part, value in vars(chosen[name]).items()
            }
            chosen[name] = kind(**parts)
    return report(**chosen)


def _restore_report(name: str, report: Any, settings: Any) -> dict[str, Any]:
    if name == "evaluation" and isinstance(settings, Mapping):  # saved by version 0.1
        settings = {key: value for key, value in settings.items() if key != "enabled"}
    restored = restore_arguments(report, settings, where=name)
    others = restored.keys() - set(report.kept_settings)
    if others:
        raise ValueError(f"{name}.{min(others)}: a checkpoint does not keep this setting")
    return restored


@contextmanager
def report_interruption(trainer: pl.Trainer, advice: Callable[[], str]) -> Iterator[None]:
    """Print advice if Ctrl-C interrupts a training; add it to the exception of SIGTERM.

    Args:
        trainer: The trainer at work.
        advice: Makes the text; called on the first process only.
    """
    try:
        yield
    except SIGTERMException:
        raise SIGTERMException(advice() if trainer.is_global_zero else "") from None
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        if trainer.interrupted and trainer.is_global_zero:
            print(for_terminal(f"deepscm fit: interrupted; {advice()}"), file=sys.stderr)
        raise


def describe_resumption(folder: str | Path | None, words: Sequence[str]) -> str:
    """Describe the last checkpoint in a folder, and the command that resumes the training.

    Args:
        folder: The folder in which the training saves; None if it does not.
        words: The words that the user typed after the name of the program.
    """
    found = None if folder is None else furthest_checkpoint(Path(folder))
    if found is None:
        return f"nothing was saved yet; begin anew with: {shell_command(*words)}"
    path, steps = found
    # A command without a configuration takes it from a checkpoint, which has to be named.
    last = str(path) if option_value(words, "--config", "-c") is None else "last"
    others = take_options(words, "--ckpt_path".__eq__)[1]
    resume = shell_command(*others, "--ckpt_path", last)
    return f"saved up to step {steps} in {path}; resume with: {resume}"


def shell_command(*words: str) -> str:
    """Quote a command of this program for a shell."""
    return for_shell("deepscm", *words)
