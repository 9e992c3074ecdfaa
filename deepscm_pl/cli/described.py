"""Options that change what a checkpoint describes: ``--data.root DIR``, ``--model.NAME VALUE``."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepscm_pl.callbacks import AssociationReport, EvaluationReport
from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.cli.parser import nearest
from deepscm_pl.configuration import annotations_of, describe, restore_arguments, restore_class
from deepscm_pl.runs.checkpoint_files import furthest_checkpoint
from deepscm_pl.training import DeepSCM

__all__ = [
    "REPORTS",
    "FromCheckpoint",
    "Override",
    "apply_overrides",
    "describe_resumption",
    "read_described",
    "shell_command",
    "split_overrides",
    "tell_if_interrupted",
    "trusted_packages",
]

_SKIPPED = ("init_args",)


@dataclass(frozen=True)
class Override:
    """A word of the user that changes a setting of a checkpoint.

    Attributes:
        option: As it was typed, such as ``--data.init_args.root``.
        names: Where the setting is, such as ``("root",)``.
        text: Its new value, as text.
    """

    option: str
    names: tuple[str, ...]
    text: str


def split_overrides(words: Sequence[str], section: str) -> tuple[list[Override], list[str]]:
    """Take the options of a section out of the words of a command line.

    Args:
        words: The words.
        section: ``"model"`` or ``"data"``.

    Returns:
        The options, and the other words.

    Raises:
        ValueError: If an option has no value.

    Example:
        >>> found, left = split_overrides(["test", "--data.root", "here", "--seed", "1"], "data")
        >>> found[0].names, found[0].text, left
        (('root',), 'here', ['test', '--seed', '1'])
    """
    found: list[Override] = []
    left: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        option, equals, text = word.partition("=")
        if not option.startswith(f"--{section}."):
            left.append(word)
            continue
        if not equals and not waiting:
            raise ValueError(f"{option}: expected a value after it; give one.")
        names = tuple(name for name in option.split(".")[1:] if name not in _SKIPPED)
        found.append(Override(option, names, text if equals else waiting.pop(0)))
    return found, left


def apply_overrides(
    target: type, arguments: Mapping[str, Any], overrides: Sequence[Override]
) -> dict[str, Any]:
    """Put the values of options in the place of those that a file describes.

    Args:
        target: The class that the arguments are of.
        arguments: Name to value, with ``functools.partial`` in place of objects.
        overrides: The options, of which later ones win.

    Returns:
        All arguments.

    Raises:
        ValueError: If an option names no argument, naming the nearest one.
        SystemExit: If a value is not of the type that the argument has.
    """
    changed = dict(arguments)
    for override in overrides:
        _put(target, changed, override, override.names)
    return changed


def _put(kind: Any, values: dict[str, Any], override: Override, names: Sequence[str]) -> None:
    """Change one value among the arguments of a class, or among the values of a mapping."""
    name, *deeper = names
    known = annotations_of(kind) if isinstance(kind, type) else None
    if known is not None and name not in known:
        raise ValueError(
            f"{override.option}: {kind.__qualname__} has no argument {name!r}"
            f"{nearest(name, known)}."
        )
    annotation = Any if known is None else known[name][0]
    found = values.get(name)
    if not deeper:
        values[name] = _parsed(override, annotation)
    elif isinstance(found, functools.partial):
        keywords = dict(found.keywords)
        _put(found.func, keywords, override, deeper)
        values[name] = functools.partial(found.func, **keywords)
    elif isinstance(found, Mapping):
        nested = dict(found)
        _put(None, nested, override, deeper)
        values[name] = nested
    else:
        raise ValueError(f"{override.option}: {name} has no part {deeper[0]!r}; leave it out.")


def _parsed(override: Override, annotation: Any) -> Any:
    """The value of an option, as the user typed it."""
    parser = FriendlyLightningParser(prog="deepscm", add_help=False)
    parser.add_argument(override.option, type=annotation)
    found = parser.parse_args([f"{override.option}={override.text}"])
    return parser.instantiate(found)[override.option.removeprefix("--")]


def trusted_packages(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--trust PACKAGE …`` out of the words of a command line.

    Returns:
        The packages, and the other words.

    Example:
        >>> trusted_packages(["test", "--trust", "mine", "yours", "--ckpt_path", "last.ckpt"])
        (['mine', 'yours'], ['test', '--ckpt_path', 'last.ckpt'])
    """
    packages: list[str] = []
    left: list[str] = []
    is_package = False
    for word in words:
        if word == "--trust" or word.startswith("--trust="):
            is_package = word == "--trust"
            packages += [word.removeprefix("--trust=")] * (not is_package)
        elif is_package and not word.startswith("-"):
            packages.append(word)
        else:
            is_package = False
            left.append(word)
    return packages, left


REPORTS: Mapping[str, type[pl.Callback]] = {
    "association": AssociationReport,
    "evaluation": EvaluationReport,
}
"""The reports of a test, by the section of a configuration that holds their settings."""


@dataclass(frozen=True)
class FromCheckpoint:
    """A model, its data and the settings of its reports.

    Attributes:
        model: With its weights.
        data: Not loaded yet; None if the checkpoint describes none, or the user names others.
        reports: Settings by name, for each of :data:`REPORTS`.
    """

    model: pl.LightningModule
    data: pl.LightningDataModule | None
    reports: Mapping[str, Mapping[str, Any]]

    def settings(self) -> dict[str, Any]:
        """The model and the data as sections of a configuration."""
        model: Any = dict(self.model.hparams)
        if type(self.model) is not DeepSCM:
            kind = type(self.model)
            model = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": model}
        data: Any = self.data
        return {"model": model} | ({} if data is None else {"data": describe(data.configuration())})


def read_described(
    checkpoint: Checkpoint, words: Sequence[str]
) -> tuple[FromCheckpoint, list[str]]:
    """Build what a checkpoint describes, with the changes that the user's options make.

    The settings in the file never reach the parser of the command line, which would build what a
    text in them names: they are rebuilt by :mod:`deepscm_pl.configuration`.

    Args:
        checkpoint: The checkpoint, or an exported model.
        words: Subcommand and options.

    Returns:
        What was built, and the words that are left for the parser.

    Raises:
        ValueError: If the file is foreign or hostile, or an option does not fit.
    """
    changes, left = split_overrides(words, "model")
    kind = trained_class(checkpoint)
    arguments: dict[str, Any] = {}
    if changes:
        settings = checkpoint.content["hyper_parameters"]
        arguments = restore_arguments(kind, settings, checkpoint.trust, "model")
        names = {change.names[0] for change in changes}
        changed = apply_overrides(kind, arguments, changes)
        arguments = {name: changed[name] for name in names}
    model = checkpoint.build(kind, arguments)
    data, left = _read_data(checkpoint, left)
    return FromCheckpoint(model, data, _read_reports(checkpoint)), left


def _read_data(
    checkpoint: Checkpoint, words: list[str]
) -> tuple[pl.LightningDataModule | None, list[str]]:
    """The data that a checkpoint describes, unless the user names others."""
    names_others = any(word.partition("=")[0] in ("--data", "--data.class_path") for word in words)
    found = None if names_others else checkpoint.described_data()
    if found is None:
        return None, words
    kind, arguments = found
    changes, left = split_overrides(words, "data")
    return kind(**apply_overrides(kind, arguments, changes)), left


def _read_reports(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """The settings of the reports that travel with a checkpoint."""
    kept = checkpoint.content.get("reports", {})
    try:
        if not isinstance(kept, Mapping):
            raise ValueError("expected settings by name")
        return {
            name: _restored(name, report, kept[name])
            for name, report in REPORTS.items()
            if name in kept
        }
    except ValueError as error:
        raise ValueError(
            f"checkpoint: the settings of reports in {checkpoint.path} do not fit this version of "
            f"the program: {error}"
        ) from None


def _restored(name: str, report: Any, settings: Any) -> dict[str, Any]:
    """The settings of a report, which are those that it keeps and no others."""
    if name == "evaluation" and isinstance(settings, Mapping):  # version 0.1 kept one more
        settings = {key: value for key, value in settings.items() if key != "enabled"}
    restored = restore_arguments(report, settings, where=name)
    others = restored.keys() - set(report.kept_settings)
    if others:
        raise ValueError(f"{name}.{min(others)}: a checkpoint does not keep this setting")
    return restored


_OPTION = "--ckpt_path"


@contextmanager
def tell_if_interrupted(
    trainer: pl.Trainer, command: str, advice: Callable[[], str]
) -> Iterator[None]:
    """Print advice where Ctrl-C or SIGTERM interrupts the trainer in the block.

    Args:
        trainer: The trainer that is at work.
        command: The subcommand of the program.
        advice: Makes the text; called on the first process only.

    Raises:
        SIGTERMException: Where SIGTERM ended a training, with the text, which is not printed.
    """
    try:
        yield
    except SIGTERMException:
        raise SIGTERMException(advice() if trainer.is_global_zero else "") from None
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        if trainer.interrupted and trainer.is_global_zero:
            print(f"deepscm {command}: interrupted; {advice()}", file=sys.stderr)
        raise


def describe_resumption(folder: str | Path | None, words: Sequence[str]) -> str:
    """Describe what a folder of checkpoints holds, and the command that resumes the training.

    Args:
        folder: Where the training saves; None if it does not.
        words: What the user typed after the name of the program.
    """
    found = None if folder is None else furthest_checkpoint(Path(folder))
    if found is None:
        return f"nothing was saved yet; begin anew with: {shell_command(*words)}"
    path, steps = found
    # A command without a configuration takes it from a checkpoint, which has to be named.
    is_configured = any(word.split("=")[0] in ("--config", "-c") for word in words)
    last = "last" if is_configured else str(path)
    resume = shell_command(*_without_checkpoint(words), _OPTION, last)
    return f"saved up to step {steps} in {path}; resume with: {resume}"


def shell_command(*words: str) -> str:
    """A command of this program, quoted for a shell."""
    return shlex.join(["deepscm", *words])


def _without_checkpoint(words: Sequence[str]) -> list[str]:
    pairs = zip(["", *words[:-1]], words, strict=True)
    kept = [word for before, word in pairs if _OPTION not in (before, word)]
    return [word for word in kept if not word.startswith(f"{_OPTION}=")]


def trained_class(checkpoint: Checkpoint) -> type[Any]:
    """The class of the module in a checkpoint.

    Raises:
        ValueError: If the checkpoint names anything but a module of Lightning.
    """
    name = checkpoint.content.get("model_class")
    if name is None:
        return DeepSCM
    try:
        return restore_class(name, (pl.LightningModule,), checkpoint.trust)
    except ValueError as error:
        raise ValueError(
            f"checkpoint: {checkpoint.path} names no model of this program: {error}"
        ) from None
