"""Every command and function either answers or refuses a malicious file, without harm."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml

from deepscm_pl.checkpoints import Checkpoint, load
from deepscm_pl.cli import main
from deepscm_pl.runs.checkpoint_files import read_last_checkpoint
from deepscm_pl.training import (
    DeepSCM,
    ImageClassifier,
    export_model,
    load_data,
    read_checkpoint,
)

import cached_tiny  # noqa: F401
import tiny
from hostile_files import DATA, EVERY, FIT, HARMLESS, HOSTILE, MODEL, RESUME, TEST, TRAINER
from watching import Violation, install

WATCH = install()

SECONDS = 60
"""Time limit in seconds; no command needs a tenth of it, and files that hang take minutes."""

MEGABYTES = 600
"""Allowed increase of the peak memory for a file of less than 30 MB."""

TRAINED = 2
"""Epochs of the good checkpoint; a training that resumes up to this number ends at once."""

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
BRIEF = [*QUIET, *tiny.UNEVALUATED]

COMMANDS = {
    "fit": ["--trainer.default_root_dir", "again", *BRIEF],
    "fit with a configuration": ["--config", "tiny.yaml", *BRIEF],
    "test": BRIEF,
    "validate": QUIET,
    "predict": QUIET,
    "sample": ["--size", "1"],
    "intervene": ["--size", "1", "--do", "thickness=2"],
    "counterfactual": ["--do", "thickness=2", "--index", "0"],
    "export": [],
}
READERS = {
    "read_checkpoint": read_checkpoint,
    "load": load,
    "load_data": load_data,
    "DeepSCM.load_from_checkpoint": DeepSCM.load_from_checkpoint,
    "ImageClassifier.load_from_checkpoint": ImageClassifier.load_from_checkpoint,
    "export_model": lambda path: export_model(path, "model.safetensors", overwrite=True),
    "Checkpoint.variables": lambda path: Checkpoint.read(path).variables(),
    "read_last_checkpoint": lambda path: read_last_checkpoint([path.parent]),
}
BUILDING = {"sample", "intervene", "counterfactual", "export", "fit", "test", "validate", "predict"}
REFUSED_BY = {
    EVERY: {*COMMANDS, *READERS},
    MODEL: {*BUILDING, "load", "DeepSCM.load_from_checkpoint", "export_model"},
    FIT: {"fit", "test", "validate", "predict", "DeepSCM.load_from_checkpoint"},
    DATA: {"fit", "test", "validate", "predict", "counterfactual", "load_data"},
    RESUME: {"fit", "fit with a configuration"},
    TEST: {"fit", "test", "validate", "predict"},
    TRAINER: {"fit", "fit with a configuration", "test", "validate", "predict"},
    HARMLESS: set(),
}


@pytest.fixture(scope="module")
def good(checkpoint, tmp_path_factory):
    """Content of a good checkpoint, after every command has been run on it.

    Late imports are then complete before the watch begins.
    """
    content = torch.load(checkpoint, weights_only=True)
    with pytest.MonkeyPatch.context() as patch:
        place = make_place(tmp_path_factory.mktemp("good"), patch)
        path = place / "run" / "checkpoints" / "good.ckpt"
        torch.save(content, path)
        for name in COMMANDS:
            assert attempt(name, path, TRAINED + 1) is None, name
    return content


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder, next to a folder with files that must not change."""
    return make_place(tmp_path, monkeypatch)


def make_place(folder, patch):
    precious, work = folder / "precious", folder / "work"
    (work / "run" / "checkpoints").mkdir(parents=True)
    precious.mkdir()
    (precious / "letter.ckpt").write_text("to be kept")
    (work / "precious").symlink_to(precious)
    patch.chdir(work)
    patch.setenv("HOME", str(work))
    trainer = {name: tiny.CONFIGURATION["trainer"][name] for name in ("accelerator", "max_epochs")}
    configuration = {**tiny.CONFIGURATION, "trainer": trainer}
    (work / "tiny.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return work


def attempt(name, path, epochs):
    """Run a command or a function on a file; the message of its refusal or None."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            if name in READERS:
                READERS[name](path)
                return None
            words = [name.split()[0], "--ckpt_path", str(path), *COMMANDS[name]]
            if words[0] == "fit":
                words += ["--trainer.max_epochs", str(epochs)]
            if name in ("sample", "intervene", "counterfactual"):
                words += ["--out", f"answers-{name}"]
            if name == "export":
                words += ["--out", "model.safetensors", "--overwrite"]
            status = main(words)
        except (ValueError, FileNotFoundError) as error:
            return str(error)
    if status == 0:
        return None
    refusal = errors.getvalue().strip().splitlines()[-1]
    assert refusal.startswith(f"deepscm {words[0]}: "), errors.getvalue()
    return refusal


@contextlib.contextmanager
def limited(name):
    def stop(number, frame):
        raise Violation(f"{name} takes more than {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES * 1024, f"{name} takes {grown / 1024:.0f} MB"


def tried_on(hostile):
    """All functions, and a third of the commands that refuse a file, and of those that need not.

    It is another third for each file of a scope: commands read files by the same functions.
    """
    number = [each for each in HOSTILE if each.scope == hostile.scope].index(hostile)
    refusing = [name for name in COMMANDS if name in REFUSED_BY[hostile.scope]]
    others = [name for name in COMMANDS if name not in refusing]
    first = number % min(3, len(refusing) or 3)  # two commands refuse to resume
    return [*READERS, *refusing[first::3], *others[number % 3 :: 3]]


def try_all(path, work, names, epochs=TRAINED):
    """Run functions and commands on a file under watch; their refusals or None by name."""
    found = {}
    WATCH.modules = frozenset(name.partition(".")[0] for name in sys.modules)
    for name in names:
        try:
            with limited(name), WATCH.during(work):
                found[name] = attempt(name, path, epochs)
        except Violation as violation:
            # Only the message: pytest cannot show a traceback raised by the interpreter.
            WATCH.violations.append(str(violation))
        assert not WATCH.violations, (name, WATCH.violations)
    return found


def test_a_good_file_is_answered(good, place):
    path = place / "run" / "checkpoints" / "good.ckpt"
    torch.save(good, path)
    found = try_all(path, place, [*READERS, *COMMANDS])
    refusals = {name: refusal for name, refusal in found.items() if refusal is not None}
    assert refusals.keys() == {"ImageClassifier.load_from_checkpoint"}, refusals


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_a_hostile_file_does_no_harm(good, place, hostile):
    path = hostile.write(good, place / "run" / "checkpoints" / "hostile")
    acts = hostile.scope in (RESUME, HARMLESS)
    found = try_all(path, place, tried_on(hostile), TRAINED + acts)
    letter = place.parent / "precious" / "letter.ckpt"
    assert [each.name for each in letter.parent.iterdir()] == [letter.name]
    assert letter.read_text() == "to be kept"
    looks_for_others = {"read_last_checkpoint"} if path.suffix != ".ckpt" else set()
    expected = (REFUSED_BY[hostile.scope] & {*found}) - looks_for_others
    assert expected or hostile.scope == HARMLESS
    not_refused = {name for name in expected if found[name] is None}
    assert not not_refused, (hostile.scope, found)
    for name, refusal in found.items():
        assert refusal is None or _is_one_line(refusal), (name, refusal)


def _is_one_line(refusal):
    return "\n" not in refusal and len(refusal) < 900 and refusal.isprintable()


def test_the_watch_detects_violations(tmp_path):
    """Otherwise the tests above could not fail."""
    import subprocess

    outside = tmp_path / "outside"
    attempts = {
        "a process": lambda: subprocess.run(["true"]),
        "a file": lambda: outside.write_text("x"),
        "a removal": lambda: Path(__file__).with_suffix(".none").unlink(),
        "a module": lambda: __import__("antigravity"),
        "code": lambda: exec("x = 'pwned'"),
        "a connection": lambda: __import__("socket").create_connection(("127.0.0.1", 9)),
    }
    WATCH.modules = frozenset(name.partition(".")[0] for name in sys.modules)
    for name, attempted in attempts.items():
        with WATCH.during(tmp_path / "inside"), pytest.raises(Violation):
            attempted()
        assert WATCH.violations, name
    assert not outside.exists()
