"""Models travel through a stand-in for the Hugging Face Hub, and nothing else does."""

from __future__ import annotations

import builtins
import json
import shutil

import pytest
import torch
from hub_server import COMMIT, running_hub
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import save_file

from deepscm_pl import from_pretrained, load
from deepscm_pl.checkpoints import push
from deepscm_pl.cli import main
from deepscm_pl.runs.reading import FORMAT
from deepscm_pl.shipped.names import CARD, MODEL, OBSERVATIONS, find_model

NAME = "someone/tabular"
FILES = {MODEL, OBSERVATIONS, CARD}


@pytest.fixture(scope="module")
def server():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """An empty hub, and an empty cache."""
    for each in (server.files, server.sizes, server.requested, server.private):
        each.clear()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return server


@pytest.fixture
def folder(tmp_path):
    """A copy of a shipped model, with other files beside it."""
    path = shutil.copytree(find_model("tabular").parent, tmp_path / "model")
    (path / "secret.txt").write_text("mine")
    (path / "weights.pkl").write_bytes(b"\x80\x04.")
    return path


@pytest.fixture
def published(hub, folder):
    hub.files[NAME] = {each.name: each.read_bytes() for each in folder.iterdir()}
    return hub


def same(one, other):
    states = [model.scm.state_dict() for model in (one, other)]
    return all(value.equal(states[1][key]) for key, value in states[0].items())


def test_what_is_pushed_is_what_is_loaded(hub, folder, capsys):
    assert main(["push", str(folder), NAME]) == 0
    assert f"to {hub.address}/{NAME}" in capsys.readouterr().out
    assert hub.files[NAME].keys() == FILES
    assert NAME not in hub.private
    model = from_pretrained(NAME)
    assert same(model, load(folder / MODEL))
    assert len(model.observations()["age"]) >= 3
    assert push(folder, NAME)  # again


def test_a_new_repository_can_be_private(hub, folder):
    push(folder, NAME, private=True)
    assert NAME in hub.private


def test_only_the_files_of_a_model_are_read(published, tmp_path):
    from_pretrained(NAME, revision="v1")
    read = {each.rpartition("/")[2] for each in published.requested if "/resolve/" in each}
    assert read == FILES
    assert not list(tmp_path.glob("cache/**/*.pkl"))


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_the_cache_answers_without_a_network(published, monkeypatch, revision):
    online = from_pretrained(NAME, revision)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    published.requested.clear()
    assert same(from_pretrained(NAME, revision), online)
    assert not published.requested


def test_without_a_network_and_a_copy_it_is_not_found(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match=r"cannot be reached .* no copy of it.*\.$"):
        from_pretrained(NAME)


@pytest.mark.parametrize(
    "name", ["tabular", "a/b/c", "../etc/passwd", "a/..", "https://x.y/a", "", None, 3, "a b/c"]
)
def test_an_impossible_name_is_refused_before_the_network(hub, name):
    with pytest.raises(ValueError, match=r"^repository: expected a name such as 'owner/name'"):
        from_pretrained(name)
    assert not hub.requested


@pytest.mark.parametrize("revision", ["", "a b", "../x", "refs/../x", 3])
def test_an_impossible_revision_is_refused(hub, revision):
    with pytest.raises(ValueError, match=r"^revision: expected the name of a branch"):
        from_pretrained(NAME, revision)
    assert not hub.requested


def test_what_is_not_there_is_named(published):
    with pytest.raises(FileNotFoundError, match=r"no model repository someone/other, or it is pri"):
        from_pretrained("someone/other")
    with pytest.raises(FileNotFoundError, match=r"someone/tabular has no revision 'v2'"):
        from_pretrained(NAME, "v2")


def test_a_repository_without_a_model_is_refused(published):
    del published.files[NAME][MODEL]
    with pytest.raises(ValueError, match=r"expected model\.safetensors in someone/tabular"):
        from_pretrained(NAME)
    assert not [each for each in published.requested if "/resolve/" in each]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_too_large_is_not_downloaded(published, name):
    published.sizes[name] = 10**13
    with pytest.raises(ValueError, match=rf"^{name}: expected at most .* not a model of this"):
        from_pretrained(NAME)
    assert not [each for each in published.requested if "/resolve/" in each]


def test_a_model_of_a_newer_format_is_refused(published, folder):
    with safe_open(folder / MODEL, framework="pt") as file:
        content = json.loads(file.metadata()["deepscm_pl"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content["deepscm_pl"] = {"version": "9.8.7", "format": FORMAT + 1}
    save_file(weights, folder / MODEL, metadata={"deepscm_pl": json.dumps(content)})
    published.files[NAME][MODEL] = (folder / MODEL).read_bytes()
    message = r"written by deepscm_pl 9\.8\.7 .*install at least version 9\.8\.7"
    with pytest.raises(ValueError, match=message):
        from_pretrained(NAME)
    with pytest.raises(ValueError, match=message):
        push(folder, NAME)


def test_nothing_is_uploaded_that_cannot_be_loaded(hub, folder, capsys):
    (folder / OBSERVATIONS).write_bytes(b"broken")
    assert main(["push", str(folder), NAME]) == 1
    assert "cannot be read" in capsys.readouterr().err
    (folder / OBSERVATIONS).unlink()
    (folder / CARD).unlink()
    assert main(["push", str(folder), NAME]) == 1
    assert "expected a model card README.md" in capsys.readouterr().err
    torch.save({"a": 1}, folder / MODEL)
    (folder / CARD).write_text("card")
    assert main(["push", str(folder), NAME]) == 1
    assert "cannot be read" in capsys.readouterr().err
    (folder / MODEL).unlink()
    assert main(["push", str(folder), NAME]) == 1
    assert "expected a folder with model.safetensors" in capsys.readouterr().err
    assert main(["push", str(folder / "none"), NAME]) == 1
    assert not hub.requested


def test_an_upload_that_fails_is_one_line(hub, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(folder), NAME]) == 1
    error = capsys.readouterr().err
    assert "someone/tabular could not be written" in error
    assert "hf auth login" in error
    assert error.count("\n") == 1


def test_the_missing_extra_is_named(hub, folder, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for ask in (lambda: from_pretrained(NAME), lambda: push(folder, NAME)):
        with pytest.raises(ValueError, match=r"pip install 'deepscm_pl\[hub\]'\.$"):
            ask()
    assert not hub.requested
