"""A stand-in for the Hugging Face Hub that serves and takes files of model repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

REPOSITORY = r"/(?P<repository>[\w.-]+/[\w.-]+)"
COMMIT = "c" * 40


@dataclass
class Hub:
    """Repositories with their files, and what was requested.

    Attributes:
        files: Bytes by repository and name of the file.
        sizes: Sizes that are stated in place of the true ones.
        requested: Method and path of each request.
        private: Repositories that are private.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    address: str = ""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty hub at ``hub.address``."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._path()
        if found := re.fullmatch(f"/api/models{REPOSITORY}(/revision/(?P<revision>.+))?", path):
            self._send_info(**found.groupdict())
        elif found := re.fullmatch(f"{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", path):
            self._send_file(**found.groupdict())
        else:
            self._send(404, b"")

    def do_POST(self) -> None:
        path, body = self._path(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            request = json.loads(body)
            repository = f"{request['organization']}/{request['name']}"
            is_new = repository not in self.hub.files
            self.hub.files.setdefault(repository, {})
            if request.get("private") or request.get("visibility") == "private":
                self.hub.private.add(repository)
            self._send_json({"url": f"{self.hub.address}/{repository}"}, 200 if is_new else 409)
        elif re.fullmatch(f"/api/models{REPOSITORY}/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in files
            ]
            self._send_json({"files": modes})
        elif found := re.fullmatch(f"/api/models{REPOSITORY}/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.files[found["repository"]][line["value"]["path"]] = content
            url = f"{self.hub.address}/{found['repository']}/commit/{COMMIT}"
            self._send_json({"success": True, "commitOid": COMMIT, "commitUrl": url})
        else:
            self._send_json({})

    def _path(self) -> str:
        path = unquote(self.path.partition("?")[0])
        self.hub.requested.append(f"{self.command} {path}")
        return path

    def _send_info(self, repository: str, revision: str | None) -> None:
        if not self._is_there(repository, revision):
            return
        files = self.hub.files[repository]
        siblings = [
            {"rfilename": n, "size": self.hub.sizes.get(n, len(c))} for n, c in files.items()
        ]
        self._send_json({"id": repository, "sha": COMMIT, "siblings": siblings})

    def _send_file(self, repository: str, revision: str, name: str) -> None:
        if not self._is_there(repository, revision):
            return
        content = self.hub.files[repository].get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest()
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _is_there(self, repository: str, revision: str | None) -> bool:
        if repository not in self.hub.files:
            self._send_json({"error": "Repository not found"}, 404, "RepoNotFound")
            return False
        if revision not in (None, "main", "v1", COMMIT):
            self._send_json({"error": "Invalid rev"}, 404, "RevisionNotFound")
            return False
        return True

    def _send_json(self, value: Any, status: int = 200, code: str = "") -> None:
        headers = {"Content-Type": "application/json"} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps(value).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
