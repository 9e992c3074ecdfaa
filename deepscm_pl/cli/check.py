"""``check``: whether a graph and its data are fit for a model, and the noise of a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import set_parsing_settings

from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.cli.commands import CheckOptions
from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.cli.settings import check_configuration, named_errors
from deepscm_pl.cli.training import PACKAGES
from deepscm_pl.data import CausalDataModule
from deepscm_pl.escaping import for_shell, for_terminal
from deepscm_pl.evaluation.check import CheckSettings, check
from deepscm_pl.files import new_folder
from deepscm_pl.lazy import import_all
from deepscm_pl.reports.check import CheckReport
from deepscm_pl.reports.tables import print_table
from deepscm_pl.runs.noise import without_noise
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.shipped.names import find_model
from deepscm_pl.suggestions import Asked
from deepscm_pl.training import DeepSCM

__all__ = ["check_model_and_data"]


def check_model_and_data(
    configurations: Sequence[str] | None, checkpoint: Path | None, options: CheckOptions
) -> None:
    """Check, print one verdict for each item, and write the page.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a configuration, a checkpoint, the data or a question is not valid, there are
            too few rows, or the output folder is not empty or cannot be written.
    """
    settings = CheckSettings(
        tuple(options.do or ()), options.level, options.permutations, options.seed
    )
    # The folder is made first, so that one that cannot be written is named before the work.
    with new_folder(options.out) as folder, without_noise():
        if checkpoint is not None:
            scm, data = _from_checkpoint(checkpoint, options)
        else:
            scm, data = _from_configuration(configurations or [], options)
        data.prepare_data()
        data.setup("fit")
        found = check(scm, data, settings)
        origin = {
            "graph": str(scm.graph),
            "model": str(checkpoint or ", ".join(configurations or [])),
        }
        report = CheckReport(found, data, origin)
        report.write_files(folder)
    print_table(report.verdict_table())
    for reason in found.left_out:
        print(f"Left out: {for_terminal(reason)}")
    for name in ("check.json", "check.md"):
        print(f"written: {for_terminal(options.out / name)}")
    if checkpoint is not None:
        rows = {name: data.variables("test")[name] for name in scm.graph}
        asked = Asked(scm, [checkpoint], options.trust, rows)
        print(f"\nAsk the model:       {asked.counterfactual()}")
    elif options.root is None:
        words = [word for each in configurations or [] for word in ("--config", each)]
        print(f"\nTrain a model:       {for_shell('deepscm', 'fit', *words)}")


def _from_checkpoint(
    path: Path, options: CheckOptions
) -> tuple[StructuralCausalModel, CausalDataModule]:
    opened = Checkpoint.read(find_model(path), trust=options.trust)
    model = opened.trained_model()
    return model.scm, model.data(options.root)


def _from_configuration(
    names: Sequence[str], options: CheckOptions
) -> tuple[StructuralCausalModel, CausalDataModule]:
    """Make the model and the data that a configuration describes, as ``fit`` does."""
    configuration = Configuration.read(names)
    settings: dict[str, Any] = configuration.settings
    with configuration.naming_lines():
        check_configuration(settings)
        for section in ("model", "data"):
            if not isinstance(settings.get(section), dict):
                raise ValueError(
                    f"config: {', '.join(names)} has no section {section}; add it as for fit."
                )
        if "class_path" in settings["model"]:
            raise ValueError(
                f"model: expected a causal model with graph and mechanisms, but got "
                f"{settings['model']['class_path']}; leave class_path out."
            )
        for package in PACKAGES:
            import_all(package)
        set_parsing_settings(instantiate_subclass_spec_in_any=True)
        parser = FriendlyLightningParser(prog="deepscm check")
        parser.add_lightning_class_args(DeepSCM, "model")
        parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
        kept = {section: settings[section] for section in ("model", "data")}
        if options.root is not None:
            kept["data"] = {**kept["data"]}
            arguments = {**(kept["data"].get("init_args") or {}), "root": str(options.root)}
            kept["data"]["init_args"] = arguments
        found = parser.parse_object(yaml.safe_load(yaml.safe_dump(kept)))
        with named_errors("model"):
            made = parser.instantiate(found)
    if not isinstance(made.data, CausalDataModule):
        raise ValueError(
            f"data: expected a data module of deepscm_pl or one derived from CausalDataModule, but "
            f"got {type(made.data).__name__}."
        )
    return made.model.scm, made.data
