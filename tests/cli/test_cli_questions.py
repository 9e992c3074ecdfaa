"""Questions to a trained model from the command line."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.cli import main

from tiny import draw, write_configuration


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(folder: Path, row: dict[str, str]) -> np.ndarray:
    return np.asarray(Image.open(folder / row["image"]))


def test_counterfactual_of_test_rows(checkpoint, tmp_path, capsys):
    out = tmp_path / "answers"
    words = ["--ckpt_path", str(checkpoint), "--out", str(out), "--index", "0", "4"]
    do = ["--do", "thickness=3", "thickness+=0.5,intensity=100", "--num_particles", "3"]
    assert main(["counterfactual", *words, *do, "--npz"]) == 0
    printed = capsys.readouterr().out
    for name in ("answers.csv", "image.png", "image-deviation.png", "answers.npz"):
        assert (out / name).is_file()
        assert name in printed
    rows, test = read(out), draw(20, seed=2)
    assert len(rows) == 2 + 2 * 2 * 3
    factual = [row for row in rows if row["intervention"] == "factual"]
    assert np.array_equal(pixels(out, factual[1]), test["image"][4, 0].numpy())
    assert float(factual[1]["thickness"]) == pytest.approx(test["thickness"][4].item())
    changed = [row for row in rows if row["intervention"] == "do(thickness = 3)"]
    assert {float(row["thickness"]) for row in changed} == {3.0}
    assert float(changed[0]["intensity"]) != pytest.approx(float(factual[0]["intensity"]))
    both = next(row for row in rows if row["intervention"].startswith("do(thickness + 0.5,"))
    assert float(both["intensity"]) == 100
    shifted = float(factual[0]["thickness"]) + 0.5
    assert float(both["thickness"]) == pytest.approx(shifted, abs=1e-5)
    arrays = np.load(out / "answers.npz")
    assert arrays["1/image"].shape == (3, 2, 1, 8, 8)


def test_null_counterfactual_of_own_observations(checkpoint, tmp_path):
    """From a table and images on disk; nothing done, nothing changed."""
    values = draw(2, seed=9)
    (tmp_path / "pictures").mkdir()
    lines = ["name,thickness,intensity,image"]
    for k in range(2):
        Image.fromarray(values["image"][k, 0].numpy()).save(tmp_path / f"pictures/{k}.png")
        thickness, intensity = values["thickness"][k].item(), values["intensity"][k].item()
        lines.append(f"a,{thickness},{intensity},pictures/{k}.png")
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(lines))
    out = tmp_path / "answers"
    words = ["--ckpt_path", str(checkpoint), "--out", str(out), "--observations", str(table)]
    assert main(["counterfactual", *words, "--do", "thickness+=0"]) == 0
    rows = read(out)
    for k in range(2):
        assert np.array_equal(pixels(out, rows[2 + k]), values["image"][k, 0].numpy())


def test_sample_and_intervene(checkpoint, tmp_path):
    common = ["--ckpt_path", str(checkpoint), "--size", "3", "--seed", "5"]
    assert main(["sample", *common, "--out", str(tmp_path / "a")]) == 0
    do = ["--do", "thickness=4", "--do", "intensity=100"]
    assert main(["intervene", *common, *do, "--out", str(tmp_path / "b")]) == 0
    sampled, intervened = read(tmp_path / "a"), read(tmp_path / "b")
    assert len(sampled) == 3
    assert len(intervened) == 6
    assert {row["thickness"] for row in intervened[:3]} == {"4"}
    # Intensity does not cause thickness, and the noise is the same.
    assert [r["thickness"] for r in intervened[3:]] == [r["thickness"] for r in sampled]


def test_temperature_scales_the_pixel_noise_alone(checkpoint, tmp_path, capsys):
    """Pixels go with τ as the model itself draws them; attributes and latents do not move."""
    words = ["--ckpt_path", str(checkpoint), "--size", "3", "--npz"]
    do = ["--do", "thickness=4"]
    for question, more in (("sample", []), ("intervene", do)):
        drawn = {}
        for temperature in ("0", "0.5", "1"):
            out = tmp_path / question / temperature
            asked = [*words, *more, "--out", str(out), "--temperature", temperature]
            assert main([question, *asked]) == 0
            drawn[temperature] = np.load(out / "answers.npz")
        default = tmp_path / question / "default"
        assert main([question, *words, *more, "--out", str(default)]) == 0
        assert np.array_equal(np.load(default / "answers.npz")["0/image"], drawn["1"]["0/image"])
        assert np.array_equal(drawn["0"]["0/thickness"], drawn["1"]["0/thickness"])
        cold, warm, hot = (drawn[key]["0/image"].astype(float) for key in ("0", "0.5", "1"))
        assert 0 < np.abs(warm - cold).mean() < 0.7 * np.abs(hot - cold).mean()
    assert main(["sample", *words, "--out", str(tmp_path / "n"), "--temperature", "-1"]) != 0
    assert "temperature: expected a number of at least 0" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


def test_questions_repeat_under_a_seed(checkpoint, tmp_path):
    for name in ("a", "b"):
        words = ["sample", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / name)]
        assert main(words) == 0
    assert read(tmp_path / "a") == read(tmp_path / "b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--do", "colour=3", "--index", "0"], "unknown variable 'colour'"),
        (["--do", "thickness=-3", "--index", "0"], r"values in (0, inf), but got -3"),
        (["--do", "thickness=nan", "--index", "0"], "cannot read 'thickness=nan'"),
        (["--do", "thickness", "--index", "0"], "expected variable=number"),
        (["--do", "intensity=300", "--index", "0"], "values in (64, 255), but got 300"),
        (["--do", "thickness=3", "--index", "20"], "rows from 0 to 19"),
        (["--do", "thickness=3", "--index", "-1"], "rows from 0 to 19"),
        (["--do", "thickness=3", "--index", "0", "--num_particles", "0"], "num_particles"),
        (["--do", "thickness=3", "--index", "0", "--resample", "1"], "resample"),
        (["--do", "thickness=3", "--index", "0", "--resample", "1" + "0" * 12], "needs at least"),
        (["--do", "thickness=3", "--index", "0", "--seed", "99999999999999999999"], "seed"),
        (["--do", "thickness=3", "--index", "0", "--data.root", "x"], "has no root"),
        (
            ["--do", "thickness=3", "--observations", "none.csv"],
            "none.csv is missing, or not a file",
        ),
    ],
)
def test_bad_questions_are_answered_with_what_is_wrong(
    checkpoint, tmp_path, capsys, words, message
):
    out = tmp_path / "answers"
    common = ["counterfactual", "--ckpt_path", str(checkpoint), "--out", str(out)]
    assert main([*common, *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("thickness,image\n1,a.png", "intensity is missing"),
        ("thickness,intensity,image\n", "should have a row for each observation, but has none"),
        ("thickness,intensity,image\n1,100,none.png", "there is no image"),
        ("thickness,intensity,image\n1,bright,a.png", "line 2, intensity: expected a number"),
        ("thickness,intensity,image\n1,100,b.png", "8×8 pixels (width × height), but"),
        ("thickness,intensity,image\n1,100,t.csv", "is no image"),
        ("thickness,intensity,image\n0,100,a.png", "in (0, inf), but got 0"),
    ],
)
def test_bad_observations_are_named(checkpoint, tmp_path, capsys, table, message):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "t.csv").write_text(table)
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "thickness=3"]
    files = ["--observations", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")]
    assert main([*words, *files]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_folder_is_never_overwritten(checkpoint, tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    words = ["sample", "--ckpt_path", str(checkpoint), "--out"]
    assert main([*words, str(tmp_path)]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "mine"
    assert main([*words, str(tmp_path / "precious" / "below")]) == 1
    assert "cannot be written" in capsys.readouterr().err


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def write_bad_checkpoint(kind: str, path: Path, good: Path) -> None:
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "foreign":
        torch.save({"state_dict": {}, "hyper_parameters": {"layers": 3}}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious()))
    elif kind == "hostile":
        torch.save({**torch.load(good, weights_only=True), "extra": Malicious()}, path)
    elif kind in ("hostile settings", "hostile instantiator"):
        checkpoint = torch.load(good, weights_only=True)
        command = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "executed"]}}
        if kind == "hostile settings":
            checkpoint["hyper_parameters"]["mechanisms"]["image"] = command
        else:
            checkpoint["data"] = command
        torch.save(checkpoint, path)
    elif kind == "hostile text":
        checkpoint = torch.load(good, weights_only=True)
        checkpoint["hyper_parameters"]["optimizer"] = "os.abort"
        torch.save(checkpoint, path)
    elif kind == "other sizes":
        checkpoint = torch.load(good, weights_only=True)
        checkpoint["hyper_parameters"]["mechanisms"]["image"]["init_args"]["latent"] = 5
        torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no file"),
        ("truncated", "truncated or no checkpoint"),
        ("empty", "truncated or no checkpoint"),
        ("text", "refused"),
        ("foreign", "another kind of model"),
        ("tensor", "no checkpoint of a model"),
        ("pickle", "refused"),
        ("hostile", "refused"),
        ("hostile settings", "'subprocess.Popen' is refused"),
        ("hostile instantiator", "'subprocess.Popen' is refused"),
        ("hostile text", "expected a class with its arguments, but got 'os.abort'"),
        ("other sizes", "does not fit"),
    ],
)
@pytest.mark.parametrize("command", ["counterfactual", "test"])
def test_bad_checkpoints_are_refused_and_never_run(
    checkpoint, tmp_path, monkeypatch, capsys, kind, message, command
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.ckpt"
    write_bad_checkpoint(kind, path, checkpoint)
    words = [command, "--ckpt_path", str(path)]
    if command == "counterfactual":
        words += ["--do", "thickness=3", "--index", "0", "--out", str(tmp_path / "out")]
    if command == "counterfactual" and kind == "hostile text":  # a question needs no optimiser
        assert main(words) == 0
        return
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("executed").exists()
    assert not (tmp_path / "out").exists()


def test_graph_is_drawn(tmp_path, capsys):
    configuration = write_configuration(tmp_path)
    for suffix in ("svg", "png"):
        out = tmp_path / f"graph.{suffix}"
        assert main(["graph", "--config", str(configuration), "--out", str(out)]) == 0
        assert out.stat().st_size > 1000
    assert "<svg" in (tmp_path / "graph.svg").read_text()
    assert main(["graph", "--edges", "a -> a", "--out", str(tmp_path / "x.svg")]) == 1
    assert "its own parent" in capsys.readouterr().err
    assert main(["graph", "--edges", "a -> b", "--out", str(tmp_path / "x.gif")]) == 1
    assert ".png" in capsys.readouterr().err
    assert main(["graph", "--config", str(tmp_path / "no.yaml")]) == 1
    (tmp_path / "other.yaml").write_text("a: 1")
    assert main(["graph", "--config", str(tmp_path / "other.yaml")]) == 1
    assert "no entry model.graph" in capsys.readouterr().err


def test_slices_as_nifti_come_back_through_the_program(checkpoint, tmp_path, capsys):
    """Without a place they lie as axial slices of 1 mm; what was written is read again."""
    out = tmp_path / "a"
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--format", "nifti"]
    do = ["--do", "thickness+=0"]
    assert main([*words, *do, "--index", "4", "--out", str(out)]) == 0
    assert "voxels of 1 mm" in capsys.readouterr().out
    rows = read(out)
    image = nibabel.load(out / rows[0]["image"])
    assert image.shape == (8, 8, 1)
    expected = draw(20, seed=2)["image"][4, 0].numpy()
    assert np.array_equal(np.asarray(image.dataobj)[..., 0], expected)
    assert nibabel.load(out / rows[1]["image_difference"]).get_fdata().any() == 0
    table = out / "mine.csv"
    table.write_text((out / "answers.csv").read_text())
    again = tmp_path / "b"
    assert main([*words, *do, "--observations", str(table), "--out", str(again)]) == 0
    assert "voxels of 1 mm" not in capsys.readouterr().out
    for row in read(again):
        found = nibabel.load(again / row["image"])
        assert np.array_equal(np.asarray(found.dataobj)[..., 0], expected)
        assert np.array_equal(found.affine, image.affine)
