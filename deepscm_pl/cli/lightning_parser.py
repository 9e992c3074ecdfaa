"""The parser of the commands that train, with short errors."""

from __future__ import annotations

from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from deepscm_pl.cli.parser import fail
from deepscm_pl.cli.yaml_files import PARSER_MODE

__all__ = ["FriendlyLightningParser"]

_CONFIG_HELP = (
    "A YAML file of settings, or several: mappings merge key by key, later files win, lists are "
    "replaced, null removes an earlier value, and a changed class_path drops the earlier "
    "init_args. 'base: FILE' at the top of a file names the one that comes before it. Options such "
    "as --trainer.max_epochs win over all files."
)


class FriendlyLightningParser(LightningArgumentParser):
    """The parser of Lightning's command line, with short errors and limits of what it reads."""

    def __init__(
        self,
        *arguments: Any,
        parser_mode: str = PARSER_MODE,
        allow_abbrev: bool = False,
        **settings: Any,
    ) -> None:
        settings |= {"parser_mode": parser_mode, "allow_abbrev": allow_abbrev}
        super().__init__(*arguments, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        """Add an option, and describe how several configurations merge."""
        if "--config" in names:
            settings["help"] = _CONFIG_HELP
        return super().add_argument(*names, **settings)

    def add_argument_group(self, title: str | None = None, *details: Any, **more: Any) -> Any:
        """Add a group with the first sentence of its title, whose last one may be cut off."""
        return super().add_argument_group(title and title.partition(". ")[0], *details, **more)

    def error(self, message: str, *details: Any, **more: Any) -> NoReturn:
        """Print the message and what may have been meant; leave with status 2."""
        if not self.exit_on_error:  # tried on a part of the settings, where an error is an answer
            super().error(message, *details, **more)
        fail(self, message)
