"""Starting the live page: ports, the browser, and the command line."""

from __future__ import annotations

import json
import socket
import webbrowser
from pathlib import Path

import pytest

from deepscm_pl.cli.main import main
from deepscm_pl.explorer import live
from deepscm_pl.explorer.live import Place, choose_port, open_browser


@pytest.fixture
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_named_with_a_free_one(taken):
    with pytest.raises(ValueError, match=f"port: {taken} cannot be used .* is free: add --port"):
        choose_port(Place(port=taken))


def test_without_a_port_the_first_free_one_is_taken(taken, monkeypatch):
    monkeypatch.setattr(live, "_FIRST_PORT", taken)
    assert taken < choose_port(Place()) < taken + 40


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ValueError, match=r"port: none .* at 192\.0\.2\.1"):
        choose_port(Place(host="192.0.2.1"))


def test_a_machine_without_a_browser(monkeypatch):
    def fail(address):
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "open", fail)
    assert not open_browser("http://127.0.0.1:1/")


def test_the_command_names_the_extra_that_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    assert main(["explore", "--ckpt_path", "none.ckpt"]) == 1
    assert "pip install 'deepscm_pl[explore]'" in capsys.readouterr().err


def test_the_command_refuses_a_port_before_it_loads_the_model(taken, monkeypatch, capsys):
    monkeypatch.setattr(live, "find_spec", lambda name: object())
    for words, reason in (
        (["--port", str(taken)], f"{taken} cannot be used"),
        (["--port", "70000"], "port: expected"),
        (["--static", "a.html", "--space", "b"], "got both"),
    ):
        assert main(["explore", "--ckpt_path", "none.ckpt", *words]) == 1
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_a_space_is_not_written_over_files(tmp_path, capsys):
    (tmp_path / "kept").write_text("x")
    words = ["explore", "--ckpt_path", "none.ckpt", "--space", str(tmp_path)]
    assert main(words) == 1
    assert "expected a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("has_browser", [True, False])
def test_serving_prints_the_address_and_ends(has_browser, monkeypatch, capsys):
    from contextlib import contextmanager

    @contextmanager
    def serving(session, place):
        yield "http://127.0.0.1:7999/", Path()

    monkeypatch.setattr(live, "serving", serving)
    monkeypatch.setattr(webbrowser, "open", lambda address: has_browser)

    def wait():
        raise KeyboardInterrupt

    live.serve(None, Place(is_opened=True), wait)
    found = capsys.readouterr().out
    assert "http://127.0.0.1:7999/" in found
    assert ("no browser was found" in found) is not has_browser
    live.serve(None, Place(host="0.0.0.0"), wait)
    assert "Everyone who can reach this machine" in capsys.readouterr().out


def test_a_space_has_the_model_and_observations(pictures, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from deepscm_pl.explorer import space

    monkeypatch.setattr(space, "export_model", lambda path, out, trust: out.write_bytes(b""))
    monkeypatch.setattr(space, "load", lambda path: pictures.model)
    folder = tmp_path / "space"
    found = space.write_space(pictures, [Path("last.ckpt")], folder)
    assert {path.name for path in found} == {
        "README.md",
        "app.py",
        "model-1.safetensors",
        "observations.safetensors",
        "requirements.txt",
    }
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\ntitle: ")
    assert "sdk: gradio" in readme
    compile((folder / "app.py").read_text(encoding="utf-8"), "app.py", "exec")
    visits = [space.open_space(folder).visit("a")]
    visits[0].set("thickness", 2.0)
    scene = visits[0].ask().scene
    assert scene.values["thickness"] == 2.0
    for name, value in pictures.rows_of([0]).items():
        assert (visits[0].observation.values[name] == value).all()
    assert json.dumps(visits[0].observation.title)
