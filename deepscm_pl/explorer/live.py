"""Serving the live page on this machine: its port, its folder, and its end."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deepscm_pl.checks import whole_number
from deepscm_pl.escaping import for_terminal
from deepscm_pl.explorer.session import Session
from deepscm_pl.files import exit_on_termination

__all__ = [
    "Place",
    "choose_port",
    "gradio_settings",
    "open_browser",
    "require_gradio",
    "serve",
    "serving",
]

_FIRST_PORT, _PORTS = 7860, 40
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Place:
    """Where a page is served.

    Attributes:
        host: The address of this machine that it is bound to.
        port: The port; None for the first free one from 7860.
        is_opened: Whether to open it in the browser.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    is_opened: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK


def require_gradio() -> None:
    """Raise ValueError unless Gradio is installed."""
    if find_spec("gradio") is None:
        raise ValueError(
            "explore: the live page needs Gradio, which is not installed; run pip install "
            "'deepscm_pl[explore]', or write a page that needs no server with --static FILE.html."
        )


def choose_port(place: Place) -> int:
    """Find a free port.

    Raises:
        ValueError: If the given one is taken, no port is free, or the host is not of this machine.
    """
    if place.port is not None:
        whole_number("port", place.port, least=1, most=65535)
        if (reason := _refusal(place.host, place.port)) is None:
            return place.port
        start = min(place.port + 1, 65535)
        free = _first_free(place.host, range(start, min(start + _PORTS, 65536)))
        hint = "choose another" if free is None else f"{free} is free: add --port {free}"
        raise ValueError(f"port: {place.port} cannot be used ({reason}); {hint}.")
    free = _first_free(place.host, range(_FIRST_PORT, _FIRST_PORT + _PORTS))
    if free is None:
        reason = _refusal(place.host, _FIRST_PORT)
        raise ValueError(
            f"port: none from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} can be used at "
            f"{place.host} ({reason}); choose another with --port, or another --host."
        )
    return free


def _first_free(host: str, ports: range) -> int | None:
    return next((port for port in ports if _refusal(host, port) is None), None)


def _refusal(host: str, port: int) -> str | None:
    """The reason why a port cannot be used; None if it is free."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def open_browser(address: str) -> bool:
    """Open an address in the browser, and return whether there is one with a window."""
    try:
        return _has_screen() and webbrowser.open(address)
    except (webbrowser.Error, OSError):
        return False


def _has_screen() -> bool:
    """Whether a browser can have a window: one in the terminal would not show the page."""
    if sys.platform in ("darwin", "win32") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def serving(session: Session, place: Place) -> Iterator[tuple[str, Path]]:
    """Serve the live page while the block runs.

    Yields:
        The address, and the temporary folder of uploads and exports, which is removed at the end.

    Raises:
        ValueError: If Gradio is not installed, or the port cannot be used.
    """
    require_gradio()
    port = choose_port(place)
    with tempfile.TemporaryDirectory(prefix="deepscm-explore-") as folder, gradio_settings(folder):
        from deepscm_pl.explorer.server import LivePage

        page = LivePage(session, Path(folder))
        page.start(place.host, port, place.is_local)
        try:
            host = f"[{place.host}]" if ":" in place.host else place.host
            yield f"http://{host}:{port}/", Path(folder)
        finally:
            page.stop()


@contextmanager
def gradio_settings(folder: str) -> Iterator[None]:
    """Set the environment of Gradio while the block runs: its folder, and no telemetry."""
    wanted = {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def serve(session: Session, place: Place, wait: Callable[[], None] | None = None) -> None:
    """Serve the live page until Ctrl+C or SIGTERM, and print its address.

    Args:
        session: The model.
        place: Where it is served.
        wait: Returns when the page should end; None to wait for ever.

    Raises:
        ValueError: As of :func:`serving`.
    """
    with exit_on_termination(), serving(session, place) as (address, _):
        print(f"page: {for_terminal(address)}", flush=True)
        if not place.is_local:
            print("Everyone who can reach this machine can open it and upload files.", flush=True)
        if place.is_opened and not open_browser(address):
            print("no browser was found; open the address yourself.", flush=True)
        print("Ctrl+C ends it.", flush=True)
        try:
            (wait or _for_ever)()
        except KeyboardInterrupt:
            print("\nended.")


def _for_ever() -> None:
    while True:
        time.sleep(3600)
