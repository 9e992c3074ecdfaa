"""Sizes that no machine has, and names that no file can have, are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from deepscm_pl import CausalGraph, StructuralCausalModel, memory
from deepscm_pl.cli import batches, main
from deepscm_pl.data import generate
from deepscm_pl.data.parallel import map_rows
from deepscm_pl.memory import format_bytes, require_disk, require_memory
from deepscm_pl.variables import Domain

from tiny import CONFIGURATION

HUGE = "9" * 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "--size", "10000000000"], "size: this needs at least"),
        (["sample", "--size", HUGE], "size: this needs at least"),
        (["counterfactual", "--num_particles", "100000000"], "num_particles: this needs at least"),
        (["counterfactual", "--num_particles", HUGE], "num_particles: this needs at least"),
        (["counterfactual", "--index", HUGE], "index: expected rows from 0 to 19"),
    ],
)
def test_huge_questions_are_refused(checkpoint, tmp_path, capsys, monkeypatch, words, message):
    def taken(*arguments):
        raise AssertionError("nothing is computed")

    monkeypatch.setattr(StructuralCausalModel, "predict", taken)
    monkeypatch.setattr(StructuralCausalModel, "abduct", taken)
    # As of a disk on which ten million images would fit.
    monkeypatch.setattr(memory, "_disk", lambda folder: (4096 * 10**7, 4096, None))
    out = ["--ckpt_path", str(checkpoint), "--out", str(tmp_path / "out")]
    of = ["--index", "0", "--do", "thickness=3"] if words[0] == "counterfactual" else []
    assert main([words[0], *out, *of, *words[1:]]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "10000000000"], "size: this needs at least"),
        (["--size", HUGE], "size: this needs at least"),
        (["--shape", "1000000", "1000000"], "shape: this needs at least"),
        (["--shape", HUGE, "16"], "shape: this needs at least"),
    ],
)
def test_huge_data_sets_are_refused(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr(generate.np, "array", _refuse)
    assert main(["data", "brain", "--out", str(tmp_path / "out"), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def _refuse(*arguments, **settings):
    raise AssertionError("nothing is taken")


def test_data_sets_must_fit_the_disk(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "_disk", lambda folder: (10**6, 4096, None))
    assert main(["data", "brain", "--out", str(tmp_path / "out"), "--size", "1000"]) == 1
    assert "size: this needs at least 4.1 MB on the disk of" in capsys.readouterr().err


def test_workers_must_fit_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    with pytest.raises(ValueError, match=r"workers: this needs at least 8\.05 GB of memory"):
        map_rows(np.add, [np.arange(64 * 100), np.ones(64 * 100)], workers=60, progress=False)


def test_interventions_must_fit_the_memory(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 4000)
    words = ["intervene", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "out")]
    assert main([*words, "--do", "thickness=3", "--size", "1"]) == 0
    assert main([*words, "--do", "thickness=3", "thickness=4"]) == 1
    assert "do: this needs at least" in capsys.readouterr().err


def test_what_the_machine_has(tmp_path, monkeypatch):
    found = memory.available_memory()
    assert found is None or 10**7 < found < 10**15
    require_memory("size", 10**6, "lower it")
    require_disk("size", tmp_path / "new" / "folder", 10, 1, "lower it")
    with pytest.raises(ValueError, match=r"^size: this needs at least 1 PB of memory, but"):
        require_memory("size", 10**15, "lower it")
    with pytest.raises(ValueError, match=f"on the disk of {tmp_path}, but .* are free; lower it"):
        require_disk("size", tmp_path / "new", 10**18, 1, "lower it")
    monkeypatch.setattr(memory, "_disk", lambda folder: (10**12, 4096, 100))
    with pytest.raises(ValueError, match=r"200 files on the disk of .* room for 100; lower it"):
        require_disk("size", tmp_path, 10, 200, "lower it")
    monkeypatch.setattr(memory, "_totals", lambda: iter(()))
    monkeypatch.setattr(memory, "_free", lambda: iter(()))
    require_memory("size", 10**18, "lower it")
    assert format_bytes(1_500_000) == "1.5 MB"


class _Model:
    """One variable of so many elements."""

    graph = CausalGraph("a")
    dtype = np.dtype("f4")

    def __init__(self, elements):
        self.domain = Domain(shape=(elements,))

    def __getitem__(self, name):
        return self


@pytest.mark.parametrize(
    ("elements", "particles", "divided"),
    [
        (10, 1, (256, 1)),
        (10, 100, (256, 100)),
        (10**4, 100, (4, 100)),
        (10**6, 100, (1, 4)),
        (10**9, 100, (1, 1)),
    ],
)
def test_batches_follow_from_model_and_request(elements, particles, divided):
    """The larger an answer, the fewer at a time; never more than fit, never none."""
    found = batches.Batches.of(_Model(elements), batches.Request(1000, 3, particles))
    assert (found.rows, found.particles) == divided
    chunks = list(found.chunks(particles))
    assert [first for first, _ in chunks] == list(range(0, particles, found.particles))
    assert sum(count for _, count in chunks) == particles


@pytest.mark.parametrize("edges", ["", ";", " ; \n"])
def test_empty_graphs_are_named(tmp_path, capsys, edges):
    assert main(["graph", "--edges", edges, "--out", str(tmp_path / "g.png")]) == 1
    assert "graph: expected at least one variable, but got none" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": {"graph": edges}}))
    assert main(["graph", "--config", str(tmp_path / "c.yaml"), "--out", "g.png"]) == 1
    assert "graph: expected at least one variable, but got none" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 300, "é" * 41])
def test_names_too_long_for_files_are_refused_before_training(tmp_path, capsys, name):
    model = {**CONFIGURATION["model"], "graph": f"thickness -> intensity; intensity -> {name}"}
    mechanisms = dict(model["mechanisms"])
    model["mechanisms"] = {**mechanisms, name: mechanisms.pop("image")}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**CONFIGURATION, "model": model}))
    assert _status(["fit", "--config", str(path)]) in (1, 2)
    assert "names of at most 80 bytes" in capsys.readouterr().err
    CausalGraph("x" * 80)


def _status(words):
    try:
        return main(words)
    except SystemExit as error:
        return error.code
