"""The reference of the documentation is complete, and its pages are those of modules and names."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

import deepscm_pl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from public_modules import public_modules  # noqa: E402

MODULES = public_modules()


@pytest.mark.parametrize("module", MODULES, ids=lambda each: each.name)
def test_imports_of_a_page_work(module):
    """And what a class or a function of the page belongs to is the module of the page."""
    for package, names in module.imports.items():
        for name in names:
            value = getattr(importlib.import_module(package), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert value.__module__ == module.name, name
            assert name in vars(importlib.import_module(module.name)), name


def test_every_name_of_the_package_has_a_page():
    listed = {name for module in MODULES for name in module.imports.get("deepscm_pl", ())}
    assert set(deepscm_pl.__all__) - {"__version__"} <= listed


def test_modules_have_a_summary_and_are_listed_once():
    assert len({module.name for module in MODULES}) == len(MODULES) > 100
    assert [module.name for module in MODULES if not module.summary] == []


@pytest.mark.parametrize("name", ["scm", "graph", "training.deep_scm", "mechanisms.flow"])
def test_well_known_modules_are_listed(name):
    assert f"deepscm_pl.{name}" in {module.name for module in MODULES}
