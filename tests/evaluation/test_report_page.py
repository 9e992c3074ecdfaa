"""The page of a report: one file that loads nothing, in which names stay texts."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
from test_escaping import NASTY, is_harmless, written_in

from deepscm_pl.escaping import for_html, for_markdown, for_terminal
from deepscm_pl.evaluation.verdict import Judgement, Verdict
from deepscm_pl.figures import PlainFigure, save_figure
from deepscm_pl.reports.page import Picture, render_page
from deepscm_pl.reports.sections import Section
from deepscm_pl.reports.tables import TextTable
from deepscm_pl.reports.verdict import verdict_lines, verdict_markdown

TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "details",
    "summary", "h1", "h2", "h3", "p", "ul", "li", "a", "span", "div", "table", "thead", "tbody",
    "tr", "th", "td", "figure", "label", "input", "img", "em", "strong", "code",
}  # fmt: skip


class Elements(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_data(self, text):
        self.texts.append(text)

    def values(self, tag, name):
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    figure = PlainFigure(figsize=(4, 2), dpi=150)
    figure.subplots().plot(torch.arange(3).tolist())
    path = save_figure(figure, tmp_path_factory.mktemp("picture") / "a.png")
    return Picture(path.read_bytes(), figure.dpi)


def said(text, grade="bad"):
    return Verdict(text, "x", "", "reacts", "repeats", grade, 0.1, 0.2, f"about {text}")


def page_of(text, picture):
    table = TextTable(text, [text, "number"], [[text, "1"]])
    section = Section("Noise", for_markdown(text), table, for_markdown(text), "a", text)
    introduction = f"Rows of {for_markdown(text)}."
    return render_page(
        "Evaluation", introduction, Judgement([said(text)]), [section], {"a": picture}
    )


@pytest.mark.parametrize("text", [each for each in NASTY if each.strip()], ids=ascii)
def test_names_stay_texts(text, picture):
    page = page_of(text, picture)
    found = Elements(page)
    assert set(found.tags) <= TAGS
    assert found.tags.count("img") == 1
    assert found.values("a", "href") == ["#verdict", "#noise"]
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert is_harmless(page, lines="\n")
    shown = for_terminal(text)
    assert shown in found.texts  # in the table
    assert found.values("img", "alt") == [shown]
    assert "".join(found.texts).count(shown.strip()) >= 7
    page.encode()


def test_a_page_loads_nothing_and_states_its_policy(picture):
    page = page_of("x", picture)
    found = Elements(page)
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    (policy,) = [each for each in found.values("meta", "content") if "default-src" in each]
    assert "default-src 'none'" in policy
    style = re.search("<style>(.*)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "url(" not in style
    assert "@import" not in style
    (source,) = found.values("img", "src")
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == picture.content


def test_the_verdict_is_first_and_tables_are_folded(picture):
    page = page_of("x", picture)
    found = Elements(page)
    assert found.values("section", "id") == ["verdict", "noise"]
    targets = {f"#{each}" for each in found.values("section", "id")}
    assert set(found.values("a", "href")) == targets
    assert "open" not in {name for _, name, _ in found.attributes}
    for match in re.finditer("<table>", page):
        before = page[: match.start()]
        assert before.count("<details>") > before.count("</details>")
    assert page.index('<span class="grade bad">bad</span>') < page.index('id="noise"')


@pytest.mark.parametrize("width", [1280, 420])
def test_wide_pictures_fit_the_page_until_they_are_clicked(width, tmp_path):
    """In a browser: the page never scrolls sideways, and a key switches like a click."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on this system")
    figure = PlainFigure(figsize=(20, 1), dpi=96)
    figure.subplots().plot([0, 1])
    wide = Picture(save_figure(figure, tmp_path / "a.png").read_bytes(), figure.dpi)
    assert wide.width > 1280
    path = tmp_path / "evaluation.html"
    path.write_text(page_of("x", wide), encoding="utf-8")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(path.as_uri())
        image = page.locator("figure img")

        def shown():
            assert page.evaluate("document.documentElement.scrollWidth") == width
            return image.evaluate("each => each.clientWidth")

        fitted = shown()
        assert 0.7 * (width if width < 900 else width - 220) < fitted < width
        image.click()
        assert shown() == wide.width
        assert page.locator("figure").evaluate("each => each.scrollWidth") > wide.width
        page.keyboard.press("Space")
        assert shown() == fitted
        browser.close()


def test_a_picture_has_its_own_size(picture):
    """Four inches, less the margins that are cut off, are 384 pixels of a page."""
    assert 320 < picture.width < 400


@pytest.mark.parametrize("text", [each for each in NASTY if each.strip()], ids=ascii)
def test_verdicts_are_escaped_in_markdown_and_on_terminals(text):
    judgement = Judgement([said(text)])
    _, kinds = written_in(verdict_markdown(judgement))
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "code_inline"}
    assert all(is_harmless(line) for line in verdict_lines(judgement))
    assert for_html(text) == for_html(for_terminal(text))
