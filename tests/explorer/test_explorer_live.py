"""Starting the live page: ports, the browser, and the command line."""

from __future__ import annotations

import os
import shutil
import socket
import webbrowser
from pathlib import Path

import pytest
import torch

from deepscm_pl import load
from deepscm_pl.cli.main import main
from deepscm_pl.explorer import live
from deepscm_pl.explorer.live import Place, choose_port, open_browser
from deepscm_pl.explorer.questions import Explorer
from deepscm_pl.shipped.names import find_model


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

    monkeypatch.setenv("BROWSER", "a browser")
    monkeypatch.setattr(webbrowser, "open", fail)
    assert not open_browser("http://127.0.0.1:1/")


def test_a_browser_in_the_terminal_is_not_opened(monkeypatch):
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda _: pytest.fail("it was opened"))
    assert not open_browser("http://127.0.0.1:1/")


def test_a_model_is_named_once(capsys):
    assert main(["explore"]) == 1
    assert "expected a model, such as digits, or --ckpt_path, but got neither" in (
        capsys.readouterr().err
    )
    assert main(["explore", "digits", "--ckpt_path", "digits"]) == 1
    assert "but got both; give one" in capsys.readouterr().err


def test_a_model_that_is_not_known_is_explained(monkeypatch, capsys):
    monkeypatch.setattr(live, "find_spec", lambda name: object())
    assert main(["explore", "digitz"]) == 1
    assert "digits" in capsys.readouterr().err


def test_the_environment_of_gradio_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with live.gradio_settings("folder"):
        assert os.environ["GRADIO_TEMP_DIR"] == "folder"
        assert os.environ["GRADIO_SHARE"] == os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["GRADIO_SHARE"] == "True"
    assert "GRADIO_TEMP_DIR" not in os.environ


def test_the_command_names_the_extra_that_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    assert main(["explore", "none.ckpt"]) == 1
    assert "pip install 'deepscm_pl[explore]'" in capsys.readouterr().err


def test_the_command_refuses_a_port_before_it_loads_the_model(taken, monkeypatch, capsys):
    monkeypatch.setattr(live, "find_spec", lambda name: object())
    for words, reason in (
        (["--port", str(taken)], f"{taken} cannot be used"),
        (["--port", "70000"], "port: expected"),
        (["--static", "a.html", "--space", "b"], "got both"),
        (["--index", "3"], "choose the row on the page, or add ?index=3 to its address"),
        (["--overwrite"], "overwrite: expected with --static only"),
        (["--space", "b", "--seed", "3"], "seed: expected without --space"),
        (["--space", "b", "--weights", "0.5"], "weights: expected without --space"),
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
    monkeypatch.setenv("BROWSER", "a browser")
    monkeypatch.setattr(webbrowser, "open", lambda address: has_browser)

    def wait():
        raise KeyboardInterrupt

    live.serve(None, Place(is_opened=True), wait)
    found = capsys.readouterr().out
    assert "http://127.0.0.1:7999/" in found
    assert ("no browser was found" in found) is not has_browser
    live.serve(None, Place(host="0.0.0.0"), wait)
    assert "Everyone who can reach this machine" in capsys.readouterr().out


def test_a_space_has_a_model_that_is_named_and_observations(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gradio")
    from deepscm_pl.explorer import space

    monkeypatch.setattr(space, "_MOST_ROWS", 30)
    folder = tmp_path / "space"
    assert main(["explore", "tabular", "--space", str(folder)]) == 0
    assert "written: " in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "app.py",
        "tabular.safetensors",
        "observations.safetensors",
        "requirements.txt",
    }
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\ntitle: ")
    assert "sdk: gradio" in readme
    compile((folder / "app.py").read_text(encoding="utf-8"), "app.py", "exec")
    session = space.open_space(folder)
    model = load("tabular")
    assert session.explorer.count == 30  # fewer than travel with the model
    visit = session.visit("a")
    visit.choose(3)
    expected = model.observations([3])
    for name, value in expected.items():
        assert torch.equal(visit.observation.values[name], value)
    visit.set("bmi", 30.0)
    answer = model.counterfactual(expected, "bmi=30")
    assert visit.ask().scene.values["progression"] == pytest.approx(float(answer["progression"]))
    assert 'title: "What if? tabular"' in readme
    assert session.programs.files == [Path("tabular.safetensors")]
    (folder / "observations.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected observations\.safetensors"):
        space.open_space(folder)


def test_several_models_of_a_space_keep_their_order(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from deepscm_pl.explorer import space

    folder = tmp_path / "space"
    data = load("tabular").test_data()
    other = tmp_path / "a.safetensors"
    shutil.copy(find_model("tabular"), other)
    files = [Path("tabular"), other]
    explorer = Explorer(load(["tabular", str(other)]), data)
    monkeypatch.setattr(space, "_MOST_ROWS", 2)
    space.write_space(explorer, files, folder)
    found = space.open_space(folder)
    assert found.programs.files == [
        Path("1-tabular.safetensors"),
        Path("2-a.safetensors"),
    ]
    names = space._file_names([Path("tabular")] * 11)
    assert names == sorted(names)
    with pytest.raises(FileNotFoundError, match=r"expected a model, NAME\.safetensors"):
        space.open_space(tmp_path / "none")
