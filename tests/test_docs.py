"""The configurations in the documentation can be read and trained."""

from __future__ import annotations

import re
import sys
from doctest import DocTestParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from deepscm_pl.cli import main
from deepscm_pl.data import BrainWorld, generate_brain

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
    """Write the module ``hearts`` of the documentation: its class and imports."""
    examples = DocTestParser().get_examples((ROOT / "docs" / "own-data.md").read_text("utf-8"))
    kept = [each.source for each in examples if re.match("import|from|class", each.source)]
    (folder / "hearts.py").write_text("".join(kept), encoding="utf-8")


def write_scans(folder: Path) -> None:
    """Write the folders ``data/brain`` and ``scans`` of the documentation, with a few heads."""
    generate_brain(folder / "data" / "brain", size=20, workers=1, progress=False)
    world = BrainWorld(32, 40, 32)
    generator = np.random.default_rng(0)
    values = world.sample(20, generator)
    images = world.render(world.draw_originals(20, generator), values)
    lines = ["participant_id\tage_at_scan\tsex\tbrain_mm3\tventricles_mm3"]
    for number, image in enumerate(images):
        name = f"sub-{number:03d}"
        (folder / "scans" / name / "anat").mkdir(parents=True)
        path = folder / "scans" / name / "anat" / f"{name}_T1w.nii.gz"
        nibabel.save(nibabel.Nifti1Image(image.astype(np.int16) * 9, world.grid.affine), path)
        lines.append("\t".join([name, *(str(values[each][number]) for each in world.attributes)]))
    (folder / "scans" / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_study(folder: Path) -> None:
    """Write the table ``study/patients.csv`` of the documentation, with a few people."""
    (folder / "study").mkdir()
    lines = ["id;age;sex;stage;volume"]
    for k in range(60):
        stage = ("mild", "moderate", "severe")[k % 3]
        lines.append(
            f"{k:04d};{30 + k / 2};{'FM'[k % 2]};{stage};{1000 + 3.5 * k}".replace(".", ",")
        )
    (folder / "study" / "patients.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def base_of(name: str) -> list[str]:
    """Base configurations of a block: a model and data, unless the block contains them.

    Figures are drawn only if the block asks for them.
    """
    block = yaml.safe_load(BLOCKS[name])
    if "data" not in block:
        digits = yaml.safe_load(DIGITS.read_text(encoding="utf-8"))
        digits["trainer"]["callbacks"] = []
        return [yaml.safe_dump(digits)]
    first = yaml.safe_load(BLOCKS[f"{name.split()[0]} 0"])
    return [] if "model" in block else [yaml.safe_dump({"model": first["model"]})]


@pytest.mark.parametrize("name", BLOCKS)
def test_yaml_in_the_documentation_is_a_configuration(name, tmp_path, monkeypatch):
    """With the README's example or the first model of the page as a base; for six small batches."""
    write_own_data(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hearts", raising=False)
    if "BrainMRIDataModule" in BLOCKS[name]:
        write_scans(tmp_path)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))  # where prepared images are kept
    if "TableDataModule" in BLOCKS[name]:
        write_study(tmp_path)
        monkeypatch.chdir(tmp_path)
    words = ["fit"]
    for number, base in enumerate(base_of(name)):
        (tmp_path / f"base{number}.yaml").write_text(base, encoding="utf-8")
        words += ["--config", str(tmp_path / f"base{number}.yaml")]
    (tmp_path / "block.yaml").write_text(BLOCKS[name], encoding="utf-8")
    words += ["--config", str(tmp_path / "block.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--trainer.fast_dev_run", "6", "--trainer.accelerator", "cpu"]
    words += ["--data.init_args.batch_size", "8"]
    assert main([*words, "--trainer.enable_progress_bar", "false"]) == 0


def test_the_documentation_has_yaml():
    assert {name.split()[0] for name in BLOCKS} >= {
        "training.md",
        "callbacks.md",
        "own-data.md",
        "brain-mri.md",
    }
