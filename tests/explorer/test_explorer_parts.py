"""The parts of the live page, its uploads and its exports, without a browser."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.checkpoints import Checkpoint, TrainedModel
from deepscm_pl.escaping import for_terminal
from deepscm_pl.evaluation.intervals import Calibration, IntervalFactor
from deepscm_pl.explorer import Explorer
from deepscm_pl.explorer.exports import export_answer
from deepscm_pl.explorer.graph import draw_boxes
from deepscm_pl.explorer.parts import Parts
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.session import Question, Session
from deepscm_pl.explorer.uploads import MOST_FILES, MOST_ROWS, read_uploads

UNIT = "<b>mm</b>\"&'"


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
    heights = {"thickness": 50.0, "intensity": 50.0, "image": 76.0}
    drawing = draw_boxes(pictures.scm.graph, heights)
    paths = {(each.cause, each.effect): each.path for each in drawing.curves}
    drawn = {path: kind for kind, path in re.findall(r'class="arrow (\w*)" d="([^"]+)"', graph)}
    assert {edge: drawn[path] for edge, path in paths.items()} == {
        ("thickness", "intensity"): "cut",
        ("thickness", "image"): "",
        ("intensity", "image"): "moved",
    }
    assert graph.count("scissors") == 1
    roles = re.findall(r'<g class="box (\w*)"><title>(\w+)', graph)
    assert {name: role for role, name in roles} == {
        "thickness": "still",
        "intensity": "set",
        "image": "moved",
    }
    visit.set("thickness", 2.0)
    visit.hold(["thickness"])
    reply = visit.ask()
    pairs = re.findall(r"([\d.]+) → <tspan class=\"new\">([\d.]+)", all_parts(visit)["graph"])
    values = [(reply.factual.values[n], reply.scene.values[n]) for n in ("thickness", "intensity")]
    assert [[*map(float, each)] for each in pairs] == [
        pytest.approx(each, abs=0.5) for each in values
    ]


def test_the_difference_is_counterfactual_minus_factual(pictures):
    visit = visit_of(pictures)
    visit.set("intensity", 250.0)
    reply, before = visit.ask(), visit.observation.values["image"][0]
    change = torch.linspace(-90, 110, 64).view(1, 8, 8)
    reply = replace(reply, images={"image": before + change}, limits={"image": 100.0})
    source = re.findall(r'src="data:image/png;base64,([^"]+)"', Parts(pictures).pictures(reply))[2]
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))).astype(int)
    redness, clear = colours[..., 0] - colours[..., 2], change[0].abs().numpy() > 5
    assert np.array_equal(np.sign(redness[clear]), np.sign(change[0].numpy()[clear]))


def test_values_have_units_and_changes_have_signs(pictures, table):
    parts = Parts(table)
    assert parts.full("effect", 12.25) == f"12.2 {for_terminal(UNIT)}"
    assert parts.full("effect", None) == "missing"
    assert parts.change("effect", 3.0, 1.5) == "\u22121.5"
    assert parts.change("effect", 1.5, 3.0) == "+1.5"
    assert parts.change("sick", 1.0, 1.0) == "same"
    assert parts.change("sick", 1.0, 0.0) == "changed"
    visit = visit_of(table)
    visit.choose(1)
    visit.set("dose", 1e6)
    found = all_parts(visit)
    assert html.escape(for_terminal(UNIT)) in found["graph"]
    assert html.escape(for_terminal(UNIT)) in found["values"]


def test_support_is_told_in_training_rows(pictures):
    parts, visit = Parts(pictures), visit_of(pictures)
    visit.set("thickness", 2.0)
    reply = visit.ask()
    total = int(pictures.scm.training_distribution.rows)
    for rows, words in ((0.4, "fewer than 1 of"), (26.4, "about 26 of")):
        asked = replace(reply, scene=replace(reply.scene, verdict="edge", rows=rows))
        assert f"{words} {total} training rows" in parts.title(asked)
    for rows, words in ((5.0, "as near to training rows as these"), (26.4, "about 26 of")):
        asked = replace(reply, scene=replace(reply.scene, verdict="supported", rows=rows))
        assert words in parts.title(asked)
    nothing = replace(reply, question=Question(visit.observation, {"intensity": 100.0}))
    assert "affects nothing else" not in parts.title(nothing)


def test_what_particles_tell_is_said(pictures, table):
    visit = visit_of(pictures)
    visit.set("thickness", 2.0)
    found = all_parts(visit)["values"]
    assert "90 % of particles" not in found
    assert "No intervals: the observation determines the noise" in found
    assert "error of the measurement" in found
    visit = visit_of(table)
    visit.choose(0)  # of which the effect is missing
    visit.set("dose", 5e5)
    reply, parts = visit.ask(), Parts(table)
    details = visit.details(reply)
    assert details.shares.keys() == {"sick"}
    found = parts.values(reply, replace(details, shares={"sick": {1: 0.75, 0: 0.25}}))
    assert re.search(r"<td>[\d.]+ to [\d.]+</td>", found)
    assert "<td>yes 75 %, no 25 %</td>" in found
    assert "not calibrated, so a lower bound" in found


def test_a_calibrated_interval_names_its_source(pictures):
    visit = visit_of(pictures)
    visit.set("thickness", 2.0)
    factor = IntervalFactor(visit.ask().title, ("thickness",), "changed", 2.0, 9)
    calibration = Calibration(0.8, 5, 1, [factor], "9 rows of <b>", is_complete=True)
    saved = {"calibration": calibration.as_plain_data()}
    checkpoints = (Checkpoint(Path("x.ckpt"), saved),)
    explorer = replace(pictures, model=replace(pictures.model, checkpoints=checkpoints))
    assert explorer.model.calibration == calibration
    visit = visit_of(explorer)
    visit.set("thickness", 2.0)
    exact, parts = all_parts(visit)["more"], Parts(explorer)
    assert re.search(
        r"interval of 80 % ±[\d.]+ on average, calibrated on 9 rows of &lt;b&gt;<", exact
    )
    assert "Deviation of 5 particles" in exact
    visit.set("thickness", 3.0)
    assert "but not for this intervention itself" in all_parts(visit)["more"]
    partial = replace(calibration, is_complete=False)
    saved["calibration"] = partial.as_plain_data()
    assert "so a lower bound" in parts.details(visit.reply, visit.details(visit.reply))


def test_names_of_data_are_escaped(table):
    visit = visit_of(table)
    visit.set("kind", 2.0)
    found = "".join(all_parts(visit).values())
    # The same where nothing is set.
    observed = {**visit.observation.values, "kind": torch.tensor([[2.0]])}
    visit.choose(replace(visit.observation, values=observed))
    found += "".join(all_parts(visit).values())
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
    sources = re.findall(r'src="([^"]+)"', middle)
    assert len({*sources[:3]}) == 3  # three different planes
    sides = re.findall(r'<b class="(\w+)" aria-hidden="true">(\w)</b>', middle)[:12]
    assert "".join(letter for _, letter in sides) == "LRAP" + "LRSI" + "PASI"
    assert [side for side, _ in sides] == ["left", "right", "top", "bottom"] * 3


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
    nibabel.Nifti1Image(np.full((8, 8, 8), 90, np.uint8), np.diag([2, 3, 4, 1])).to_filename(path)
    (found,) = read_uploads(scans, [path], {"level": 90})
    assert found.values["scan"].shape == (1, 1, 8, 8, 8)
    visit = visit_of(scans)
    visit.choose(found)
    pictures = Parts(scans).pictures(visit.ask())
    assert "16 × 24 × 32 mm, voxels of 2 × 3 × 4 mm. The bar is 1 mm long" in pictures
    assert "width:6.2%" in pictures  # of 16 mm, from left to right


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
    levels = np.full((8, 8, 8), 300.5, np.float32)
    nibabel.Nifti1Image(levels, np.eye(4)).to_filename(tmp_path / "bright.nii.gz")
    with pytest.raises(ValueError, match=r"bright\.nii\.gz has values from 300\.5 to 300\.5"):
        read_uploads(scans, [tmp_path / "bright.nii.gz"], {})
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
