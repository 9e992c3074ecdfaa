"""Strings from files are displayed literally: none is interpreted, and none causes an error."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import re
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepscm_pl import StructuralCausalModel
from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.cli import main
from deepscm_pl.cli.answers import Column, Output, Part, write_answers
from deepscm_pl.cli.observations import observations_from_csv
from deepscm_pl.data import SourceSplits
from deepscm_pl.escaping import (
    TableWriter,
    as_json,
    for_file_name,
    for_html,
    for_markdown,
    for_picture,
    for_tag,
    for_terminal,
    from_spreadsheet,
    markdown_code,
)
from deepscm_pl.evaluation.densities import DensityResult, Sample
from deepscm_pl.evaluation.examples import Example
from deepscm_pl.figures import (
    DensityPanel,
    ImageColumn,
    ImagePanel,
    MatrixAxis,
    PlainFigure,
    draw_comparison,
    draw_grid,
    draw_image_matrix,
    draw_marginal_densities,
    draw_noise,
    figure_to_array,
    save_figure,
)
from deepscm_pl.figures.output import width_of
from deepscm_pl.mechanisms import Categorical
from deepscm_pl.reports import draw_densities as draw_density_results, draw_examples
from deepscm_pl.reports.tables import TextTable, density_table, print_table
from deepscm_pl.variables import Domain, Variable

from tiny import CONFIGURATION, TinyDataModule

PLAIN = [
    "mm³", "brain volume", "[mm]", "[/min]", "[bold]", "[link=http://evil.example]x[/link]",
    ":smile:", "$x^{$", "$", "$$", "$x$", r"\$", r"$\frac{1}{2}$", r"\alpha", r"\input{x}", "\\",
    "a|b`c", "`code`", "``", "a\\|b", "![x](http://evil.example/x.png)", "[x](http://evil.example)",
    "http://evil.example", "www.evil.example", "<http://evil.example>", "<b>", "&amp;", "&#60;",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "*bold*", "_x_", "__init__",
    "a_b", "~~gone~~", "# heading", "- item", "+ item", "1. item", "1) item", "===", "---",
    "> said", '=HYPERLINK("http://evil.example")', "=1+1", "+1+1", "-1+1", "@SUM(A1)", "＝1+1",
    "'=1", "'", "''", "'tis", "-5", "+5", "-1e-3", "-inf", "a;=1+1", "a;'=1+1", " =1+1", ";;'=1",
    'quo"te', "a,b", "../../etc/passwd", "/etc/passwd", "%s %d {x}", "日本語", "שלום", "NaN",
    "null", "x" * 5000,
]  # fmt: skip
CONTROLS = [
    "\x1b[31mred", "\x1b]0;title\x07", "bell\x07", "back\b\b", "nul\x00", "a\nb", "a\r\nb", "a\tb",
    "\t=1+1", "\r=1+1", "a\n=1+1", ";\t ;=1+1", "\x9b31m", "abc\u202edef", "\u2066x\u2069",
    "zero\u200bwidth", "line\u2028break", "\x85", "half\udc80", "\x7f",
]  # fmt: skip
NASTY = PLAIN + CONTROLS
# Tables have neither surrogates nor the character 0, nor blanks at the ends of cells.
CLASSES = tuple(
    text for text in NASTY if not {"\udc80", "\x00"} & set(text) and text == text.strip()
)
"""All strings that UTF-8 can encode."""
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_harmless(text, lines=""):
    return not any(unicodedata.category(each) in UNSEEN for each in text if each not in lines)


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_terminals_receive_no_control_characters(text):
    shown = for_terminal(text)
    assert is_harmless(shown)
    assert (shown == text) == (text in PLAIN)
    shown.encode()


def test_strings_add_no_lines():
    assert for_terminal("a\n\tb\x1b\r", lines=True) == "a\n\tb\\x1b\\r"


def markdown():
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def written_in(document):
    """Text of a document by lines, and the kinds of all its tokens."""
    tokens = markdown().parse(document)
    inline = [token for token in tokens if token.type == "inline"]
    texts = ["".join(each.content for each in token.children) for token in inline]
    return texts, {t.type for t in tokens} | {each.type for t in inline for each in t.children}


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_markdown_renders_the_text(text):
    expected = for_terminal(text).strip()
    table = TextTable(text, [text, "x"], [[text, "1"], ["2", text]])
    texts, kinds = written_in(table.as_markdown())
    assert texts == [expected, "x", expected, "1", "2", expected]
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "code_inline", "em_open"}
    for before, after in (("- ", ""), ("", ""), ("Left out: ", " of 3.")):
        texts, kinds = written_in(f"{before}{for_markdown(text)}{after}")
        assert texts == [before.removeprefix("- ") + expected + after]
        assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text"} | (
            {"bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"}
            if before == "- "
            else set()
        )
    # Addresses are turned into links before backslash escapes are resolved.
    assert not re.search(r"(?<!\\)://|www\.", for_markdown(text))


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_code_in_markdown_renders_the_text(text):
    (token,) = (t for t in markdown().parse(f"Graph: {markdown_code(text)}.") if t.type == "inline")
    assert [child.type for child in token.children] == ["text", "code_inline", "text"]
    assert token.children[1].content.strip() == for_terminal(text).strip()


def test_ordinary_text_stays_readable_in_markdown():
    for text in ("brain_volume (mm³)", "do(a = 3 pixels)", "log p(x), 95 %", "a-b", "1.5 mm", "-5"):
        assert for_markdown(text) == text


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_a_printed_table_shows_the_text(text):
    shown = io.StringIO()
    table = TextTable(text, [text, "x"], [[text, "1"], ["2", text]])
    Console(file=shown, width=20_000, force_terminal=True, color_system=None).print(
        table.as_rich(20_000)
    )
    found = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())  # what the table itself is drawn with
    assert is_harmless(found, lines="\n")
    assert found.count(for_terminal(text).strip()) >= 4


def test_a_narrow_table_shows_the_text(capsys):
    for text in NASTY:
        print_table(TextTable("", ["name", "much"], [[f"{text}, {text}", "1"]] * 2))
        assert is_harmless(capsys.readouterr().out, lines="\n")


def shown_by(figure):
    """All strings of a drawn figure."""
    figure_to_array(figure)
    return {text.get_text() for text in figure.findobj(Text) if text.get_text()}


def test_pictures_show_the_texts():
    one = [text for text in NASTY if "\n" not in text and "\r" not in text]
    image = torch.zeros(len(one), 1, 8, 8)
    curves = {text: torch.ones(3) for text in one}
    axis, panel = MatrixAxis(one[-2], one), torch.zeros(1, len(one), 1, 4, 4)
    figures = [
        draw_grid([ImageColumn("", image, one)], one, differences=False),
        draw_grid([ImageColumn(text, image[:1]) for text in one], ["$x^{$"], differences=False),
        draw_comparison(image, image, one),
        draw_marginal_densities([DensityPanel(one[-1], torch.randn(9), curves)]),
        draw_image_matrix([ImagePanel(one[-1], panel)], axis, MatrixAxis("", [one[0]])),
        draw_noise({text: torch.randn(10) for text in one[:3]}),
    ]
    for figure in figures:
        figure.dpi = 10
        lines = " ".join(" ".join(shown_by(figure)).split())
        for text in one[:3] if figure is figures[-1] else one:
            assert " ".join(for_picture(text).split()) in lines, ascii(text)


def test_examples_show_their_titles_and_labels():
    image, everywhere = torch.zeros(3, 1, 8, 8), torch.ones(3, dtype=torch.bool)
    titles = ["do(a = $x^{$)", "do(a = [mm])", "do(a = \x1b[31mred)"]
    figure = draw_examples([Example(title, image, None, everywhere) for title in titles], titles)
    assert {for_picture(title) for title in titles} <= shown_by(figure)


@pytest.mark.parametrize("text", ["$x$", r"$\frac{1}{2}$", "$x^{$", "a$b$c", r"\$", "a_b^c"])
def test_dollars_are_drawn(text):
    """The width is that of the characters and not of mathematics."""
    figure = PlainFigure(figsize=(8, 1), dpi=100)
    drawn = figure.text(0, 0, text, fontsize=20)
    figure_to_array(figure)
    width = drawn.get_window_extent().width / 100
    assert width == pytest.approx(width_of([text], 20), rel=0.1, abs=0.02)


def test_figures_ignore_the_users_matplotlib_settings(tmp_path):
    settings = {"text.usetex": True, "axes.formatter.use_mathtext": True}
    with rc_context(settings):
        figure = draw_marginal_densities(
            [DensityPanel("$x^{$", torch.randn(20), {r"\input{x}": torch.ones(3)})]
        )
        save_figure(figure, tmp_path / "a.png")
        found = shown_by(figure)
    assert {"$x^{$", r"\input{x}"} <= found
    assert not any("mathdefault" in text for text in found)


def test_figures_of_others_keep_their_mathematics():
    figure_to_array(PlainFigure())
    other = Figure()
    text = other.text(0, 0, "$x^2$")
    figure_to_array(other)
    assert text.get_parse_math()


def test_a_graph_as_svg_is_well_formed(tmp_path):
    from xml.etree import ElementTree

    figure = PlainFigure()
    for k, text in enumerate(NASTY):
        figure.text(0, k / len(NASTY), text)
    with rc_context({"svg.fonttype": "none"}):
        root = ElementTree.parse(save_figure(figure, tmp_path / "a.svg")).getroot()
    tags = {each.tag.rsplit("}")[1] for each in root.iter() if isinstance(each.tag, str)}
    assert not tags & {"script", "img", "a", "b"}


def test_a_picture_of_densities_shows_units_and_classes():
    names = tuple(text for text in PLAIN if len(text) < 100)
    values = torch.arange(len(names), dtype=torch.double)
    sample = Sample(values, torch.full_like(values, 1 / len(names)))
    for unit in ("$x^{$", "[mm]", "(ml"):
        wide = Sample(values * 1e6, sample.weights)
        variables = {name: Variable(name, unit=unit) for name in ("_a", "_b")}
        kind = {"c": Variable("c", Domain(categories=len(names)), classes=names)}
        results = [
            DensityResult("_a", {"_b": 1.0}, True, wide, variables=variables),
            DensityResult("c", {"_b": 1.0}, False, sample, variables=kind),
        ]
        found = shown_by(draw_density_results(results))
        assert f"_a (million {unit})" in found
        assert f"_b = 1 {unit}" in found  # in the legend, in spite of its underscore
        assert set(names) <= found
        texts, _ = written_in(density_table(results).as_markdown())
        assert f"p(_a | do(_b = 1 {unit}))" in texts
        assert all(f"p(c = {name} | _b = 1)" in texts for name in names)


def read_back(file):
    return [[from_spreadsheet(cell) for cell in row] for row in csv.reader(file)]


def test_tables_preserve_every_text():
    file = io.StringIO(newline="")
    rows = [[text, text, "1"] for text in CLASSES]
    TableWriter(file).writerows(rows)
    file.seek(0)
    assert read_back(file) == rows


def test_no_spreadsheet_evaluates_a_text():
    """For any cell separator, with and without support for quotes."""
    file = io.StringIO(newline="")
    TableWriter(file).writerows([["x", text] for text in NASTY] + [[text, "x"] for text in NASTY])
    file.seek(0)
    cells = {cell for row in csv.reader(file) for cell in row}
    parts = re.split(r"[;\t\r\n]", file.getvalue())
    for cell in cells.union(parts, (part[1:] for part in parts if part.startswith('"'))):
        begins = cell.lstrip()[:1]
        assert begins not in tuple("=@＝＋－"), cell
        if begins in ("+", "-"):
            float(cell.split(",")[0])


def test_numbers_stay_numbers():
    file = io.StringIO(newline="")
    TableWriter(file).writerow([-5, -0.5, "-5", "+5", "-1e-3", "-inf", "3"])
    assert file.getvalue() == "-5,-0.5,-5,+5,-1e-3,-inf,3\r\n"


@pytest.mark.parametrize("text", [*NASTY, ".", "..", "-rf", ".hidden", "con\\x", ""], ids=ascii)
def test_file_names_stay_in_their_folder(tmp_path, text):
    name = for_file_name(text)
    path = tmp_path / f"images-{name}.png"
    path.write_text("")
    assert path.resolve().parent == tmp_path.resolve()
    assert is_harmless(name)
    assert not name.startswith((".", "-"))
    assert ".." not in name


def test_different_texts_have_different_files():
    assert len({for_file_name(text) for text in NASTY}) == len(NASTY)
    assert for_file_name("brain_volume-3") == "brain_volume-3"


def test_json_preserves_every_text_and_contains_no_nan():
    document = {text: [text, float("nan"), (1.5, float("-inf"))] for text in NASTY}
    written = as_json(document)
    assert is_harmless(written, lines="\n")
    written.encode()

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(written, parse_constant=refuse)
    assert found == {text: [text, None, [1.5, None]] for text in NASTY}


def test_tags_contain_only_characters_that_tensorboard_accepts():
    for text in NASTY:
        assert re.fullmatch(r"[-/\w.]+", for_tag(text))


# The command line


def test_errors_do_not_control_the_terminal(tmp_path, capsys):
    wrong = tmp_path / "\x1b[31mwrong\u202e.yaml"
    assert main(["graph", "--config", str(wrong)]) == 1
    assert main(["graph", "--edges", "a -> \x1b[31mb"]) == 1
    wrong.write_text("model: {graph: 3}")
    assert main(["graph", "--config", str(wrong)]) == 1
    with pytest.raises(SystemExit):
        main(["graph", "--config", str(wrong), "--\x1b[31m"])
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(wrong), "--model.graph", "\x1b[31m"])
    assert main(["graph", "--edges", "a -> b", "--out", str(tmp_path / "\x1b[31m.svg")]) == 0
    captured = capsys.readouterr()
    assert is_harmless(captured.out + captured.err, lines="\n\t")
    assert "\\x1b[31mwrong\\u202e.yaml" in captured.err
    assert "\\x1b[31m.svg" in captured.out


def test_answers_with_any_class_names_can_be_observations(tmp_path):
    """The table of answers can be read as a table of observations."""
    scm = StructuralCausalModel("sex", {"sex": partial(Categorical, categories=len(CLASSES))})
    values = torch.arange(float(len(CLASSES)))[:, None]
    rows = [f"={text}" for text in CLASSES]
    scm.describe({"sex": Variable("sex", classes=tuple(CLASSES))})
    output = Output(tmp_path / "answers", [Column("factual", "factual")])
    write_answers(scm, [Part(rows, [{"sex": values[None]}])], output)
    table = tmp_path / "answers" / "answers.csv"
    observed = observations_from_csv(scm, table)
    (found,) = observed.read(observed.count)
    torch.testing.assert_close(found.values["sex"], values)
    with table.open(newline="", encoding="utf-8") as file:
        assert [row[0] for row in read_back(file)][1:] == rows


def test_a_lone_surrogate_does_not_break_a_table(tmp_path):
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        TableWriter(file).writerow(["half\udc80"])
    assert (tmp_path / "table.csv").read_text() == "half\\udc80\n"


@pytest.mark.parametrize("content", [b"sex\n\xff\n", b'sex\n"' + b"x" * 200_000 + b'"\n'])
def test_broken_tables_are_refused_by_name(tmp_path, content):
    (tmp_path / "table.csv").write_bytes(content)
    scm = StructuralCausalModel("sex", {"sex": partial(Categorical, categories=2)})
    with pytest.raises(ValueError, match=r"observations: .*table\.csv"):
        observations_from_csv(scm, tmp_path / "table.csv")


# All outputs of a run

NAMES = (
    '=HYPERLINK("http://evil.example")',
    "<script>alert(1)</script>",
    "a|b`c",
    "\x1b[31mred",
    "$x^{$",
    "[/min]",
    "![x](http://evil.example)",
)
UNITS = {"thickness": "[mm]", "intensity": "$x^{$", "image": "[/min]"}


class HostileDataModule(TinyDataModule):
    """A data module with malicious units and class names."""

    @property
    def descriptions(self):
        units = {name: Variable(name, unit=unit) for name, unit in UNITS.items()}
        return {"kind": Variable("kind", classes=NAMES), **units}

    def load(self):
        splits = super().load()
        return SourceSplits(train=_with_kind(splits.train), test=_with_kind(splits.test))

    def identifiers(self, split):
        return [f"{NASTY[-(k % 19) - 1]}{k}" for k in range(len(self.variables(split)["label"]))]


def _with_kind(variables):
    kind = torch.arange(len(variables["label"]), dtype=torch.float32) % len(NAMES)
    return {"kind": kind[:, None], **variables}


def hostile_configuration():
    settings = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
    model, trainer = settings["model"], settings["trainer"]
    model["graph"] = "kind -> thickness -> intensity; thickness, intensity -> image"
    model["mechanisms"]["kind"] = {
        "class_path": "deepscm_pl.mechanisms.Categorical",
        "init_args": {"categories": len(NAMES)},
    }
    settings["data"]["class_path"] = "test_escaping.HostileDataModule"
    trainer["max_epochs"] = 1
    often = {"every_n_epochs": 5}
    trainer["callbacks"] = [
        {"class_path": f"deepscm_pl.callbacks.{name}", "init_args": {**often, **own}}
        for name, own in {
            "CounterfactualGrid": {"interventions": ["kind=3", "intensity+=1"], "num_images": 3},
            "AttributeDensities": {"interventions": ["thickness+=1", "kind=4"]},
            "ConditionalSampleGrid": {},
            "NoiseHistograms": {},
        }.items()
    ]
    settings["association"] = {"reference": {"bound": -1.0}, "reference_name": "[/b] <i>|"}
    settings["evaluation"] = {
        "interventions": ["kind=0", "kind=3, thickness=3", "kind=6", "intensity+=1"],
        "num_particles": 2,
        "density_size": 200,
        "density_values": {"kind": [0, 3, 4]},
        "workers": 1,
    }
    return settings


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A training and test on hostile data: folder, output, and strings of the pictures."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "hostile.yaml").write_text(yaml.safe_dump(hostile_configuration(), sort_keys=False))
    drawn = set()
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        draw = PlainFigure.draw

        def watched(figure, renderer):
            draw(figure, renderer)
            drawn.update(text.get_text() for text in figure.findobj(Text))

        patch.setattr(PlainFigure, "draw", watched)
        words = ["fit", "--tables", "--config", str(root / "hostile.yaml")]
        assert main([*words, "--trainer.default_root_dir", str(root)]) == 0
    return root / "lightning_logs" / "version_0", printed.getvalue(), drawn


def test_a_training_completes_with_hostile_units_and_classes(hostile):
    folder, printed, drawn = hostile
    assert is_harmless(printed, lines="\n")
    pictures = "\n".join(drawn)
    for name in (*map(for_terminal, NAMES), *list(UNITS.values())[:2]):
        assert name in " ".join(printed.split()), name
        assert name in pictures, name
    assert (folder / "evaluation" / "densities.png").is_file()
    assert (folder / "evaluation" / "examples.png").is_file()


def test_the_page_displays_the_texts_literally(hostile):
    folder, _, _ = hostile
    page = (folder / "evaluation" / "evaluation.html").read_text(encoding="utf-8")
    assert is_harmless(page, lines="\n")
    assert "http:" not in html.unescape(page).replace("http://evil.example", "")
    assert not re.search(r"<(script|b|img(?! (class|width)))\b", page)
    assert all(for_html(name) in page for name in NAMES)


def test_the_report_displays_the_texts_literally(hostile):
    folder, _, _ = hostile
    document = (folder / "evaluation" / "evaluation.md").read_text(encoding="utf-8")
    texts, kinds = written_in(document)
    assert not kinds & {"link_open", "html_inline", "html_block"}
    assert all(for_terminal(name) in "\n".join(texts) for name in NAMES)
    sources = {
        child.attrs["src"]
        for token in markdown().parse(document)
        for child in token.children or ()
        if child.type == "image"
    }
    assert sources
    assert all((folder / "evaluation" / source).is_file() for source in sources)
    columns, kinds = written_in((folder / "association.md").read_text(encoding="utf-8"))
    assert "[/b] <i>|" in columns
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert NAMES[3] in json.dumps(found, ensure_ascii=False).encode().decode("unicode_escape")


def test_the_tags_contain_plain_characters_only(hostile):
    events = EventAccumulator(str(hostile[0]))
    events.Reload()
    tags = [tag for kind in ("scalars", "images") for tag in events.Tags()[kind]]
    assert any(tag.startswith("evaluation/kind_3_thickness_3/") for tag in tags)
    assert is_harmless("".join(tags))
    assert not set("".join(tags)) & set('<>`|$[]"\\')


def test_the_answers_can_be_the_next_observations(hostile, tmp_path, capsys):
    checkpoint = next((hostile[0] / "checkpoints").glob("epoch=*.ckpt"))
    found = Checkpoint.read(checkpoint).variables()
    assert {name: each.unit for name, each in found.items() if each.unit} == UNITS
    assert found["kind"].classes == NAMES
    rows = [str(row) for row in range(len(NAMES))]
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "kind=3", "intensity+=1"]
    assert main([*words, "--index", *rows, "--out", str(tmp_path / "first")]) == 0
    table = tmp_path / "first" / "answers.csv"
    assert main([*words, "--observations", str(table), "--out", str(tmp_path / "second")]) == 0
    exported = str(tmp_path / "model.safetensors")
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", exported]) == 0
    assert is_harmless(capsys.readouterr().out, lines="\n")
    first, second = (_rows(tmp_path / name / "answers.csv") for name in ("first", "second"))
    assert [row["kind"] for row in first[: len(NAMES)]] == list(NAMES)
    factual = [row["kind"] for row in second[: len(first)]]
    assert factual == [row["kind"] for row in first]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = read_back(file)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_report_survives_long_names(tmp_path):
    """A picture with long text has a size that can be drawn."""
    column = ImageColumn("x" * 100_000, torch.zeros(1, 1, 8, 8), ["y\n" * 10_000])
    save_figure(draw_grid([column, column], ["z" * 100_000]), tmp_path / "a.png")
    assert np.isfinite(width_of(["x" * 100_000], 8))
