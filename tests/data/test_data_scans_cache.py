"""Prepared images are kept on disk: whole or not at all, reused, and read as they are needed."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from started import Forked

from deepscm_pl.data.scans import cache, preprocessing
from deepscm_pl.data.scans.preprocessing import Preprocessing

from scan_folders import make, picture, write_folder, write_picture, write_table

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def reads(monkeypatch):
    """The files that are read."""
    paths = []
    read = preprocessing.read_scan

    def recorded(path, *settings):
        paths.append(path.name)
        return read(path, *settings)

    monkeypatch.setattr(preprocessing, "read_scan", recorded)
    return paths


def images(root, **settings):
    return make(root, **settings).variables("train")["image"]


def test_images_are_prepared_once(tmp_path, reads):
    rows = write_folder(tmp_path)
    first = images(tmp_path)
    assert len(set(reads)) == 10
    reads.clear()
    write_table(tmp_path, [{**row, "age": row["age"] + 1} for row in rows])
    assert torch.equal(images(tmp_path), first)
    assert reads == []


def test_prepare_data_leaves_nothing_to_setup(tmp_path, reads):
    write_folder(tmp_path)
    make(tmp_path).prepare_data()
    reads.clear()
    make(tmp_path).setup("fit")
    assert reads == []


@pytest.mark.parametrize("change", ["time", "content", "settings", "order"])
def test_what_changes_is_prepared_anew(tmp_path, reads, change):
    rows = write_folder(tmp_path)
    images(tmp_path)
    reads.clear()
    settings = {}
    path = tmp_path / "0003.png"
    if change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    elif change == "content":
        stamp = path.stat()
        write_picture(path, picture(77))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif change == "settings":
        settings = {"shape": [8, 8]}
    else:
        write_table(tmp_path, [rows[1], rows[0], *rows[2:]])
    found = images(tmp_path, **settings)
    assert len(set(reads)) == 10
    if change == "content":
        assert np.array_equal(found[3, 0], picture(77))
    if change == "order":
        assert np.array_equal(found[0, 0], picture(1))


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_what_is_mapped_and_what_is_held_is_the_same(tmp_path, memory):
    write_folder(tmp_path)
    data = make(tmp_path, memory=memory)
    for split, seeds in (("train", range(6)), ("validation", (6, 7)), ("test", (8, 9))):
        expected = torch.from_numpy(np.stack([picture(seed)[None] for seed in seeds]))
        assert torch.equal(data.variables(split)["image"], expected)
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].dtype == torch.float32
    assert torch.equal(batch["image"], expected.float())


def test_splits_are_views_of_one_file(tmp_path):
    write_folder(tmp_path)
    data = make(tmp_path, memory=0)
    starts = [data.variables(s)["image"].data_ptr() for s in ("train", "validation", "test")]
    size = 16 * 18
    assert [start - starts[0] for start in starts] == [0, 6 * size, 8 * size]


def test_several_workers_write_the_same(tmp_path):
    write_folder(tmp_path)
    one = images(tmp_path)
    two = images(tmp_path, cache_dir=tmp_path / "other", workers=2)
    assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["images.npy", "affines.npy", "headers.npy"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_broken_cache_is_made_again(tmp_path, reads, name, kept):
    write_folder(tmp_path)
    expected = images(tmp_path)
    (folder,) = (tmp_path / "cache").iterdir()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:kept])
    reads.clear()
    assert torch.equal(images(tmp_path), expected)
    assert len(reads) > 0


def test_a_cache_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    write_folder(tmp_path)
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    images(tmp_path)
    (folder,) = (tmp_path / "cache").iterdir()
    assert set(sizes) >= {each.stat().st_size for each in folder.iterdir()}


def test_a_failure_leaves_nothing(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "0007.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"images: .*0007.png cannot be read"):
        images(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    write_folder(tmp_path)
    for number in (0, 3, 7):
        (tmp_path / f"{number:04d}.png").write_bytes(b"no picture")
    problems = r"0000.png cannot .* 2 more files have problems: 0003.png, 0007.png\.$"
    with pytest.raises(ValueError, match=problems):
        images(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("right", [0, 1])
def test_settings_that_fit_no_file_are_noticed_after_a_few(tmp_path, reads, right):
    write_folder(tmp_path, size=80)
    for number in range(right, 80):
        write_picture(tmp_path / f"{number:04d}.png", picture(number).astype(np.uint16) * 200)
    problems = r"normalisation: none takes .* At least 9 more files have problems: 00"
    with pytest.raises(ValueError, match=problems):
        images(tmp_path)
    assert len(reads) <= 33  # workers take some at a time


def die_at(root, number):
    """Prepare images, and be killed at one of them."""
    prepare = Preprocessing.__call__

    def deadly(self, path, slicing):
        if path.name == f"{number:04d}.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return prepare(self, path, slicing)

    Preprocessing.__call__ = deadly
    make(root).prepare_data()


def test_what_a_killed_process_left_is_removed(tmp_path):
    write_folder(tmp_path)
    killed = FORK.Process(target=die_at, args=(tmp_path, 5))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    (leftover,) = (tmp_path / "cache").iterdir()
    assert leftover.name.endswith(".partial")
    assert np.array_equal(images(tmp_path)[5, 0], picture(5))
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder.name.startswith("scans-")


def test_what_a_living_process_writes_stays(tmp_path):
    write_folder(tmp_path)
    written = tmp_path / "cache" / ".scans-x.y.partial"
    written.mkdir(parents=True)
    with (written / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        images(tmp_path)
        assert written.is_dir()


def test_the_quicker_of_two_wins(tmp_path, monkeypatch):
    write_folder(tmp_path)
    fill, folders = cache._write_all, []

    def slow(folder, *rest):
        fill(folder, *rest)
        if not folders:
            folders.append(folder)
            images(tmp_path)

    monkeypatch.setattr(cache, "_write_all", slow)
    assert np.array_equal(images(tmp_path)[5, 0], picture(5))
    (folder,) = (tmp_path / "cache").iterdir()
    names = {"images.npy", "affines.npy", "headers.npy", "notes.json"}
    assert {path.name for path in folder.iterdir()} == names


def prepare_at_once(root, barrier, results):
    barrier.wait()
    found = images(root)
    results.put(int(found.long().sum()))


def test_processes_prepare_at_once(tmp_path):
    write_folder(tmp_path, size=40)
    barrier, results = FORK.Barrier(4), FORK.Queue()
    processes = [
        FORK.Process(target=prepare_at_once, args=(tmp_path, barrier, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [int(images(tmp_path).long().sum())] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("below", ["", "cache"])
def test_a_cache_folder_that_cannot_be_written(tmp_path, below):
    write_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache.folder: .*file.* cannot be written"):
        images(tmp_path, cache_dir=tmp_path / "file" / below)


def fill_the_disk(root, results):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        images(root)
    except ValueError as error:
        results.put((str(error), len(list((root / "cache").iterdir()))))


def test_a_full_disk(tmp_path):
    write_folder(tmp_path)
    results = FORK.Queue()
    process = FORK.Process(target=fill_the_disk, args=(tmp_path, results))
    process.start()
    message, left = results.get(timeout=60)
    process.join()
    assert "cache.folder:" in message
    assert "cannot be written (" in message
    assert left == 0


PROGRAM = """
import ctypes, resource, sys
from pathlib import Path

import numpy, pandas, PIL.Image, torch  # so that what every program allocates is there
import pytorch_lightning
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.training import DeepSCM
from scan_folders import make

# So that glibc gives back at once what is freed.
ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD
root, memory = Path(sys.argv[1]), float(sys.argv[2])
data = make(root, images="{eid}.npy", memory=memory, batch_size=2)
torch.zeros(2**24).sum()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limit = int(status["VmData"].split()[0]) * 1024 + 80 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
data.prepare_data()
data.setup("fit")
total = 0
for split in ("train", "validation", "test"):
    total += int(data.variables(split)["image"].numpy().sum(dtype=numpy.int64))
for batches in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
    for batch in batches:
        total -= int(batch["image"].sum(dtype=torch.float64))
print("differing by", total)

class Seen(pytorch_lightning.Callback):
    # All images that a training gets, added up.

    total = 0

    def on_train_batch_start(self, trainer, module, batch, number):
        self.total += int(batch["image"].numpy().sum(dtype=numpy.int64))

    def on_validation_batch_start(self, trainer, module, batch, number, dataloader_idx=0):
        self.on_train_batch_start(trainer, module, batch, number)

    on_test_batch_start = on_validation_batch_start

seen = Seen()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = pytorch_lightning.Trainer(
    max_epochs=1, accelerator="cpu", num_sanity_val_steps=0, callbacks=[seen], **quiet
)
model = DeepSCM("age", {"age": AffineFlow})
trainer.fit(model, datamodule=data)
trainer.test(model, datamodule=data)
for split in ("train", "validation", "test"):
    seen.total -= int(data.variables(split)["image"].numpy().sum(dtype=numpy.int64))
print("trained on images that differ by", seen.total)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_images_may_be_larger_than_the_memory_that_there_is(tmp_path):
    """192 MiB of images, and a limit of 80 MiB on what is neither shared nor a file."""
    rows = write_folder(tmp_path, size=128)
    block = np.random.default_rng(0).integers(0, 256, (96, 128, 128), dtype=np.uint8)
    for number, row in enumerate(rows):
        np.save(tmp_path / f"{row['eid']}.npy", np.roll(block, number))
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    program = str(tmp_path / "program.py")
    little, much = (
        Forked(program, str(tmp_path), memory, apart=True).wait() for memory in ("0.1", "1")
    )
    _, printed, errors = little
    assert "differing by 0\n" in printed, errors
    assert "images that differ by 0\n" in printed, errors
    code, _, errors = much
    assert code != 0
    assert "MemoryError" in errors or "allocate" in errors
