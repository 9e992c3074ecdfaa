"""The truth over many images: as of the world, on any number of processes, kept on disk."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.data import (
    DigitsDataModule,
    MorphoMNISTDataModule,
    ThicknessIntensityFallingWorld,
    ThicknessIntensityWorld,
    measure_attributes,
    render_truth,
    write_attributes,
    write_idx,
)
from deepscm_pl.data.parallel import map_rows

from tiny import TinyDataModule

WORLD = ThicknessIntensityWorld()


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    """More than one chunk of strokes."""
    images = np.zeros((70, 28, 28), dtype=np.uint8)
    for row, image in enumerate(images):
        image[4:24, 8 : 11 + row % 8] = 255
    return images


@pytest.fixture(scope="module")
def attributes() -> dict[str, np.ndarray]:
    return WORLD.sample(70, np.random.default_rng(0))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the chunks whose shapes are drawn."""
    sizes: list[int] = []
    renderer = type(ThicknessIntensityWorld().renderer)
    shape = renderer.shape

    def count(self, images, attributes):
        sizes.append(len(images))
        return shape(self, images, attributes)

    monkeypatch.setattr(renderer, "shape", count)
    return sizes


def render(originals, attributes, world=WORLD, **options):
    return render_truth(world, originals, attributes, workers=1, progress=False, **options)


def test_the_truth_is_that_of_the_world(originals, attributes) -> None:
    expected = WORLD.render(originals, attributes)
    for workers in (1, 2):
        drawn = render_truth(WORLD, originals, attributes, workers=workers, progress=False)
        np.testing.assert_array_equal(drawn, expected)
        found = measure_attributes(WORLD, drawn, workers=workers, progress=False)
        for name, column in WORLD.measure(expected).items():
            np.testing.assert_array_equal(found[name], column)


def test_shapes_are_drawn_once(originals, attributes, counted, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    first = render(originals, attributes, cache_dir=cache)
    assert sum(counted) == 70
    np.testing.assert_array_equal(render(originals, attributes, cache_dir=cache), first)
    darker = {**attributes, "intensity": attributes["intensity"] / 2}
    found = render(originals, darker, cache_dir=cache)
    assert sum(counted) == 70
    np.testing.assert_array_equal(found, render(originals, darker))
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("what", ["originals", "thickness", "world"])
def test_other_shapes_are_drawn_anew(what: str, originals, attributes, counted, tmp_path) -> None:
    render(originals, attributes, cache_dir=tmp_path)
    world = ThicknessIntensityFallingWorld() if what == "world" else WORLD
    if what == "originals":
        originals = originals.copy()
        originals[3, 5, 5] += 1
    if what == "thickness":
        attributes = {**attributes, "thickness": attributes["thickness"] + 1e-9}
    found = render(originals, attributes, world, cache_dir=tmp_path)
    assert sum(counted) == 140
    np.testing.assert_array_equal(found, world.render(originals, attributes))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped", "other"])
def test_a_broken_cache_is_drawn_again(
    damage: str, originals, attributes, counted, tmp_path
) -> None:
    first = render(originals, attributes, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "other":
        write_idx(path, first[:5])
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 255
        broken = {"truncated": content[:-9], "empty": b"", "text": b"text", "flipped": flipped}
        path.write_bytes(broken[damage])
    np.testing.assert_array_equal(render(originals, attributes, cache_dir=tmp_path), first)
    assert sum(counted) == 140
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_no_error(originals, attributes, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    found = render(originals, attributes, cache_dir=tmp_path / "file")
    np.testing.assert_array_equal(found, render(originals, attributes))


def test_progress_is_shown_on_a_terminal(originals, attributes, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    render_truth(WORLD, originals, attributes, workers=1)
    measure_attributes(WORLD, originals, workers=1)
    shown = capsys.readouterr().err
    assert "rendering" in shown
    assert "measuring" in shown
    assert "70/70" in shown


def test_broken_arguments(originals, attributes) -> None:
    with pytest.raises(ValueError, match="workers: expected a whole number from 1 to"):
        render_truth(WORLD, originals, attributes, workers=0)
    with pytest.raises(ValueError, match="each of the 69 originals, but got 70"):
        render(originals[:69], attributes)
    with pytest.raises(ValueError, match="at least one row"):
        map_rows(np.negative, [np.zeros(0)], workers=1, progress=False)
    with pytest.raises(ValueError, match=r"images must be of shape \(N, H, W\)"):
        measure_attributes(WORLD, originals[:, None], workers=1, progress=False)


def test_a_failure_of_a_worker_is_raised(originals) -> None:
    with pytest.raises(ValueError, match=r"image must be of shape|images must be of shape"):
        measure_attributes(WORLD, originals[:, None], workers=2, progress=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DigitsDataModule:
    return DigitsDataModule(cache_dir=tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_originals_of_digits_give_their_images(digits: DigitsDataModule, split: str) -> None:
    variables, originals = digits.variables(split), digits.originals(split)
    columns = {name: variables[name].squeeze(-1).numpy() for name in digits.world.attributes}
    rows = slice(0, 40)
    drawn = digits.world.render(
        originals[rows], {name: column[rows] for name, column in columns.items()}
    )
    assert len(originals) == len(variables["image"])
    np.testing.assert_array_equal(drawn, variables["image"].squeeze(1).numpy()[rows])


def test_a_data_module_need_not_know_its_world() -> None:
    data = TinyDataModule()
    assert data.world is None
    with pytest.raises(ValueError, match="TinyDataModule has no originals"):
        data.originals("test")


@pytest.fixture
def root(tmp_path: Path, originals, attributes) -> Path:
    """A folder as it was made before worlds and originals were kept."""
    table = {name: column.astype(np.float32) for name, column in attributes.items()}
    for prefix, size in (("train", 40), ("t10k", 30)):
        part = {name: column[:size] for name, column in table.items()}
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", WORLD.render(originals[:size], part))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.zeros(size, np.uint8))
        write_attributes(tmp_path / f"{prefix}-morpho.csv", part)
    return tmp_path


def test_a_folder_without_originals(root: Path) -> None:
    data = MorphoMNISTDataModule(root, validation_size=5)
    assert data.world == ThicknessIntensityWorld()
    assert len(data.variables("test")["image"]) == 30
    with pytest.raises(ValueError, match=r"t10k-originals.*deepscm data morphomnist"):
        data.originals("test")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_originals_give_their_images(root: Path, originals, split: str) -> None:
    for prefix, size in (("train", 40), ("t10k", 30)):
        write_idx(root / f"{prefix}-originals-idx3-ubyte.gz", originals[:size])
    data = MorphoMNISTDataModule(root, validation_size=5, split_seed=1)
    variables = data.variables(split)
    drawn = data.world.render(
        data.originals(split), {name: variables[name][:, 0] for name in data.world.attributes}
    )
    np.testing.assert_array_equal(drawn, variables["image"].squeeze(1).numpy())


def test_originals_of_another_data_set(root: Path, originals) -> None:
    write_idx(root / "train-originals-idx3-ubyte.gz", originals[:39])
    with pytest.raises(ValueError, match=r"each of the 40 images .* but got 39"):
        MorphoMNISTDataModule(root, validation_size=5).originals("validation")


def test_broken_world_of_a_folder(root: Path) -> None:
    (root / "world.json").write_text("{")
    data = MorphoMNISTDataModule(root, validation_size=5)
    with pytest.raises(ValueError, match=r"world.json should describe a world"):
        data.setup()


def test_rendering_is_fast(originals, attributes) -> None:
    start = time.process_time()
    render(originals, attributes)
    assert (time.process_time() - start) / len(originals) < 0.02


def test_a_plain_script_may_use_several_processes(tmp_path):
    """Workers do not import the script that started them, so it needs no guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from deepscm_pl.data.parallel import map_rows\n"
        "print(map_rows(np.add, [np.arange(200), np.ones(200)], 2, progress=False).sum())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "20100.0", done.stderr
