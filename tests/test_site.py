"""The pages of the documentation: their links, examples and formulas, and the gallery."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from deepscm_pl.cli.commands import COMMANDS
from deepscm_pl.cli.training_help import TRAINING_COMMANDS

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "docs")]

PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "experiments/README.md"])
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^()\s#]*)(?:#([^()\s]*))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", each.replace("`", "")).strip().lower() for each in headings]
    return {re.sub(r"[\s-]+", "-", each) for each in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_have_targets(page):
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_are_in_blocks_of_code(page):
    """Outside of a block, Markdown takes them for quotations."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert [line for line in text.splitlines() if line.startswith(">>>")] == []


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"reference.md"}
    assert pages <= listed


def test_nothing_is_loaded_from_elsewhere():
    assert "font: false" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in [*(ROOT / "docs").glob("*.css"), *(ROOT / "docs" / "images").glob("*.svg")]:
        text = re.sub(
            r"xmlns(:\w+)?=\"[^\"]*\"|<(!DOCTYPE|metadata).*?(/metadata)?>",
            "",
            path.read_text(encoding="utf-8"),
            flags=re.DOTALL,
        )
        assert not re.search(r"(url\(|href=\"|@import )[\"']?https?:", text), path.name


def test_pictures_of_the_gallery_have_commands_that_exist():
    import gallery

    entries = gallery.entries()
    shown = re.findall(r"\(images/(gallery-[\w.-]+)\)", gallery.PAGE.read_text(encoding="utf-8"))
    assert [entry.picture.name for entry in entries] == shown
    for entry in entries:
        assert entry.words[0] in COMMANDS
        assert entry.picture.stat().st_size > 1000, "run docs/gallery.py"


def test_the_table_of_the_tutorial_is_the_drawn_one():
    import transcripts

    stored = (ROOT / "docs" / "data" / "clinic.csv").read_text(encoding="utf-8")
    assert transcripts.draw_clinic().splitlines()[:50] == stored.splitlines()[:50]


def test_every_command_has_a_page():
    pages = pytest.importorskip("site_pages")
    found = pages.commands()
    assert {each.split()[0] for each in found} == {*COMMANDS, *TRAINING_COMMANDS}
    assert "usage: deepscm effect average" in pages.command_text("effect average")
    assert len({pages.command_page(each) for each in found}) == len(found)


@pytest.mark.parametrize(
    ("here", "link", "expected"),
    [
        ("index.md", "[a](../experiments/README.md#x)", "[a](experiments/README.md#x)"),
        ("experiments/README.md", "[a](../docs/trust.md)", "[a](../trust.md)"),
        ("SECURITY.md", "[a](README.md)", "a"),
        ("index.md", "[a](trust.md)", "[a](trust.md)"),
        ("index.md", "[a](missing.md)", "[a](missing.md)"),
        ("index.md", "[a](https://example.org/x)", "[a](https://example.org/x)"),
    ],
)
def test_links_of_the_repository_lead_to_pages_of_the_site(here, link, expected):
    pages = pytest.importorskip("site_pages")
    known = {"trust.md", "experiments/README.md", "index.md"}
    assert pages.site_link(pages._LINK.fullmatch(link), here, known) == expected


def test_formulas_are_drawn_without_a_script():
    formulas = pytest.importorskip("formulas")
    drawn = formulas.block(r"\begin{aligned} u &\sim N(0, 1) \\ x &= f(u) \end{aligned}")
    assert drawn.count("<mtr>") == 2
    assert "<mo>&#x0223C;</mo>" in drawn
    assert "\\" not in drawn
    page = "<p>$a_1$ for 5 $ or 6 $</p><pre>$b$</pre><code>$c$</code>"
    assert formulas.inline(page).count("<math") == 1
    assert "<pre>$b$</pre><code>$c$</code>" in formulas.inline(page)


def test_every_formula_of_the_pages_is_drawn():
    """What the converter does not know, it repeats with its backslash."""
    formulas = pytest.importorskip("formulas")
    found = re.findall(
        r"^```math\n(.*?)```$", "\n".join(e.read_text("utf-8") for e in PAGES), re.M | re.S
    )
    assert len(found) > 5
    assert [formula for formula in found if "\\" in formulas.block(formula)] == []


def test_docstrings_become_markdown():
    docstrings = pytest.importorskip("docstrings")
    text = "A :class:`~a.B` of :math:`x`.\n\n.. math:: a \\\\ b\n\nExample:\n    >>> 1\n    1\n"
    made = docstrings.as_markdown(text)
    assert "A `B` of $x$." in made
    assert "```math\n\\begin{aligned}\na \\\\ b\n\\end{aligned}\n```" in made
    assert "\nExamples:\n    >>> 1" in made
    table = "====  ====\na     b\n====  ====\n1     2\n====  ====\n"
    assert docstrings.as_markdown(table).startswith(f"```text\n{table.strip()}\n```")
