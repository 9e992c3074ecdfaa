"""The program ``deepscm``."""

from deepscm_pl.cli.main import main

__all__ = ["main"]
