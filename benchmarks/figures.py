"""What the benchmarks print, and what they promise."""

from __future__ import annotations

import argparse
import json
import sys

__all__ = ["Figures", "add_promise_option"]

_RATIO = "speed_over_"


def add_promise_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--at-least``."""
    parser.add_argument(
        "--at-least",
        type=float,
        metavar="RATIO",
        help=f"end with status 1 if a ratio, {_RATIO}..., is below this (default: never)",
    )


class Figures:
    """Prints figures, a line of JSON for each, and remembers which ratios are too low.

    Args:
        at_least: What each number whose name begins with ``speed_over_`` has to be; None for
            anything.
    """

    def __init__(self, at_least: float | None = None) -> None:
        self.at_least = at_least
        self._broken: list[str] = []

    def report(self, figure: str, **numbers: float | str) -> None:
        """Prints a line, its numbers to four digits."""
        shown = {
            name: float(f"{number:.4g}") if isinstance(number, float) else number
            for name, number in numbers.items()
        }
        print(json.dumps({"figure": figure, **shown}), flush=True)
        for name, number in shown.items():
            if name.startswith(_RATIO) and self._is_too_low(number):
                self._broken.append(f"{name} of {figure} is {number}")

    def check(self) -> None:
        """Ends the program with status 1, and says why in a line, if a ratio was too low."""
        if self._broken:
            sys.exit(f"expected at least {self.at_least:g}, but {', '.join(self._broken)}")

    def _is_too_low(self, number: float | str) -> bool:
        # Written so that NaN is too low.
        return self.at_least is not None and not float(number) >= self.at_least
