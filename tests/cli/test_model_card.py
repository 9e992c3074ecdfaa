"""``deepscm export --card``: figures of the same weights, and nothing else, beside the model."""

from __future__ import annotations

import json

import pytest

from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.cli import main
from deepscm_pl.digest import weights_digest
from deepscm_pl.reports.card import ModelCard, read_measured


@pytest.fixture
def tested(run):
    """The folder of the evaluation that ended the run."""
    return run[0] / "evaluation"


@pytest.fixture
def export(checkpoint, tmp_path, capsys):
    """Export with cards of folders; return the status, the errors and the folder."""

    def run(*folders):
        words = [
            "export",
            "--ckpt_path",
            str(checkpoint),
            "--out",
            str(tmp_path / "m" / "model.safetensors"),
        ]
        (tmp_path / "m").mkdir(exist_ok=True)
        status = main([*words, *(["--card", *map(str, folders)] if folders else [])])
        return status, capsys.readouterr().err, tmp_path / "m"

    return run


def test_a_card_has_the_figures_of_the_test(export, tested):
    status, _, folder = export(tested)
    assert status == 0
    text = (folder / "README.md").read_text()
    numbers = json.loads((tested / "evaluation.json").read_text())
    assert numbers["association"]["bound/thickness"]["label"] in text
    assert text.startswith("---\nlibrary_name: deepscm_pl\n")
    assert "| thickness | – | " in text
    assert "## Limits" in text
    verdict = numbers["verdict"]
    assert f"Verdict: **{verdict['grade']}** – " in text
    words = [each["sentence"] for each in verdict["verdicts"] if each["grade"] == "bad"]
    shown = [line.replace("\\", "") for line in text.splitlines() if line.startswith("- *bad*: ")]
    assert shown == [f"- *bad*: {each}." for each in words] != []


def test_figures_of_an_earlier_version_have_their_remarks(tested, tmp_path, checkpoint):
    content = json.loads((tested / "evaluation.json").read_text())
    del content["verdict"]
    content["reaction"]["verdicts"] = ["image: untrained"]
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    opened = Checkpoint.read(checkpoint)
    found = {**opened.content, "data": {"class_path": "a.B", "init_args": {"root": "/home/ana"}}}
    scm = opened.trained_model().scm
    text = ModelCard("m", scm, found, "m.safetensors", [read_measured(tmp_path)]).as_markdown()
    assert "- **image: untrained.**" in text
    assert "Verdict: " not in text
    assert "`B`" in text
    assert "/home/ana" not in text


def test_figures_of_other_weights_are_refused_before_anything_is_written(export, tested, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    content = json.loads((tested / "evaluation.json").read_text())
    for digest in ("0" * 64, None):
        (other / "evaluation.json").write_text(json.dumps({**content, "weights": digest}))
        status, error, folder = export(other)
        assert status == 1
        assert "figures of the weights that are exported" in error
        assert not any(folder.iterdir())


def test_no_card_without_figures(export):
    status, _, folder = export()
    assert status == 0
    assert [each.name for each in folder.iterdir()] == ["model.safetensors"]


def test_an_existing_card_is_kept(export, tested):
    _, _, folder = export(tested)
    (folder / "model.safetensors").unlink()
    (folder / "README.md").write_text("mine")
    status, error, _ = export(tested)
    assert status == 1
    assert "README.md exists" in error
    assert [each.read_text() for each in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"rows": 3, "association": {"a": 1}}', '{"rows": null}']
)
def test_broken_figures_are_named(content, tmp_path):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"^card: .*evaluation.json cannot be read .* again by 'deepscm test'.$"
    ):
        read_measured(tmp_path)


def test_a_folder_without_figures_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a folder with evaluation\.json or protocol\.json"):
        read_measured(tmp_path)


def test_figures_of_a_protocol_have_their_floor(checkpoint, tmp_path):
    opened = Checkpoint.read(checkpoint)
    scm = opened.trained_model().scm
    figure = {
        "intervention": "do(thickness ~ train)",
        "variable": "thickness",
        "quantity": "mean absolute error",
        "unit": "px",
        "judge": "morphometry",
        "defined": {"mean": 0.15, "standard_error": 0.01, "rows": 9},
        "floor": 0.12,
    }
    content = {"protocol": "ours", "rows": 9, "weights": weights_digest(scm), "figures": [figure]}
    (tmp_path / "protocol.json").write_text(json.dumps(content))
    card = ModelCard("m|`<b>", scm, opened.content, "model.safetensors", [read_measured(tmp_path)])
    text = card.as_markdown()
    row = "thickness, mean absolute error, px, morphometry | 0.15 ± 0.01 | 0.12 |"
    assert row in text.replace("\\", "")
    assert "<b>" not in text.replace("\\<b\\>", "").replace("\\<b>", "")
