"""Images in colour, from the training to the answers."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image
from test_cli_prepare import CONFIGURATION
from test_cli_questions import pixels, read

from deepscm_pl.cli import main
from deepscm_pl.data.images import read_scan

from scan_folders import subjects, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of coloured squares, red or green, and the checkpoint of a training on them."""
    root = tmp_path_factory.mktemp("squares")
    rows = subjects(24)
    for row in rows[:12]:
        row["split"] = "test" if int(row["eid"]) < 6 else "train"
    write_table(root, rows)
    for row in rows:
        image = np.full((12, 12, 3), 20, np.uint8)
        image[3:9, 3:9, row["sex"]] = 120 + int(row["age"])
        Image.fromarray(image).save(root / f"{row['eid']}.png")
    configuration = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
    settings = configuration["data"]["init_args"]
    settings["subjects"]["images"] = "{eid}.png"
    for name in ("slicing", "preprocessing", "random_crop"):
        del settings[name]
    settings["root"], settings["cache"]["folder"] = str(root), str(root / "cache")
    image = configuration["model"]["mechanisms"]["image"]["init_args"]
    image["shape"] = [3, 12, 12]
    configuration["evaluation"] = {
        "enabled": True, "interventions": ["sex=1"], "num_particles": 2, "workers": 1,
    }  # fmt: skip
    configuration["trainer"]["max_steps"] = 30
    configuration["trainer"]["callbacks"] = [
        {"class_path": "deepscm_pl.callbacks.CounterfactualGrid",
         "init_args": {"interventions": ["sex=1"], "num_images": 2}},
        {"class_path": "deepscm_pl.callbacks.ReconstructionGrid", "init_args": {"num_images": 2}},
    ]  # fmt: skip
    (root / "run.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    words = ["fit", "--config", str(root / "run.yaml"), "--trainer.default_root_dir", str(root)]
    assert main(words) == 0
    checkpoints = root / "lightning_logs" / "version_0" / "checkpoints"
    return root, next(checkpoints.glob("epoch=*.ckpt"))


@pytest.mark.parametrize("kind", ["png", "nifti"])
def test_answers_are_in_colour_and_can_be_asked_about(run, tmp_path, kind):
    root, checkpoint = run
    (tmp_path / "mine.csv").write_text(f"age,sex,image\n45,0,{root / '0000.png'}\n")
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "sex=1", "--format", kind]
    words += ["--num_particles", "3", "--npz"]
    observed = ["--observations", str(tmp_path / "mine.csv")]
    assert main([*words, *observed, "--out", str(tmp_path / "a")]) == 0
    rows, arrays = read(tmp_path / "a"), np.load(tmp_path / "a" / "answers.npz")
    for row, image in zip(rows, [*arrays["0/image"], *arrays["1/image"]], strict=True):
        scan = read_scan(tmp_path / "a" / row["image"])
        assert np.array_equal(scan.array[:, :, 0], np.moveaxis(image[0], 0, -1))
        if kind == "nifti" and row["image_difference"]:
            change = nibabel.load(tmp_path / "a" / row["image_difference"])
            assert change.header.get_intent()[0] == "vector"
            found = np.asarray(change.dataobj)[:, :, 0, 0]
            assert np.array_equal(found, np.moveaxis(image[0] - arrays["0/image"][0, 0], 0, -1))
    assert (tmp_path / "a" / "image-deviation.png").is_file()
    again = ["--observations", str(tmp_path / "a" / "answers.csv"), "--out", str(tmp_path / "b")]
    assert main([*words, *again]) == 0
    second = np.load(tmp_path / "b" / "answers.npz")
    assert np.array_equal(second["0/image"][0, 1], arrays["1/image"][0, 0])


def test_a_grey_picture_has_three_equal_channels(run, tmp_path):
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(tmp_path / "grey.png")
    (tmp_path / "mine.csv").write_text("age,sex,image\n45,0,grey.png\n")
    words = ["counterfactual", "--ckpt_path", str(run[1]), "--do", "age+=0"]
    out = tmp_path / "out"
    assert main([*words, "--observations", str(tmp_path / "mine.csv"), "--out", str(out)]) == 0
    found = pixels(out, read(out)[0])
    assert np.array_equal(found, np.repeat(np.arange(144).reshape(12, 12, 1), 3, axis=2))


def test_the_evaluation_of_colours_is_complete(run):
    root = run[0] / "lightning_logs" / "version_0"
    assert list(Path(root).glob("evaluation/**/evaluation.json"))
