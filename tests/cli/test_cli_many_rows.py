"""Questions about more observations than are answered at a time."""

from __future__ import annotations

import csv
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl import DeepSCM, StructuralCausalModel
from deepscm_pl.cli import answers, batches, main, observations
from deepscm_pl.cli.answers import GrowingArrays
from deepscm_pl.cli.moments import Moments
from deepscm_pl.scm import summarise

from tiny import draw


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(folder: Path, rows: list[dict[str, str]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / row["image"])) for row in rows])


def numbers(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    names = ("observation", "intervention", "particle", "thickness", "intensity")
    return [tuple(row[name] for name in names) for row in rows]


@pytest.fixture
def four_at_a_time(monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_ROWS", 4)


@pytest.fixture
def ask(checkpoint, tmp_path):
    """Asks a question; its folder."""

    def run(name: str, question: str, *words: str) -> Path:
        out = tmp_path / name
        assert main([question, "--ckpt_path", str(checkpoint), "--out", str(out), *words]) == 0
        return out

    return run


def write_table(folder: Path, count: int) -> Path:
    values = draw(count, seed=9)
    lines = ["thickness,intensity,image"]
    for k in range(count):
        Image.fromarray(values["image"][k, 0].numpy()).save(folder / f"{k}.png")
        lines.append(f"{values['thickness'][k].item()},{values['intensity'][k].item()},{k}.png")
    (folder / "mine.csv").write_text("\n".join(lines))
    return folder / "mine.csv"


@pytest.fixture
def spied(monkeypatch):
    """The sizes of the batches that are answered, and how many answers were alive beside each."""
    sizes, alive, known = [], [], []
    answer = StructuralCausalModel.counterfactual

    def counterfactual(scm, factual, do, num_particles=1, resample=None):
        gc.collect()
        alive.append(sum(reference() is not None for reference in known))
        found = answer(scm, factual, do, num_particles, resample)
        sizes.append((len(factual["image"]), num_particles))
        known.append(weakref.ref(found["image"].untyped_storage()))
        known.append(weakref.ref(factual["image"].untyped_storage()))
        return found

    monkeypatch.setattr(StructuralCausalModel, "counterfactual", counterfactual)
    return sizes, alive


def test_one_batch_is_in_memory(ask, tmp_path, spied, four_at_a_time, monkeypatch):
    """Images of observations are read when it is their turn, and answers let go once written."""
    opened, sizes_when_opened = [], []
    read_prepared = observations.read_prepared

    def spy(path, *settings):
        opened.append(path)
        sizes_when_opened.append(len(spied[0]))
        return read_prepared(path, *settings)

    monkeypatch.setattr(observations, "read_prepared", spy)
    out = ask(
        "a", "counterfactual", "--observations", str(write_table(tmp_path, 18)), "--do",
        "thickness=3", "intensity=100",
    )  # fmt: skip
    sizes, alive = spied
    assert sizes == [(4, None)] * 5
    assert max(alive) <= 2, "the answers of a batch and its observations, while the next is read"
    assert sizes_when_opened == [k // 4 for k in range(18)]
    rows = read(out)
    assert [row["intervention"] for row in rows[::18]] == [
        "factual",
        "do(thickness = 3)",
        "do(intensity = 100)",
    ]
    assert [row["observation"] for row in rows] == [f"mine.csv {k}" for k in range(18)] * 3
    assert np.array_equal(pixels(out, rows[:18]), draw(18, seed=9)["image"][:, 0].numpy())
    assert len(list((out / "images").iterdir())) == 3 * 18
    assert not list(out.glob(".*"))


def test_few_rows_are_drawn_at_once(ask, checkpoint):
    """As by one call of the model under the seed."""
    out = ask(
        "a", "counterfactual", "--index", "3", "5", "--do", "thickness=3", "--npz",
        "--seed", "7", "--num_particles", "2",
    )  # fmt: skip
    scm = DeepSCM.load_from_checkpoint(checkpoint).scm
    factual = {name: draw(20, seed=2)[name][[3, 5]].float() for name in scm.graph.nodes}
    torch.manual_seed(7)
    with torch.no_grad():
        answers = scm.counterfactual(factual, [{"thickness": 3.0}], 2)
    arrays = np.load(out / "answers.npz")
    for name in scm.graph.nodes:
        assert np.array_equal(arrays[f"1/{name}"], answers[name][:, 0].numpy())


@pytest.mark.parametrize("particles", ["1", "3"])
def test_an_answer_does_not_depend_on_how_many_follow(ask, four_at_a_time, particles):
    """The last batch is drawn as if it were full; and other batches draw other noise."""
    do = ["--do", "thickness=3", "--num_particles", particles, "--index"]
    some = ask("some", "counterfactual", *do, *["7"] * 6)
    more = ask("more", "counterfactual", *do, *["7"] * 11)
    short, long = read(some), [row for row in read(more) if int(_number(row)) < 6]
    assert numbers(short) == numbers(long)
    assert np.array_equal(pixels(some, short), pixels(more, long))
    drawn = pixels(some, short[6 :: int(particles)])
    assert len(np.unique(drawn, axis=0)) == 6


def _number(row: dict[str, str]) -> str:
    """The number of an observation, from the name of the file of its image."""
    return row["image"].split("-")[1]


def test_a_draw_does_not_depend_on_how_many_follow(ask, four_at_a_time):
    some, more = (ask(size, "sample", "--size", size) for size in ("6", "11"))
    short, long = read(some), read(more)
    assert numbers(short) == numbers(long[:6])
    assert np.array_equal(pixels(some, short), pixels(more, long[:6]))
    assert len({row["thickness"] for row in long}) == 11


def test_particles_are_drawn_some_at_a_time(ask, monkeypatch, spied):
    """Those of one observation; numbers, arrays and pictures are as if drawn at once."""
    monkeypatch.setattr(batches, "_BATCH_NUMBERS", 66 * 2 * 2)
    out = ask(
        "a", "counterfactual", "--index", "3", "5", "--do", "thickness=3", "--npz",
        "--num_particles", "5",
    )  # fmt: skip
    assert spied[0] == [(1, 2), (1, 2), (1, 1)] * 2
    rows = [row for row in read(out) if row["intervention"] != "factual"]
    assert [row["particle"] for row in rows] == list("01234") * 2
    arrays = np.load(out / "answers.npz")
    assert arrays["0/image"].shape == (1, 2, 1, 8, 8)
    images = arrays["1/image"].swapaxes(0, 1).reshape(10, 8, 8)
    assert np.array_equal(pixels(out, rows), images.round())
    assert len(np.unique(images, axis=0)) == 10
    assert (out / "image-deviation.png").is_file()


def test_moments_of_parts_are_those_of_all():
    values = torch.randn(7, 3, 1, dtype=torch.float64)
    merged = Moments.of(values[:2]).merge(Moments.of(values[2:3])).merge(Moments.of(values[3:]))
    mean, deviation = summarise(values)
    torch.testing.assert_close(merged.mean, mean)
    torch.testing.assert_close(merged.deviation, deviation)
    assert merged.count == 7


def test_pictures_show_the_first(ask, capsys, monkeypatch):
    """And the output says so."""
    monkeypatch.setattr(answers, "_MAX_ROWS", 2)
    monkeypatch.setattr(answers, "_MAX_COLUMNS", 3)
    interventions = ["thickness=2", "thickness=3", "thickness=4"]
    out = ask("a", "counterfactual", "--index", "1", "2", "3", "--do", *interventions)
    printed = capsys.readouterr().out
    assert "image.png, the first 2 of 3 observations and the first 3 of 4 columns" in printed
    assert len(read(out)) == 3 * 4
    few = ask("b", "counterfactual", "--index", "1", "2", "--do", *interventions[:2])
    assert "the first" not in capsys.readouterr().out
    sizes = [Image.open(folder / "image.png").size for folder in (out, few)]
    assert sizes[0] == sizes[1]


def test_a_missing_image_is_named_before_any_answer(
    checkpoint, tmp_path, spied, capsys, four_at_a_time
):
    table = write_table(tmp_path, 9)
    (tmp_path / "8.png").unlink()
    assert _ask_of(checkpoint, table) == 1
    assert "line 10, image: there is no image" in capsys.readouterr().err
    assert spied[0] == []
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "8.png")
    assert _ask_of(checkpoint, table) == 1
    assert "line 10, image: expected an image of 8×8" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    lines = table.read_text().splitlines()
    lines[9] = "-1" + lines[9][lines[9].index(",") :]
    table.write_text("\n".join(lines))
    spied[0].clear()
    assert _ask_of(checkpoint, table) == 1
    assert "line 10, thickness: expected values in (0, inf), but got -1" in capsys.readouterr().err
    assert spied[0] == []


@pytest.mark.parametrize("content", [b"thickness,intensity,image\n\x00\x01,1,a", b"a" * 200_000])
def test_what_is_no_table_is_named(checkpoint, tmp_path, capsys, content):
    (tmp_path / "mine.csv").write_bytes(content)
    assert _ask_of(checkpoint, tmp_path / "mine.csv") == 1
    assert "is no table" in capsys.readouterr().err


def _ask_of(checkpoint: Path, table: Path) -> int:
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "thickness=3"]
    return main([*words, "--observations", str(table), "--out", str(table.parent / "out")])


def test_arrays_grow(tmp_path):
    """By observations, or by the particles of one; of any type and shape."""
    (tmp_path / "parts").mkdir()
    arrays = GrowingArrays(tmp_path / "parts")
    values = np.arange(60.0).reshape(3, 5, 4)
    for start in (0, 2, 4):
        arrays.append("a", values[:, start : start + 2], 3)
    for row in range(5):
        arrays.append("b", values[:2, row : row + 1].astype(np.int16), 3)
        arrays.append("b", values[2:, row : row + 1].astype(np.int16), 3)
    arrays.write(tmp_path / "x.npz", titles=np.array(["one"]))
    found = np.load(tmp_path / "x.npz")
    assert list(found) == ["titles", "a", "b"]
    assert np.array_equal(found["a"], values)
    assert np.array_equal(found["b"], values)
    assert found["b"].dtype == np.int16
    assert not list((tmp_path / "parts").iterdir())
