"""The parts of the live page, its uploads and its exports, without a browser."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.explorer import Explorer
from deepscm_pl.explorer.exports import export_answer
from deepscm_pl.explorer.parts import Parts
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.session import Session
from deepscm_pl.explorer.uploads import MOST_FILES, MOST_ROWS, read_uploads


def visit_of(explorer):
    return Session(explorer, Programs([Path("last.ckpt")])).visit("a")


@pytest.fixture(scope="module")
def scans(volumes) -> Explorer:
    scm, data = volumes
    return Explorer(TrainedModel.of(scm), data)


def all_parts(visit):
    parts, reply = Parts(visit.session.explorer), visit.ask()
    details = visit.details(reply)
    return {
        "title": parts.title(reply),
        "pictures": parts.pictures(reply),
        "graph": parts.graph_picture(reply),
        "values": parts.values(reply, details),
        "more": parts.details(reply, details),
    }


# The drawing


def test_edges_into_a_variable_that_is_set_are_cut(pictures):
    visit = visit_of(pictures)
    assert "cut" not in all_parts(visit)["graph"]
    visit.set("intensity", 100.0)
    graph = all_parts(visit)["graph"]
    assert graph.count("scissors") == 1  # thickness -> intensity
    roles = re.findall(r'<g class="box (\w*)"><title>(\w+)', graph)
    assert {name: role for role, name in roles} == {
        "thickness": "still",
        "intensity": "set",
        "image": "moved",
    }


def test_names_of_data_are_escaped(table):
    visit = visit_of(table)
    visit.set("kind", 2.0)
    found = "".join(all_parts(visit).values())
    assert "&lt;script&gt;" in found
    assert "<script" not in found and "<img src=x" not in found and "<b>mm" not in found  # noqa: PT018
    assert "\u202e" not in found


def test_a_picture_shows_three_images_and_the_support(pictures):
    visit = visit_of(pictures)
    visit.set("thickness", visit.session.limits("thickness")[1])
    found = all_parts(visit)
    assert found["pictures"].count("<img") == 3
    assert "extrapolated" in found["title"]
    assert "measured in" in found["values"]
    assert "Deviation of 16 particles" in found["more"]
    assert "not calibrated" in found["more"]
    assert "Indirect change" in found["more"]


def test_planes_of_a_volume_follow_the_place(scans):
    visit = visit_of(scans)
    visit.set("level", 100.0)
    parts, reply = Parts(scans), visit.ask()
    middle, corner = (parts.pictures(reply, (k, k, k)) for k in (4, 0))
    assert middle.count("<img") == 9 == corner.count("<img")
    assert middle != corner
    assert parts.pictures(reply) == middle
    for letter in "LRAPSI":
        assert f">{letter}</b>" in middle


# Uploads


def write_picture(path, size=(8, 8), mode="L"):
    Image.new(mode, size, 200 if mode == "L" else (200, 0, 0)).save(path)
    return path


def test_a_picture_with_its_attributes(pictures, tmp_path):
    path = write_picture(tmp_path / "mine.png")
    (found,) = read_uploads(pictures, [path], {"thickness": "2.5", "intensity": " 200 "})
    assert found.row is None
    assert found.values["thickness"].tolist() == [[2.5]]
    assert found.values["image"].unique().tolist() == [200]
    visit = visit_of(pictures)
    visit.choose(found)
    visit.set("thickness", 4.0)
    assert visit.details(visit.ask()) is not None
    assert visit.link == ""
    assert "--observations observation.csv" in visit.command


def test_attributes_that_are_missing_are_measured_in_a_known_world(pictures, tmp_path):
    path = write_picture(tmp_path / "mine.png")
    (found,) = read_uploads(pictures, [path], {"thickness": ""})
    assert found.values["intensity"].isfinite().all()


def test_a_table_with_pictures(pictures, tmp_path):
    table = tmp_path / "two.csv"
    table.write_text("thickness,intensity,image\n2.5,200,b.png\n3,100,folder/a.png\n")
    files = [table, *(write_picture(tmp_path / name) for name in ("a.png", "b.png"))]
    found = read_uploads(pictures, files, {})
    assert [each.values["thickness"].item() for each in found] == [2.5, 3.0]


def test_a_row_of_a_table_with_missing_values(table, tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("kind,dose,effect,sick\n3,1000,,yes\n")
    (found,) = read_uploads(table, [path], {})
    assert found.values["effect"].isnan().all()
    assert found.values["sick"].item() == 1


def test_a_volume(scans, tmp_path):
    path = tmp_path / "scan.nii.gz"
    nibabel.Nifti1Image(np.full((8, 8, 8), 90, np.uint8), np.diag([2, 2, 2, 1])).to_filename(path)
    (found,) = read_uploads(scans, [path], {"level": 90})
    assert found.values["scan"].shape == (1, 1, 8, 8, 8)
    visit = visit_of(scans)
    visit.choose(found)
    pictures = Parts(scans).pictures(visit.ask())
    assert "16 × 16 × 16 mm" in pictures


def write_table(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: [write_picture(f / "a.png", (9, 8))], "8×8 pixels, but .*9×8"),
        (lambda f: [write_picture(f / "a.png", mode="RGB")], "colour"),
        (lambda f: [write_table(f / "a.png", "no picture")], "a picture of 8×8 pixels is expected"),
        (lambda f: [], "got no picture"),
        (lambda f: [write_table(f / "a.csv", "thickness,image\n1,a.png\n")], "got no picture"),
        (
            lambda f: [
                write_table(f / "a.csv", "thickness,image\n1,a.png\n"),
                write_picture(f / "a.png"),
            ],
            "intensity is missing",
        ),
        (
            lambda f: [
                write_table(f / "a.csv", "thickness,intensity,image\n1,100,../../etc/passwd\n"),
                write_picture(f / "a.png"),
            ],
            "picture passwd of the table beside it",
        ),
        (
            lambda f: [
                write_table(f / "a.csv", "thickness,intensity\n" + "1,100\n" * (MOST_ROWS + 1)),
                write_picture(f / "a.png"),
            ],
            f"at most {MOST_ROWS} rows",
        ),
        (
            lambda f: [write_picture(f / f"{k}.png") for k in range(MOST_FILES + 1)],
            f"at most {MOST_FILES} files, but got {MOST_FILES + 1}",
        ),
    ],
)
def test_uploads_that_do_not_fit(make, reason, pictures, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read_uploads(pictures, make(tmp_path), {"thickness": 2, "intensity": 100})


def test_attributes_that_do_not_fit(pictures, tmp_path):
    path = write_picture(tmp_path / "a.png")
    for values, reason in (
        ({"thickness": "thick"}, "expected a number, but got 'thick'"),
        ({"thickness": "-3"}, r"thickness: expected values in \(0, inf\), but got -3"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_uploads(pictures, [path], values)


def test_volumes_of_another_depth_and_pictures_are_refused(scans, table, tmp_path):
    path = tmp_path / "scan.nii.gz"
    nibabel.Nifti1Image(np.zeros((8, 8, 7), np.uint8), np.eye(4)).to_filename(path)
    with pytest.raises(ValueError, match=r"8×8×8 voxels .*8×8×7"):
        read_uploads(scans, [path], {})
    with pytest.raises(ValueError, match="a volume of 8×8×8 voxels"):
        read_uploads(scans, [write_picture(tmp_path / "a.png")], {})
    with pytest.raises(ValueError, match="the model has no image"):
        read_uploads(table, [tmp_path / "a.png"], {})


def test_uploads_are_limited_in_bytes(pictures, tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(ValueError, match="expected at most 64"):
        read_uploads(pictures, [path], {})


# Exports


def test_an_export_can_be_asked_again(pictures, tmp_path):
    visit = visit_of(pictures)
    visit.choose(2)
    visit.set("thickness", 2.0)
    reply = visit.ask()
    paths = export_answer(pictures, reply, tmp_path)
    assert {path.name for path in paths} == {
        "answer.csv",
        "observation.csv",
        "image-factual.png",
        "image-counterfactual.png",
    }
    (found,) = read_uploads(pictures, [tmp_path / "observation.csv", paths[2]], {})
    for name, value in visit.observation.values.items():
        torch.testing.assert_close(found.values[name], value)
    rows = list(csv.DictReader((tmp_path / "answer.csv").open(encoding="utf-8")))
    assert [float(each["thickness"]) for each in rows][1] == 2.0
    assert rows[1]["support"] == reply.scene.verdict


def test_an_export_of_volumes_has_their_difference(scans, tmp_path):
    visit = visit_of(scans)
    visit.set("level", 50.0)
    export_answer(scans, visit.ask(), tmp_path)
    images = [
        nibabel.load(tmp_path / f"scan-{kind}.nii.gz").get_fdata()
        for kind in ("factual", "counterfactual", "difference")
    ]
    assert np.abs(images[1] - images[0] - images[2]).max() <= 0.51
