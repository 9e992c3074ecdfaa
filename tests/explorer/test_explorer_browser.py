"""The live page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.explorer import Explorer
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


def test_two_visitors_have_their_own_questions_and_files(page, served, browser):
    page.focus("#control-0 input[type=range]")
    page.keyboard.press("PageDown")  # an upload may be at the end
    wait_for_title(page, "do(thickness = ")
    title = page.inner_text("#question h2")
    other = browser.new_context(accept_downloads=True).new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(f"{served[0]}?index=2&do=intensity%3D90", timeout=PATIENCE)
    wait_for_title(other, "do(intensity = 90")
    page.keyboard.press("PageDown")
    page.wait_for_function(
        "before => document.querySelector('#question h2').textContent != before", arg=title
    )
    assert "thickness" in page.inner_text("#question h2")
    assert "test 2" in other.inner_text("#pictures")
    other.click("#programs button")
    other.click("#export")
    other.wait_for_selector("#exported a[download]")
    found = {}
    for link in other.locator("#exported a[download]").all():
        with other.expect_download() as download:
            link.click()
        found[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert found["answer.csv"].splitlines()[2].split(b",")[2] == b"90"
    assert Image.open(io.BytesIO(found["image-counterfactual.png"])).size == (8, 8)
    other.context.close()


def test_the_page_follows_a_dark_system(served, browser):
    found = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(served[0], timeout=PATIENCE)
        page.wait_for_selector("#values tr")
        style = "selector => getComputedStyle(document.querySelector(selector))"
        ink = page.evaluate(f"({style})('#question h2').color")
        box = page.evaluate(f"({style})('#graph rect').fill")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        found[scheme] = [sum(map(int, re.findall(r"\d+", each)[:3])) for each in (ink, box, paper)]
        context.close()
    assert found["light"][0] < 200 < 600 < min(found["light"][1:])
    assert found["dark"][0] > 600 > 200 > max(found["dark"][1:])


def test_planes_of_a_volume_are_moved(volumes, browser):
    scm, data = volumes
    session = Session(Explorer(TrainedModel.of(scm), data), Programs([Path("last.ckpt")]))
    with serving(session, Place()) as (address, _):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address, timeout=PATIENCE)
        page.wait_for_selector("#pictures img")
        before = page.locator("#pictures img").evaluate_all("all => all.map(each => each.src)")
        page.focus("input[type=range][aria-label*='sagittal']")
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "before => document.querySelectorAll('#pictures img')[2].src != before", arg=before[2]
        )
        after = page.locator("#pictures img").evaluate_all("all => all.map(each => each.src)")
        assert after[:2] == before[:2]  # the axial and the coronal plane
        page.close()
