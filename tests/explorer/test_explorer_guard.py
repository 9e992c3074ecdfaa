"""What the live page refuses, over HTTP and without a browser."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.explorer import Explorer
from deepscm_pl.explorer.live import Place, serving
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.session import Session

pytest.importorskip("gradio")
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="../../a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n%d\r\n--b--\r\n"
)


@pytest.fixture(scope="module")
def served(pictures):
    with serving(Session(pictures, Programs([Path("last.ckpt")])), Place()) as found:
        yield found


def page_of(explorer, folder):
    """A page that is not served."""
    from deepscm_pl.explorer.server import LivePage

    return LivePage(Session(explorer, Programs([Path("last.ckpt")])), folder)


def answered(address, data=None, **headers):
    """The status and the headers of an answer."""
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def announced(address, length):
    """The status of an upload of which only the length is sent, or nothing about it."""
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    if length is not None:
        connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_browser_may_load_nothing_from_elsewhere(served):
    status, headers = answered(served[0])
    assert status == 200
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self' data: blob:")
    assert "http" not in policy
    assert "*" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_files_of_the_machine_and_other_names_of_it_are_refused(served):
    assert answered(f"{served[0]}gradio_api/file=/etc/passwd")[0] in (403, 404)
    assert answered(f"{served[0]}gradio_api/file={Path(__file__)}")[0] in (403, 404)
    assert answered(served[0], Host="evil.example")[0] == 400
    assert answered(served[0], Host="localhost")[0] == 200


def test_uploads_that_are_too_large_are_refused_by_their_length(served):
    assert announced(served[0], 65_000_000) == 413
    assert announced(served[0], None) == 413


def test_a_flood_of_uploads_is_refused_and_stays_in_the_folder(served, monkeypatch):
    from deepscm_pl.explorer import server

    address, folder = served
    kept = len([path for path in folder.rglob("*") if path.is_file()])
    monkeypatch.setattr(server, "_WAITING_FILES", kept - server.OFFERED_PICTURES + 3)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    send = [answered(f"{address}gradio_api/upload", BODY % k, **kind)[0] for k in range(8)]
    assert send == [200] * 4 + [413] * 4
    assert not list(folder.parent.glob("a.png"))
    files = list(folder.rglob("a.png"))
    assert len(files) == 4
    for path in files:
        path.unlink()
    monkeypatch.setattr(server, "_WAITING_BYTES", 10)
    assert answered(f"{address}gradio_api/upload", BODY % 9, **kind)[0] == 413


def test_only_files_of_the_page_are_removed(pictures, tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    page, requests = page_of(pictures, folder), [SimpleNamespace(session_hash=k) for k in "ab"]
    mine, upload = tmp_path / "mine.png", folder / "upload.png"
    for path in (mine, upload):
        path.write_bytes(b"x")
    page._remove([mine, folder / ".." / "mine.png", upload])
    assert mine.exists()
    assert not upload.exists()
    for request in requests:
        page._export(request)
    page._leave(requests[0])
    assert [path.name for path in (folder / "exports").iterdir()] == ["b"]


def test_a_slider_reaches_a_value_beyond_its_ends(pictures, tmp_path):
    page = page_of(pictures, tmp_path)
    visit = page.session.visit("a")
    low, high = page.session.limits("thickness")
    beyond = {**visit.observation.values, "thickness": torch.tensor([[high + 1]])}
    visit.choose(replace(visit.observation, values=beyond))
    found = page._placed("thickness", visit.ask(), visit)
    assert (found.minimum, found.maximum) == (low, pytest.approx(high + 1, abs=0.01))
    assert found.value == found.maximum


def test_planes_of_another_volume_are_in_its_middle(volumes, tmp_path):
    scm, data = volumes
    page = page_of(Explorer(TrainedModel.of(scm), data), tmp_path)
    request = SimpleNamespace(session_hash="a")
    page._choose(0, request)
    page._scroll(1, 2, 3, request)
    found = page._choose(1, request)
    assert [found[plane] for plane in page.planes] == [4, 4, 4]


def test_only_this_machine_is_served_unless_asked(served):
    assert served[0].startswith("http://127.0.0.1:")
    assert Place().is_local
    assert not Place(host="0.0.0.0").is_local


def test_nothing_is_reported_to_anyone(served):
    from gradio import analytics

    assert not analytics.analytics_enabled()
