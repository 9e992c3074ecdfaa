"""One file with precomputed answers, written by the library and by the command."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepscm_pl import load
from deepscm_pl.cli import main
from deepscm_pl.explorer import static, write_static
from deepscm_pl.explorer.static import StaticPage
from deepscm_pl.overlap import VERDICTS

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"
UNIT = "<b>mm</b>\"&'"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


def data_of(path: Path):
    """The data in a page, and the page without them."""
    text = path.read_text(encoding="utf-8")
    pattern = r'(<script type="application/json" id="data">)(.*?)(</script>)'
    (found,) = re.findall(pattern, text, re.DOTALL)
    return json.loads(found[1]), text.replace(found[1], "")


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


@pytest.fixture(scope="module")
def page(checkpoint, tmp_path_factory):
    """A page of the tiny run, written by the command."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    words = ["--index", "3", "0", "3", "--steps", "4"]
    assert main(["explore", "--ckpt_path", str(checkpoint), "--static", str(path), *words]) == 0
    return path


def test_the_page_has_the_answers_of_the_model(page, checkpoint):
    found, _ = data_of(page)
    model = load(checkpoint)
    data = model.data()
    data.setup()
    assert [each["row"] for each in found["observations"]] == [3, 0]
    for observation in found["observations"]:
        rows = data.variables("test")
        factual = {name: rows[name][[observation["row"]]] for name in model.variables}
        assert np.array_equal(pixels(observation["images"]["image"]), factual["image"][0, 0])
        for cause, answers in zip(found["causes"], observation["answers"], strict=True):
            settings = cause["settings"]
            for k in (0, len(settings) - 1):
                expected = model.counterfactual(factual, settings[k]["text"], seed=0)
                for name, value in answers[k]["values"].items():
                    assert value == pytest.approx(float(expected[name]), rel=1e-5)
                picture = pixels(answers[k]["images"]["image"]).astype(float)
                assert np.abs(picture - expected["image"][0, 0, 0].numpy()).max() <= 1
                assert VERDICTS[answers[k]["verdict"]] == expected.overlap[0].verdicts[0]


def test_only_what_is_affected_is_stored(page):
    found, _ = data_of(page)
    assert [each["variable"] for each in found["causes"]] == ["thickness", "intensity"]
    (thickness, intensity) = found["observations"][0]["answers"]
    assert thickness[0]["values"].keys() == {"thickness", "intensity"}
    assert intensity[0]["values"].keys() == {"intensity"}


def test_the_command_of_a_question_gives_its_answer(page, tmp_path, monkeypatch, capsys):
    found, _ = data_of(page)
    setting, row = found["causes"][0]["settings"][1], found["observations"][0]["row"]
    command = found["command"]
    text = f"{command['before']} {setting['shell']} {command['between']} {row} {command['after']}"
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(text)[1:]) == 0
    with (tmp_path / "answers" / "answers.csv").open(encoding="utf-8") as file:
        answer = list(csv.DictReader(file))[1]
    stored = found["observations"][0]["answers"][0][1]["values"]["intensity"]
    assert float(answer["intensity"]) == pytest.approx(stored, rel=1e-4)


def test_the_program_of_a_question_gives_its_answer(page, capsys):
    found, _ = data_of(page)
    setting, row = found["causes"][0]["settings"][1], found["observations"][0]["row"]
    python, names = found["python"], {}
    program = f"{python['before']}{row}{python['between']}{setting['python']}{python['after']}"
    exec(program, names)
    stored = found["observations"][0]["answers"][0][1]["values"]["intensity"]
    assert float(names["answer"]["intensity"]) == pytest.approx(stored, rel=1e-5)


def test_the_page_loads_nothing(page):
    _, around = data_of(page)
    assert set(re.findall(r"https?://[^\s\"'<>)]+", around)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"\b(?:src|href)=[\"'](?!data:)|@import|url\(", around)
    (policy,) = re.findall(r'Security-Policy" content="([^"]+)"', around)
    assert policy.startswith("default-src &#x27;none&#x27;;")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", around, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src &#x27;sha256-{digest}&#x27;" in policy


def test_the_same_page_has_the_same_bytes(pictures, tmp_path):
    page = StaticPage(rows=[1], steps=3, files=[Path("a.ckpt")])
    for name in ("a.html", "b.html"):
        write_static(pictures, tmp_path / name, page)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".partial")]


def test_a_page_without_images_has_many_rows(table, tmp_path):
    write_static(table, tmp_path / "page.html", StaticPage(steps=2, files=[Path("a.ckpt")]))
    found, _ = data_of(tmp_path / "page.html")
    assert len(found["observations"]) == table.count
    assert "images" not in found["observations"][0]
    assert found["observations"][0]["values"]["effect"] is None
    kinds = {each["name"]: each["kind"] for each in found["variables"]}
    assert kinds == {"kind": "class", "dose": "number", "effect": "number", "sick": "class"}


def test_hostile_texts_stay_texts(table, tmp_path):
    path = tmp_path / "page.html"
    write_static(table, path, StaticPage(rows=[1], files=[Path("<script>x.ckpt")]))
    text = path.read_text(encoding="utf-8")
    found, around = data_of(path)
    assert table.variables["kind"].classes[2] == HOSTILE
    assert HOSTILE in found["variables"][0]["classes"]
    assert "\u2028" not in text
    assert "\u202e" not in text
    assert "{{data}}" in found["variables"][0]["classes"]
    assert found["variables"][2]["unit"] == UNIT
    assert HOSTILE not in text
    assert UNIT not in text
    assert around.count("<script") == around.count("</script>") == 2
    assert "<title>&lt;script&gt;x.ckpt: what if?</title>" in text
    assert text.count("<!--") == 0
    script = (Path(static.__file__).parent / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_several_models_answer_together(two_models, tmp_path):
    files = [Path("a.ckpt"), Path("b c.ckpt")]
    page = StaticPage(rows=[2], steps=2, files=files, weights=("1", "3"), trust=("mine",))
    found = write_static(two_models, tmp_path / "page.html", page)
    assert found["model"] == ["a.ckpt", "b c.ckpt"]
    before = found["command"]["before"]
    assert "--ckpt_path a.ckpt 'b c.ckpt' --weights 1 3 --trust mine --do" in before
    assert (
        "load(['a.ckpt', 'b c.ckpt'], trust=['mine'], weights=[1.0, 3.0])"
        in (found["python"]["before"])
    )


def test_volumes_have_a_page(volumes, tmp_path):
    from deepscm_pl.checkpoints import TrainedModel
    from deepscm_pl.explorer import Explorer

    scm, data = volumes
    explorer = Explorer(TrainedModel.of(scm), data)
    found = write_static(explorer, tmp_path / "page.html", StaticPage(steps=2))
    assert found["variables"][1]["volume"]
    assert pixels(found["observations"][0]["images"]["scan"]).shape == (8, 26)


# Bad input


def refused(words, capsys):
    assert main(["explore", *map(str, words)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_too_large_pages_are_refused_before_all_is_computed(pictures, tmp_path, monkeypatch):
    page = StaticPage(rows=range(10), steps=8)
    one = len(json.dumps(StaticPage(rows=[0], steps=8).data(pictures)["observations"]))
    monkeypatch.setattr(static, "_MOST_BYTES", 5 * one)
    with pytest.raises(ValueError, match=r"static: expected a file of at most .* but 10 observ"):
        write_static(pictures, tmp_path / "page.html", page)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"choose about --index with [456] rows or --steps [345]"):
        page.data(pictures)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--static", "page.png"], "expected a file ending in .html, but got page.png"),
        (["--static", "no/such/page.html"], "there is no folder no/such"),
        (["--static", "page.html", "--steps", "1"], "steps: expected a whole number of at least 2"),
        (["--static", "page.html", "--index", "99"], "index: expected rows from 0 to 19"),
        (["--static", "page.html", "--seed", "-1"], "seed: expected a whole number"),
        (["--static", "page.html", "--data.root", "x"], "has no root; leave it out"),
    ],
)
def test_bad_options_are_refused(checkpoint, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(["--ckpt_path", checkpoint, *words], capsys)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(checkpoint, tmp_path, capsys):
    path = tmp_path / "page.html"
    path.write_text("mine", encoding="utf-8")
    words = ["--ckpt_path", checkpoint, "--static", path, "--index", "0", "--steps", "2"]
    assert "exists; name a new file, or --overwrite" in refused(words, capsys)
    assert path.read_text(encoding="utf-8") == "mine"
    assert main(["explore", *map(str, words), "--overwrite"]) == 0
    assert "1 observation under 4 interventions on thickness, intensity" in capsys.readouterr().out


def test_a_file_without_data_is_refused(altered, tmp_path, capsys):
    words = ["--ckpt_path", altered(data=None), "--static", tmp_path / "page.html"]
    assert "does not name the data of its training" in refused(words, capsys)


# In a browser


def opened(path, fragment=""):
    """The elements of the page after its script."""
    words = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    address = f"{path.resolve().as_uri()}{fragment}"
    result = subprocess.run(
        [*words, "--virtual-time-budget=3000", address],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return re.sub(r"<script.*?</script>", "", result.stdout.decode(), flags=re.DOTALL)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_link_opens_its_question(page):
    setting = data_of(page)[0]["causes"][1]["settings"][0]
    found = opened(page, f"#index=0&do={setting['text']}")
    assert f">{setting['title']}</h2>" in found
    assert len(re.findall(r'class="arrow cut"', found)) == 1
    assert len(re.findall(r'class="box[^"]* set"', found)) == 1
    assert "--index 0 --out answers" in found
    assert f"test 0: {setting['title']}</button>" in found


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_link_to_another_page_is_explained(page):
    found = opened(page, "#index=7&do=thickness=99")
    assert "The link asks for row 7 under thickness=99, which this page does not have" in found
    assert ">As observed</h2>" in found


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_hostile_texts_make_no_elements(table, tmp_path):
    write_static(table, tmp_path / "page.html", StaticPage(rows=[0, 1], files=[Path("x.ckpt")]))
    found = opened(tmp_path / "page.html")
    assert "<title>x.ckpt: what if?</title>" in found
    assert "<img" not in found
    assert "<b>mm" not in found
    assert "&lt;/script&gt;&lt;script&gt;" in found
    assert ">missing<" in found
