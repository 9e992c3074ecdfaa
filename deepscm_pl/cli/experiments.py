"""``deepscm experiments``: the configurations that are installed with this package."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

import deepscm_pl
from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.parser import nearest
from deepscm_pl.cli.yaml_files import experiments
from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import new_file

__all__ = ["run_experiments_command"]


def run_experiments_command(command: str, options: argparse.Namespace) -> None:
    """List the experiments, or write the complete configuration of one.

    Raises:
        FileNotFoundError: If there is no such experiment.
        ValueError: If the file exists or cannot be written.
    """
    known = experiments()
    if options.name is None:
        if options.out is not None:
            raise ValueError("out: expected the name of an experiment before it; give one.")
        for name, path in known.items():
            print(f"{name:<{max(map(len, known))}}  {_first_comment(path)}")
        return
    if options.name not in known:
        raise FileNotFoundError(
            f"there is no experiment {options.name!r}"
            f"{nearest(options.name, known) or '; deepscm experiments lists them.'}"
        )
    text = _complete(options.name, known[options.name])
    if options.out is None:
        print(text, end="")
        return
    _write(options.out, text)
    print(f"written: {for_terminal(options.out)}")


def _complete(name: str, path: Path) -> str:
    """The configuration with those that it is based on."""
    settings = Configuration.read([str(path)]).settings
    return (
        f"# {_first_comment(path)}\n# The experiment {name} of deepscm_pl "
        f"{deepscm_pl.__version__}, complete.\n"
        + yaml.safe_dump(settings, sort_keys=False, width=100)
    )


def _write(path: Path, text: str) -> None:
    if path.exists() or path.is_symlink():
        raise ValueError(f"out: {path} exists; name a new file.")
    if not path.parent.is_dir():
        raise ValueError(f"out: there is no folder {path.parent}; make it first.")
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
