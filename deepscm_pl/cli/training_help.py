"""The options of the commands that train, without the time that it takes to make their parser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

from deepscm_pl.cli.parser import FriendlyArgumentParser, fail
from deepscm_pl.cli.words import split_configurations

__all__ = ["DRY_RUN", "TABLES", "TRAINING_COMMANDS", "check_training_words", "training_help"]

TRAINING_COMMANDS = {
    "fit": "Train a model, then test its best checkpoint.",
    "validate": "Evaluate a model on the validation split.",
    "test": "Evaluate a model on the test split.",
    "predict": "Write the quantities of every test image as a table.",
}

DRY_RUN = "--dry_run"
"""The option of ``fit`` that trains nothing."""
TABLES = "--tables"
"""The option of ``fit`` and ``test`` that prints the tables behind the verdict."""

_OPTION = re.compile(r"^ +(?:-\w[^,\n]*, )?--([\w.]+)", re.MULTILINE)
_COMPLETE_GROUPS = ("trainer", "checkpoint", "association", "evaluation")
_CKPT_PATH = """\
  --ckpt_path CKPT_PATH
                        Checkpoint of a training. Without --config the model and the data are taken
                        from it. 'last' resumes the latest training in --trainer.default_root_dir.
  --trust PACKAGE [PACKAGE ...]
                        Packages whose classes a checkpoint may name in addition to this one's."""

_MEMBERS = """
  --members N           Train N models of an ensemble, one after another, which differ in their
                        seeds: that of --seed_everything (0 by default) and those that follow it.
                        Data are read once, and results are in member_1 to member_N of
                        --trainer.default_root_dir. '--ckpt_path last' resumes the member that is
                        not trained yet.
  --dry_run             Train nothing: read the data, measure a few steps, print rows, parameters,
                        memory, sizes of checkpoints and minutes expected."""

_TABLES = """
  --tables              Print all tables behind the verdict, which are in the report in any case."""

_PROTOCOL = """
  --protocol NAME       Test by the protocol causal-gen, benchmark, rasal or ours, which has options
                        of its own: deepscm test --protocol NAME --help; --compare DIR [DIR ...]
                        compares models that were tested by it."""


def training_help(command: str) -> str:
    """The help of a command, as its parser would print it."""
    return (
        f"usage: deepscm {command} --config FILE.yaml [OPTIONS]\n\n{TRAINING_COMMANDS[command]} "
        "The options of a data module: --data.help CLASS,\nfor example "
        f"deepscm_pl.data.MorphoMNISTDataModule.\n\n{_options_text()}\n{_CKPT_PATH}"
        f"{ {'fit': _MEMBERS + _TABLES, 'test': _TABLES + _PROTOCOL}.get(command, '') }"
    )


def check_training_words(words: Sequence[str]) -> None:
    """Check a command line before Lightning is imported.

    Raises:
        SystemExit: If there is no such option, after one line with the nearest one.
        FileNotFoundError: If a configuration does not exist.
        ValueError: If there are no options, or a configuration is not valid YAML.
    """
    from deepscm_pl.cli.configurations import Configuration

    if len(words) == 1:
        raise ValueError(
            "give --config FILE.yaml, or an experiment such as --config digits/full, or "
            f"--ckpt_path FILE.ckpt; deepscm {words[0]} --help lists all options."
        )
    options = {*_OPTION.findall(_options_text()), "ckpt_path", "trust", "help", "verbose"}
    options |= {"members", "dry_run"} if words[0] == "fit" else set()
    options |= {"tables"} if words[0] in ("fit", "test") else set()
    for word in words[1:]:
        name = word.partition("=")[0].removesuffix("+")
        if name.startswith("--") and not _is_option(name[2:], options):
            parser = FriendlyArgumentParser(prog=f"deepscm {words[0]}", add_help=False)
            for each in sorted(options):
                parser.add_argument(f"--{each}")
            fail(parser, f"unrecognized arguments: {name}")
    Configuration.read(split_configurations(words)[0])


def _is_option(name: str, options: set[str]) -> bool:
    group, _, rest = name.partition(".")
    if group in _COMPLETE_GROUPS and rest and rest != "help":
        return f"{group}.{rest.partition('.')[0]}" in options
    return group in {option.partition(".")[0] for option in options}


def _options_text() -> str:
    return files("deepscm_pl.cli").joinpath("training_options.txt").read_text(encoding="utf-8")
