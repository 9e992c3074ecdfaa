"""``deepscm demo``: a picture and a page of the model inside the package, without a network."""

from __future__ import annotations

import re
import socket
import webbrowser

import pytest
from PIL import Image

from deepscm_pl.cli import main
from deepscm_pl.cli.demo import open_page


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No network, no cache of data, and an own folder."""

    def refuse(*_, **__):
        raise AssertionError("the demo needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("deepscm_pl.data.digits._draw_digits", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def opened(monkeypatch):
    """The addresses that are opened in a browser."""
    found = []
    monkeypatch.setenv("BROWSER", "a browser")
    monkeypatch.setattr(webbrowser, "open", lambda address: found.append(address) or True)
    return found


def test_it_draws_a_picture_and_suggests_a_question(tmp_path, capsys, opened):
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "written: demo/counterfactuals.png" in lines
    assert any(line.startswith("Ask it yourself:     deepscm counterfactual") for line in lines)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["counterfactuals.png"]
    with Image.open(tmp_path / "demo" / "counterfactuals.png") as picture:
        assert min(picture.size) > 500
        assert len(picture.convert("L").getcolors() or range(256)) > 50
    assert not opened


def test_it_opens_a_page(tmp_path, capsys, opened):
    assert main(["demo", "--open", "--out", "shown"]) == 0
    assert opened == [(tmp_path / "shown" / "explore.html").as_uri()]
    page = (tmp_path / "shown" / "explore.html").read_text("utf-8")
    assert "--ckpt_path digits" in page
    assert not re.search(r'(src|href)="https?:', page)
    assert "opened in the browser: file:///" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["no screen", "no program"])
def test_without_a_browser_it_prints_the_address(kind, tmp_path, capsys, monkeypatch, opened):
    if kind == "no screen":
        for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("sys.platform", "linux")
    else:
        monkeypatch.setattr(webbrowser, "open", lambda address: False)
    open_page(tmp_path / "explore.html")
    address = (tmp_path / "explore.html").as_uri()
    expected = f"no browser was found; open this address in one: {address}\n"
    assert capsys.readouterr().out == expected
    assert not opened


def test_a_folder_that_is_not_empty_is_kept(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine").write_text("mine")
    assert main(["demo", "--out", "demo"]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["mine"]
