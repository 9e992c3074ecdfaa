"""The configurations in the documentation are read by the program, and fit an example."""

from __future__ import annotations

import re
import sys
from doctest import DocTestParser
from pathlib import Path

import pytest
import yaml

from deepscm_pl.cli import main

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "experiments" / "digits" / "full.yaml"
TEXTS = [ROOT / "README.md", ROOT / "experiments" / "README.md", *(ROOT / "docs").glob("*.md")]
BLOCKS = {
    f"{path.name} {number}": block
    for path in sorted(TEXTS)
    for number, block in enumerate(
        re.findall(r"^```ya?ml\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
}


def write_own_data(folder: Path) -> None:
    """The module ``hearts`` that the documentation names: its class, and what that imports."""
    examples = DocTestParser().get_examples((ROOT / "docs" / "own-data.md").read_text("utf-8"))
    kept = [each.source for each in examples if re.match("import|from|class", each.source)]
    (folder / "hearts.py").write_text("".join(kept), encoding="utf-8")


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_yaml_in_the_documentation_is_a_configuration(block, tmp_path, monkeypatch):
    """On top of the example of the README, unless it brings its own data; six batches suffice."""
    write_own_data(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hearts", raising=False)
    (tmp_path / "block.yaml").write_text(block, encoding="utf-8")
    whole = "data" in yaml.safe_load(block)
    words = ["fit", *([] if whole else ["--config", str(DIGITS)])]
    words += ["--config", str(tmp_path / "block.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--trainer.fast_dev_run", "6", "--trainer.accelerator", "cpu"]
    assert main([*words, "--trainer.enable_progress_bar", "false"]) == 0


def test_the_documentation_has_yaml():
    assert {name.split()[0] for name in BLOCKS} >= {"training.md", "callbacks.md", "own-data.md"}
