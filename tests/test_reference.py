"""The reference of the documentation lists existing modules and names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"
ENTRIES = re.findall(r"^::: (\S+)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_exist(entry):
    try:
        importlib.import_module(entry)
    except ModuleNotFoundError:
        module, _, name = entry.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_entries_are_unique():
    assert len(ENTRIES) == len(set(ENTRIES)) > 0
