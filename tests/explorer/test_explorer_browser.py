"""The live page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import http.client
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from deepscm_pl.explorer.live import Place, serving
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.session import Session

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this system")
PATIENCE = 120_000  # ms, for machines that are busy with trainings


@pytest.fixture(scope="module")
def served(pictures):
    with serving(Session(pictures, Programs([Path("last.ckpt")])), Place()) as found:
        yield found
    assert not found[1].exists()  # the folder of uploads


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as player:
        found = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def loaded(served, browser):
    """A page, and the addresses that it has asked for."""
    page, asked = browser.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served[0], timeout=PATIENCE)
    page.wait_for_selector("#values tr")
    return page, asked


@pytest.fixture
def page(loaded):
    """The page with nothing set."""
    page = loaded[0]
    if page.locator("#held input:checked").count():
        page.click("#reset")
        wait_for_title(page, "As observed")
    return page


def wait_for_title(page, text):
    page.wait_for_function(
        "text => document.querySelector('#question h2')?.textContent.includes(text)", arg=text
    )


def counterfactual(page):
    return page.get_attribute("#pictures figure:nth-of-type(2) img", "src")


def test_nothing_is_asked_of_another_host(page, loaded, served):
    hosts = {url.split("/")[2] for url in loaded[1] if url.startswith("http")}
    assert hosts == {served[0].split("/")[2]}


def test_a_slider_changes_the_picture_by_the_keyboard_alone(page):
    before = counterfactual(page)
    page.focus("#control-1 input[type=range]")
    for _ in range(3):
        page.keyboard.press("PageDown")
    wait_for_title(page, "do(intensity = ")
    page.wait_for_function(
        "before => document.querySelector('#pictures figure:nth-of-type(2) img').src != before",
        arg=before,
    )
    assert page.locator("#graph .scissors").count() == 1
    assert page.is_checked("#held label:has-text('intensity') input")
    page.wait_for_function("() => location.search.includes('do=intensity')")
    page.focus("#reset")
    page.keyboard.press("Enter")
    wait_for_title(page, "As observed")
    assert counterfactual(page) == before


def test_an_upload_is_shown_and_its_file_is_removed(page, served, tmp_path):
    Image.new("L", (8, 8), 123).save(tmp_path / "mine.png")
    page.click("#own button")
    page.set_input_files("#files input[type=file]", tmp_path / "mine.png")
    page.wait_for_selector("#files .file-preview")
    page.click("#use")
    page.wait_for_function(
        "() => document.querySelector('#pictures figcaption').textContent.includes('mine.png')"
    )
    assert not [path for path in served[1].rglob("*") if path.name == "mine.png"]


def test_a_bad_upload_is_explained_and_changes_nothing(page, served, tmp_path):
    Image.new("L", (9, 9), 123).save(tmp_path / "large.png")
    before = counterfactual(page)
    page.set_input_files("#files input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("#files .file-preview")
    page.click("#use")
    page.wait_for_selector("#notice [role=alert]")
    assert "8×8 pixels" in page.inner_text("#notice")
    assert counterfactual(page) == before
    assert not [path for path in served[1].rglob("*") if path.name == "large.png"]


def test_a_link_that_cannot_be_answered_is_explained(served, browser):
    page = browser.new_page(viewport={"width": 380, "height": 800})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{served[0]}?index=3&do=thickness%3D-4", timeout=PATIENCE)
    page.wait_for_selector("#notice [role=alert]")
    assert "expected values in (0, inf)" in page.inner_text("#notice")
    # On a narrow screen, nothing is wider than it.
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.close()


def announced(address, length):
    """The status of an upload of which only the length is sent."""
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_foreign_files_names_and_floods_are_refused(served):
    address, folder = served

    def status(path, data=None, **headers):
        request = urllib.request.Request(address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status("gradio_api/file=/etc/passwd") in (403, 404)
    assert status("", Host="evil.example") == 400
    assert announced(address, 65_000_000) == 413
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="../../a.png"\r\n'
        b"Content-Type: image/png\r\n\r\nx\r\n--b--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    found = []
    for number in range(120):
        changed = body.replace(b"\r\n\r\nx", b"\r\n\r\n%d" % number)
        found.append(status("gradio_api/upload", changed, **kind))
    assert set(found) == {200, 413}
    assert found[-1] == 413
    assert not list(folder.parent.glob("a.png"))
    files = [path for path in folder.rglob("*") if re.search("a.png", path.name)]
    assert len(files) < 100
    for path in files:
        path.unlink()
