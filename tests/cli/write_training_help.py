"""Write the options of the training commands for ``deepscm fit --help``: run after a change."""

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

import deepscm_pl
from deepscm_pl.lazy import import_all

PATH = Path(deepscm_pl.__file__).parent / "cli" / "training_options.txt"


def options_of(command):
    """What the parser of Lightning prints, without its usage and the options of its method."""
    from deepscm_pl.cli.training import PACKAGES, TrainingCommand

    for package in PACKAGES:
        import_all(package)
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        TrainingCommand([command, "--help"])
    lines = printed.getvalue().splitlines()
    first = lines.index("options:")
    last = max(k for k, line in enumerate(lines) if line.endswith(":") and line[0] != " ")
    return "\n".join(lines[first:last]).rstrip() + "\n"


if __name__ == "__main__":
    PATH.write_text(options_of("fit"), encoding="utf-8")
