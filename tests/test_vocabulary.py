"""Domains, interventions as text, configurations as plain data, and files."""

from __future__ import annotations

import os
import stat
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deepscm_pl.configuration import describe, restore
from deepscm_pl.files import new_file, new_folder, replaced_folder
from deepscm_pl.interventions import (
    Increase,
    Multiply,
    format_do,
    parse_do,
)
from deepscm_pl.variables import Domain, Variable


@pytest.mark.parametrize(
    ("text", "expected", "title"),
    [
        ("t=3", {"t": 3.0}, "do(t = 3)"),
        (" t = -3.5e1 ", {"t": -35.0}, "do(t = -35)"),
        ("t+=1,i=.5", {"t": Increase(1.0), "i": 0.5}, "do(t + 1, i = 0.5)"),
        ("t-=1", {"t": Increase(-1.0)}, "do(t − 1)"),
        ("t*=2", {"t": Multiply(2.0)}, "do(t × 2)"),
        ("s=male", {"s": 1.0}, "do(s = male)"),
        ("s = former smoker , t=3", {"s": 2.0, "t": 3.0}, "do(s = former smoker, t = 3)"),
    ],
)
def test_interventions_are_parsed_and_formatted(text, expected, title):
    variables = {name: Variable(name) for name in "ti"}
    variables["s"] = Variable("s", classes=("female", "male", "former smoker"))
    assert parse_do(text, variables) == expected
    assert format_do(parse_do(text, variables), variables) == title


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t",
        "t=",
        "=3",
        "t==3",
        "t=3 i=2",
        "t=nan",
        "t=-inf",
        "t+=male",
        "t=3,t=4",
        "t=a,t=b",
        "t/=2",
    ],
)
def test_unreadable_interventions_are_refused(text):
    with pytest.raises(ValueError, match=r"^do(\(t\))?: "):
        parse_do(text)


@pytest.mark.parametrize(
    ("text", "names", "index", "title"),
    [
        ("s=male", ("female", "male"), 1.0, "do(s = male)"),
        ("s=0", ("female", "male"), 0.0, "do(s = female)"),
        ("s=2", ("1", "2"), 1.0, "do(s = 2)"),
        ("s=1.0", ("1", "2"), 0.0, "do(s = 1)"),
        ("s=0", ("0", "1"), 0.0, "do(s = 0)"),
        ("s=1", (), 1.0, "do(s = 1)"),
    ],
)
def test_class_names_become_indices(text, names, index, title):
    variables = {"s": Variable("s", classes=names)}
    do = parse_do(text, variables)
    assert do == {"s": index}
    assert format_do(do, variables) == title


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("s=mail", ("female", "male")),
        ("s=2", ("female", "male")),
        ("s=0", ("1", "2")),
        ("s=0.5", ("female", "male")),
        ("s=male", ()),
    ],
)
def test_unknown_classes_are_refused(text, names):
    with pytest.raises(ValueError, match=r"do\(s\): expected "):
        parse_do(text, {"s": Variable("s", classes=names)})


def test_functions_of_interventions():
    value = torch.tensor([2.0])
    assert Increase(1.5)(value).item() == 3.5
    assert Multiply(-2.0)(value).item() == -4


@pytest.mark.parametrize(
    ("domain", "good", "bad"),
    [
        (Domain(), [-1e9, 0.0], [float("inf"), float("nan")]),
        (Domain(lower=0, open=True), [1e-9], [0.0, -1.0]),
        (Domain(lower=0, upper=1), [0.0, 1.0], [1.1, -0.1]),
        (Domain(categories=3), [0.0, 2.0], [3.0, -1.0, 0.5]),
    ],
)
def test_domains(domain, good, bad):
    for value in good:
        domain.check("x", torch.tensor([[value]]))
    for value in bad:
        with pytest.raises(ValueError, match="x: expected"):
            domain.check("x", torch.tensor([[value]]))
    assert domain.features == (3 if domain.categories else 1)


def test_domain_of_images():
    domain = Domain(shape=(1, 4, 5))
    assert domain.features == 20
    assert domain.batch_shape(torch.zeros(2, 3, 1, 4, 5)) == (2, 3)
    with pytest.raises(ValueError, match=r"\(\*batch, 1, 4, 5\), but got \(2, 4, 5\)"):
        domain.check("image", torch.zeros(2, 4, 5))


def test_descriptions_round_trip():
    factory = partial(torch.nn.Linear, bias=False)
    description = describe({"net": factory, "rates": (1, 2.5), "name": None})
    assert description["rates"] == [1, 2.5]
    made = restore(description)["net"](2, 3)
    assert isinstance(made, torch.nn.Linear)
    assert made.bias is None
    assert describe(restore(description)) == description


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("os.system", "refused"),
        ("builtins.eval", "refused"),
        ("subprocess.Popen", "refused"),
        ("no_such_package.Thing", "--trust no_such_package"),
        ("torch.nn.Lineer", "cannot import .* no such class"),
        ("torch.nn.no_such_module.Linear", "cannot import"),
        ("plain", "expected the path of a class"),
    ],
)
def test_only_classes_of_models_are_restored(class_path, message):
    with pytest.raises(ValueError, match=message):
        restore({"net": {"class_path": class_path, "init_args": {}}})


@pytest.mark.parametrize("value", [object(), torch.zeros(2), lambda: 3, partial(print, 3)])
def test_objects_that_cannot_be_described_are_refused(value):
    with pytest.raises(ValueError, match="cannot describe"):
        describe({"x": value})


def write_half(context, name):
    with context as temporary:
        (temporary / name if name else temporary).write_text("half")
        raise OSError("disk full")


def test_files_are_complete_or_absent(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(new_file(path), "")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with new_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises(OSError, match="disk full"):
        write_half(new_folder(tmp_path / "folder"), "inside")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_of_new_files(tmp_path, umask):
    path = tmp_path / "file"
    before = os.umask(umask)
    try:
        for _ in range(2):
            with new_file(path) as temporary:
                temporary.unlink()
                os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
            path.chmod(0o600)
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("context", [new_folder, replaced_folder])
def test_folders_have_the_permissions_of_new_folders(tmp_path, context, umask):
    path = tmp_path / "folder"
    before = os.umask(umask)
    try:
        with context(path) as temporary:
            (temporary / "file").write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((path / "file").stat().st_mode) == 0o666 & ~umask


def test_leftovers_of_a_killed_process_do_not_matter(tmp_path):
    path, mine = tmp_path / "file", tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / f".file.{os.getpid()}.partial").symlink_to(mine)
    with new_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert mine.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [path, mine]


def test_a_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []

    def flushed(descriptor):
        seen.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", flushed)
    with new_file(path) as temporary:
        temporary.write_text("content")
    assert seen == [(7, False)]


def fill(path, text, stop=False):
    with replaced_folder(path) as temporary:
        (temporary / "a").write_text(text)
        if stop:
            raise KeyboardInterrupt
        (temporary / "b").write_text(text)


def read(path):
    return {each.name: each.read_text() for each in path.iterdir()}


def test_folders_are_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "below" / "folder"
    with pytest.raises(KeyboardInterrupt):
        fill(path, "first", stop=True)
    assert not path.exists()
    fill(path, "first")
    with pytest.raises(KeyboardInterrupt):
        fill(path, "second", stop=True)
    assert read(path) == {"a": "first", "b": "first"}
    (path / "c").write_text("of the first only")
    fill(path, "second")
    assert read(path) == {"a": "second", "b": "second"}
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_replacement_is_undone(tmp_path):
    """Between the two renames, only the previous folder is complete."""
    path = tmp_path / "folder"
    fill(path, "first")
    path.rename(tmp_path / ".folder.previous")
    leftover = tmp_path / ".folder.x.partial"
    leftover.mkdir()
    with pytest.raises(KeyboardInterrupt):
        fill(path, "second", stop=True)
    assert read(path) == {"a": "first", "b": "first"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("a file")
    with pytest.raises(ValueError, match="is not a folder"):
        fill(path, "x")
    assert path.read_text() == "a file"


def test_domains_contain_the_accepted_values():
    whole = Domain(lower=0, upper=255, whole=True)
    values = torch.tensor([-1.0, 0.0, 0.5, 255.0, 256.0, torch.nan])
    assert whole.contains(values).tolist() == [False, True, False, True, False, False]
    bounded = Domain(lower=0, upper=1, open=True)
    assert bounded.contains(torch.tensor([0.0, 0.5, 1.0])).tolist() == [False, True, False]


def test_integers_that_cannot_be_outside_are_not_read():
    """A data set of images may be mapped from a file that is larger than memory."""

    class Unseen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            raise AssertionError(func)

    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    with Unseen():
        Domain(shape=(1, 4, 4), upper=255, lower=0, whole=True).check("image", images)
    images[1, 0, 2, 2] = 201
    with pytest.raises(ValueError, match=r"whole numbers in \[0, 200\], but got 201"):
        Domain(shape=(1, 4, 4), upper=200, lower=0, whole=True).check("image", images)
    with pytest.raises(ValueError, match="class index from 0 to 2"):
        Domain(categories=3).check("sex", torch.tensor([[3]], dtype=torch.uint8))
