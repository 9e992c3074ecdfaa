"""Completion of commands and options in a shell: ``deepscm --print_shtab bash``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deepscm_pl.checks import nearest
from deepscm_pl.cli.commands import COMMANDS
from deepscm_pl.cli.options import add_command, summary_of
from deepscm_pl.cli.parser import FriendlyArgumentParser
from deepscm_pl.cli.training_help import TRAINING_COMMANDS, training_help

__all__ = ["SHELLS", "completion_script", "print_completion"]

SHELLS = ("bash", "zsh", "tcsh")

_OPTION = re.compile(r"^  ((?:-\w[^,\n]*, )?--[\w.]+\+?)(?: |$)(.*)", re.MULTILINE)
_FILES = ("config", "ckpt_path")
"""Options of trainings whose values are files."""


def print_completion(words: Sequence[str]) -> None:
    """Print the script for the shell in ``words``, which follow ``--print_shtab``.

    Raises:
        ValueError: If there is not exactly one shell that is known, or shtab is not installed.
    """
    if len(words) != 1 or words[0] not in SHELLS:
        got = " ".join(words) or "nothing"
        hint = nearest(words[0], SHELLS, otherwise=".") if len(words) == 1 else "."
        raise ValueError(f"expected {', '.join(SHELLS)}, but got {got}{hint}")
    print(completion_script(words[0]))


def completion_script(shell: str) -> str:
    """Make a script that a shell reads to complete the commands and options of ``deepscm``.

    Raises:
        ValueError: If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ValueError(
            "the completion of shells needs the package shtab, which is not installed; "
            "do pip install 'deepscm_pl[completion]'."
        ) from error
    script: str = shtab.complete(_program(shtab.FILE, shtab.DIRECTORY), shell)
    return script


def _program(file: Any, folder: Any) -> FriendlyArgumentParser:
    """A parser of the whole program, whose options complete files and folders."""
    program = FriendlyArgumentParser(prog="deepscm")
    program.add_argument("--version", action="store_true", help="Print the version.")
    program.add_argument("--print_shtab", choices=SHELLS, help="Print a script of completion.")
    parsers = program.add_subparsers(metavar="COMMAND")
    for name, command in COMMANDS.items():
        kinds = ", ".join(command) if isinstance(command, Mapping) else summary_of(command)
        # Commands without a help are not completed.
        add_command(parsers.add_parser(name, prog=f"deepscm {name}", help=kinds), command)
    for name, summary in TRAINING_COMMANDS.items():
        _add_training_options(parsers.add_parser(name, prog=f"deepscm {name}", help=summary), name)
    _complete_paths(program, file, folder)
    return program


def _add_training_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options that the help of a training command lists."""
    for flags, rest in _OPTION.findall(training_help(command)):
        names = [each.split()[0] for each in flags.split(", ")]
        if "--help" in names or set(names) & set(parser._option_string_actions):
            continue
        path = any(name.lstrip("-") in _FILES for name in names)
        metavar = "FILE" if path else "VALUE"
        settings: dict[str, Any] = {"nargs": "*", "metavar": metavar} if rest.strip() else {}
        parser.add_argument(*names, **(settings or {"action": "store_true"}), help="")


def _complete_paths(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Let options whose value is a file or a folder complete names of these; shorten the help."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                _complete_paths(subparser, file, folder)
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if metavar.startswith("FILE"):
            action.complete = file  # type: ignore[attr-defined]
        elif metavar == "DIR":
            action.complete = folder  # type: ignore[attr-defined]
        if action.help:
            action.help = action.help.partition(". ")[0].partition(";")[0]
