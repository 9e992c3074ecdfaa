"""What a checkpoint describes: its model, its data and the settings of its reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from deepscm_pl.callbacks import AssociationReport, EvaluationReport
from deepscm_pl.cli.overrides import apply_overrides, split_overrides
from deepscm_pl.configuration import describe, restore_arguments
from deepscm_pl.training import DeepSCM, read_checkpoint
from deepscm_pl.training.checkpoint import describe_data
from deepscm_pl.training.trained import trained_class

__all__ = ["REPORTS", "FromCheckpoint", "read_described"]

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
    path: str, words: Sequence[str], trust: Sequence[str]
) -> tuple[FromCheckpoint, list[str]]:
    """Build what a checkpoint describes, with the changes that the user's options make.

    The settings in the file never reach the parser of the command line, which would build what a
    text in them names: they are rebuilt by :mod:`deepscm_pl.configuration`.

    Args:
        path: The checkpoint, or an exported model.
        words: Subcommand and options.
        trust: Packages whose classes the file may name.

    Returns:
        What was built, and the words that are left for the parser.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign or hostile, or an option does not fit.
    """
    checkpoint = read_checkpoint(path, settings=())
    changes, left = split_overrides(words, "model")
    kind = trained_class(path, checkpoint, trust)
    arguments: dict[str, Any] = {}
    if changes:
        arguments = restore_arguments(kind, checkpoint["hyper_parameters"], trust, "model")
        names = {change.names[0] for change in changes}
        changed = apply_overrides(kind, arguments, changes)
        arguments = {name: changed[name] for name in names}
    model = kind.load_from_checkpoint(path, trust=trust, **arguments)
    data, left = _read_data(path, checkpoint, left, trust)
    return FromCheckpoint(model, data, _read_reports(path, checkpoint)), left


def _read_data(
    path: str, checkpoint: Mapping[str, Any], words: list[str], trust: Sequence[str]
) -> tuple[pl.LightningDataModule | None, list[str]]:
    """The data that a checkpoint describes, unless the user names others."""
    names_others = any(word.partition("=")[0] in ("--data", "--data.class_path") for word in words)
    found = None if names_others else describe_data(path, checkpoint, trust)
    if found is None:
        return None, words
    kind, arguments = found
    changes, left = split_overrides(words, "data")
    return kind(**apply_overrides(kind, arguments, changes)), left


def _read_reports(path: str, checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of the reports that travel with a checkpoint."""
    kept = checkpoint.get("reports", {})
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
            f"checkpoint: the settings of reports in {path} do not fit this version of the "
            f"program: {error}"
        ) from None


def _restored(name: str, report: Any, settings: Any) -> dict[str, Any]:
    """The settings of a report, which are those that it keeps and no others."""
    restored = restore_arguments(report, settings, where=name)
    others = restored.keys() - set(report.kept_settings)
    if others:
        raise ValueError(f"{name}.{min(others)}: a checkpoint does not keep this setting")
    return restored
