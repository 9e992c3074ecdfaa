"""The live page with Gradio, a thin layer over :mod:`deepscm_pl.explorer.session`.

Importing this module imports Gradio; :func:`deepscm_pl.explorer.live.serving` does so only when it
is needed.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepscm_pl.escaping import for_terminal
from deepscm_pl.explorer.exports import export_answer
from deepscm_pl.explorer.page import read_style
from deepscm_pl.explorer.parts import Parts
from deepscm_pl.explorer.questions import OFFERED_PICTURES, OFFERED_ROWS
from deepscm_pl.explorer.session import Observation, Reply, Session, Visit
from deepscm_pl.explorer.uploads import MOST_BYTES, MOST_FILES, read_uploads
from deepscm_pl.shipped.names import model_title

__all__ = ["Guard", "LivePage", "theme"]

_MANY_CLASSES = 16
_WAITING_FILES, _WAITING_BYTES = 64, 4 * MOST_BYTES
"""Uploaded files that nobody has read yet, at most."""
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
_FAMILY = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")
_REMEMBER = "(q) => { window.history.replaceState(null, '', q || window.location.pathname); }"
_SEARCH = "() => [window.location.search]"

_LOG = logging.getLogger(__name__)

Updates = dict[Any, Any]


def theme() -> gr.themes.Base:
    """The theme: fonts of the visitor's system, and none from a network."""
    return gr.themes.Default(font=_FAMILY, font_mono=_MONO)


class Guard:
    """Refuse uploads beyond the limits, and forbid the browser to load anything from elsewhere.

    Args:
        app: The application.
        folder: The folder of uploads.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app, self.folder = app, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            reason = self._refusal(dict(scope["headers"]))
            if reason:
                await PlainTextResponse(reason, status_code=413)(scope, receive, send)
                return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _refusal(self, headers: Mapping[bytes, bytes]) -> str:
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > MOST_BYTES + 100_000:
            return f"An upload has at most {MOST_BYTES:,} bytes."
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        waiting = sum(path.stat().st_size for path in files)
        if len(files) > _WAITING_FILES + OFFERED_PICTURES or waiting > _WAITING_BYTES:
            return "Too many uploads are waiting; use or remove them first."
        return ""


class LivePage:
    """The page of a model.

    Args:
        session: The model and its visitors.
        folder: An empty folder for uploads and exports.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder = session, folder
        self.explorer = session.explorer
        self.parts = Parts(self.explorer)
        self.causes = [cause.name for cause in session.causes]
        self.volumes = [
            name
            for name in self.explorer.scm.image_variables
            if len(self.explorer.variables[name].domain.shape) == 4
        ]
        visit = Visit(session)  # so that the first slider is as fast as the others
        visit.set(self.causes[0], self.session.causes[0].settings[0].value)
        visit.ask()
        self.blocks = self._build()

    def start(self, host: str, port: int, is_local: bool) -> None:
        """Start to serve the page in the background."""
        # Pages elsewhere cannot reach it under a name of theirs.
        hosts = ["127.0.0.1", "localhost", host] if is_local else []
        self._launch(
            hosts, server_name=host, server_port=port, quiet=True, prevent_thread_lock=True
        )

    def run(self) -> None:
        """Serve the page where the environment of Gradio says, and do not return."""
        self._launch([])

    def _launch(self, hosts: Sequence[str], **where: Any) -> None:
        middleware = [Middleware(Guard, folder=self.folder)]
        if hosts:
            middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts]))
        self.blocks.launch(
            share=False,
            inbrowser=False,
            max_file_size=MOST_BYTES,
            ssr_mode=False,
            run_history=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            footer_links=[],
            app_kwargs={"middleware": middleware},
            theme=theme(),
            css=read_style("parts.css", "live.css"),
            **where,
        )

    def stop(self) -> None:
        """Stop serving."""
        self.blocks.close(verbose=False)

    # The page

    def _build(self) -> gr.Blocks:
        model = ", ".join(map(model_title, self.session.programs.files)) or "a model"
        title = for_terminal(f"{model}: what if?")
        with gr.Blocks(title=title, analytics_enabled=False) as blocks:
            about = f"{model} · {self.explorer.count:,} observations of the test split"
            self._html("head", f"<h1>What if?</h1><p>{escape(for_terminal(about))}</p>")
            self.notice = self._html("notice")
            self._build_observations()
            with gr.Row():
                with gr.Column(scale=1, min_width=290):
                    self._build_controls()
                with gr.Column(scale=3, min_width=320):
                    self.question = self._html("question")
                    self.pictures = self._html("pictures")
                    self._build_planes()
                    with gr.Row():
                        with gr.Column(scale=2, min_width=300):
                            self.graph = self._html("graph")
                        with gr.Column(scale=3, min_width=380):
                            self.values = self._html("values")
                    self.more = self._html("more")
            self._build_programs()
            self._html(
                "foot", '<p class="footnote">Answers of a model under its graph, not facts.</p>'
            )
            self._listen(blocks)
        return blocks

    @staticmethod
    def _html(name: str, value: str = "") -> gr.HTML:
        return gr.HTML(value, elem_id=name, apply_default_css=False, padding=False)

    def _build_observations(self) -> None:
        count, explorer = self.explorer.count, self.explorer
        images = explorer.scm.image_variables
        self.gallery = None
        with gr.Group():
            if images:
                rows = range(min(OFFERED_PICTURES, count))
                shown = [(self._thumbnail(row), explorer.title(row)) for row in rows]
                self.gallery = gr.Gallery(
                    shown,
                    show_label=False,
                    columns=12,
                    height="auto",
                    allow_preview=False,
                    format="png",
                    buttons=[],
                    interactive=False,
                    elem_id="thumbnails",
                )
            self.row = gr.Number(
                0,
                label=f"Row of the test split, from 0 to {count - 1}",
                precision=0,
                minimum=0,
                maximum=count - 1,
                elem_id="row",
            )
            choices = [(self._described(row), row) for row in range(min(OFFERED_ROWS, count))]
            self.table = gr.Dropdown(
                choices, value=0, label="Observation", visible=not images, elem_id="table"
            )
        with gr.Accordion("Your own observation", open=False, elem_id="own"):
            self._build_upload()

    def _thumbnail(self, row: int) -> np.ndarray[Any, Any]:
        image = self.explorer.observe(row).images[self.explorer.scm.image_variables[0]]
        return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)

    def _described(self, row: int) -> str:
        values = self.explorer.describe(self.explorer.factual(row), is_measured=False).values
        told = ", ".join(
            f"{self.parts.label(n)} {self.parts.full(n, v)}" for n, v in values.items()
        )
        return f"{self.explorer.title(row)}: {told}"

    def _build_upload(self) -> None:
        image = next(iter(self.explorer.scm.image_variables), None)
        kinds = "a table" if image is None else f"{self.parts.label(image)}, or several and a table"
        self.files = gr.File(
            label=f"Files: {kinds}; at most {MOST_FILES}",
            file_count="multiple",
            type="filepath",
            height=120,
            elem_id="files",
        )
        self.attributes: dict[str, gr.Textbox] = {}
        with gr.Row():
            for name in self.parts.scalars:
                classes = self.explorer.variables[name].classes
                hint = for_terminal(" or ".join(classes[:4])) if classes else ""
                self.attributes[name] = gr.Textbox(
                    label=for_terminal(self.explorer.variables[name].label),
                    placeholder=hint or "empty: inferred",
                    min_width=120,
                    max_lines=1,
                )
        self.use = gr.Button("Ask about it", elem_id="use", size="sm")
        self.uploaded = gr.Radio([], label="Uploaded", visible=False, elem_id="uploaded")

    def _build_controls(self) -> None:
        labels = [(self.parts.label(name), name) for name in self.causes]
        self.held = gr.CheckboxGroup(
            labels, label="Set variables; the others follow", elem_id="held"
        )
        self.controls: dict[str, Any] = {name: self._control(name) for name in self.causes}
        self.reset = gr.Button("As observed", elem_id="reset", size="sm")
        self.history = gr.Radio([], label="History", visible=False, elem_id="history")

    def _control(self, name: str) -> Any:
        variable = self.explorer.variables[name]
        label, identity = for_terminal(variable.label), f"control-{self.causes.index(name)}"
        count = variable.domain.categories
        if count is not None:
            choices = [(for_terminal(variable.format(float(k))), k) for k in range(count)]
            kind: Any = gr.Radio if count <= _MANY_CLASSES else gr.Dropdown
            return kind(choices, label=label, elem_id=identity)
        low, high = self.session.limits(name)
        return gr.Slider(
            low, high, low, step=self.session.step(name), label=label, elem_id=identity, buttons=[]
        )

    def _build_planes(self) -> None:
        self.planes: list[gr.Slider] = []
        if not self.volumes:
            return
        sizes = self.explorer.variables[self.volumes[0]].domain.shape[1:]
        names = ("sagittal: left to right", "coronal: back to front", "axial: bottom to top")
        with gr.Row():
            for size, name in zip(sizes, names, strict=True):
                self.planes.append(
                    gr.Slider(0, size - 1, size // 2, step=1, label=name, min_width=120, buttons=[])
                )

    def _build_programs(self) -> None:
        with gr.Accordion("The same question", open=False, elem_id="programs"):
            self.command = gr.Code(label="On the command line", language="shell", lines=1)
            self.python = gr.Code(label="In Python", language="python", lines=1)
            self.link = gr.Textbox(
                label="Link: add it to the address of this page", interactive=False, elem_id="link"
            )
            self.export = gr.Button("Make files: picture, CSV, NIfTI", elem_id="export", size="sm")
            self.exported = gr.File(
                label="Files", interactive=False, visible=False, elem_id="exported"
            )

    # Events

    def _listen(self, blocks: gr.Blocks) -> None:
        fast: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        last: dict[str, Any] = {**fast, "trigger_mode": "always_last"}
        plain: dict[str, Any] = {**last, "postprocess": False}  # texts and numbers need none
        # Gradio makes each component anew that an event may change, so few of them are named.
        answer = [self.notice, self.question, self.pictures, self.graph, self.values, self.held]
        everything = [*answer, *self.controls.values(), *self._chosen()]
        rest = [self.values, self.more, self.history, self.command, self.python, self.link]

        def then_details(event: Any) -> None:
            event.then(self._details, None, rest, **last).then(
                None, [self.link], None, js=_REMEMBER, **fast
            )

        for name, control in self.controls.items():
            changed = self._setter(name)
            others = [each for each in self.controls.values() if each is not control]
            then_details(control.input(changed, [control], [*answer, *others], **plain))
        all_controls = [*answer, *self.controls.values()]
        then_details(self.held.input(self._hold, [self.held], all_controls, **plain))
        then_details(self.reset.click(self._reset, None, all_controls, **fast))
        then_details(self.row.input(self._choose, [self.row], everything, **last))
        then_details(self.table.input(self._choose, [self.table], everything, **last))
        if self.gallery is not None:
            then_details(self.gallery.select(self._select, None, everything, **last))
        then_details(self.history.input(self._follow, [self.history], everything, **fast))
        given: set[Any] = {self.files, *self.attributes.values()}
        then_details(self.use.click(self._upload, given, everything, queue=False))
        then_details(self.uploaded.input(self._choose_upload, [self.uploaded], everything, **fast))
        for plane in self.planes:
            plane.input(self._scroll, self.planes, [self.pictures], **last)
        self.export.click(self._export, None, [self.exported, self.notice], queue=False)
        then_details(blocks.load(self._follow, [self.link], everything, js=_SEARCH, **fast))
        blocks.unload(self._leave)

    def _chosen(self) -> list[Any]:
        """What changes with the observation."""
        return [self.row, self.table, self.uploaded, self.files, *self.planes]

    def _visit(self, request: gr.Request) -> Visit:
        return self.session.visit(str(request.session_hash))

    def _attempt(
        self, request: gr.Request, act: Callable[[Visit], Any], moving: str | None = None
    ) -> Updates:
        """Act for a visitor, and show the answer or the reason why there is none."""
        visit = self._visit(request)
        before = visit.observation
        notice = ""
        try:
            act(visit)
            reply = visit.ask()
        except (ValueError, OSError) as error:
            notice = str(error)
        except Exception:
            _LOG.exception("the question of a visitor failed")
            notice = "The question failed; the terminal shows why. Ask another one."
        if notice:
            if visit.reply is None:
                reply = visit.ask()
            else:
                return {self.notice: _notice(notice)}
        found = self._updates(visit, reply, moving, is_new=visit.observation is not before)
        return found | {self.notice: _notice(notice)}

    def _updates(self, visit: Visit, reply: Reply, moving: str | None, is_new: bool) -> Updates:
        found: Updates = {
            self.question: self.parts.title(reply),
            self.pictures: self.parts.pictures(reply, visit.place),
            self.graph: self.parts.graph_picture(reply),
            self.values: self.parts.values(reply),
            self.held: [*reply.question.do],
        }
        if is_new:
            row = visit.observation.row
            found[self.row] = row
            found[self.table] = row if row is not None and row < OFFERED_ROWS else None
            for plane, size in zip(self.planes, self._sizes(), strict=True):
                found[plane] = size // 2
        for name, control in self.controls.items():
            if name != moving:
                found[control] = self._placed(name, reply, visit)
        return found

    def _sizes(self) -> Sequence[int]:
        return self.explorer.variables[self.volumes[0]].domain.shape[1:] if self.volumes else ()

    def _placed(self, name: str, reply: Reply, visit: Visit) -> Any:
        """The value of a control, or a control with other ends where the value lies beyond them."""
        value = reply.scene.values[name]
        if self.explorer.variables[name].domain.categories is not None:
            return None if value is None else int(value)
        low, high = self.session.limits(name)
        if value is None or not math.isfinite(value):
            value = low
        shown = round(value, self.parts.decimals[name])
        if low <= shown <= high and name not in visit.widened:
            return shown  # without making the control anew, which takes longer
        if low <= shown <= high:
            visit.widened.remove(name)
        else:
            visit.widened.add(name)
        return gr.Slider(minimum=min(low, shown), maximum=max(high, shown), value=shown)

    def _setter(self, name: str) -> Callable[[Any, gr.Request], Updates]:
        def moved(value: Any, request: gr.Request) -> Updates:
            number = float(f"{value:.12g}") if isinstance(value, float) else value
            return self._attempt(request, lambda visit: visit.set(name, number), moving=name)

        return moved

    def _hold(self, names: list[str], request: gr.Request) -> Updates:
        return self._attempt(request, lambda visit: visit.hold(names))

    def _reset(self, request: gr.Request) -> Updates:
        return self._attempt(request, lambda visit: visit.hold([]))

    def _choose(self, row: Any, request: gr.Request) -> Updates:
        return self._attempt(request, lambda visit: visit.choose(_row(row)))

    def _select(self, event: gr.SelectData, request: gr.Request) -> Updates:
        return self._attempt(request, lambda visit: visit.choose(_row(event.index)))

    def _follow(self, link: str, request: gr.Request) -> Updates:
        return self._attempt(request, lambda visit: visit.follow(str(link or "")))

    def _leave(self, request: gr.Request) -> None:
        key = str(request.session_hash)
        self.session.leave(key)
        shutil.rmtree(self._exports(key), ignore_errors=True)

    def _scroll(self, x: float, y: float, z: float, request: gr.Request) -> Updates:
        visit = self._visit(request)
        if visit.reply is None:
            return {self.pictures: gr.skip()}
        sizes = self._sizes()
        x, y, z = (min(max(int(v), 0), n - 1) for v, n in zip((x, y, z), sizes, strict=True))
        visit.place = int(x), int(y), int(z)
        return {self.pictures: self.parts.pictures(visit.reply, visit.place)}

    def _details(self, request: gr.Request) -> Updates:
        visit = self._visit(request)
        reply = visit.reply
        skipped = (self.values, self.more, self.history, self.command, self.python, self.link)
        try:
            details = None if reply is None else visit.details(reply)
        except ValueError as error:
            return dict.fromkeys(skipped, gr.skip()) | {self.more: _notice(str(error))}
        if reply is None or details is None:
            return dict.fromkeys(skipped, gr.skip())
        return {
            self.values: self.parts.values(reply, details),
            self.more: self.parts.details(reply, details),
            self.history: self._asked(visit),
            self.command: visit.command,
            self.python: visit.python,
            self.link: visit.link,
        }

    def _asked(self, visit: Visit) -> Any:
        choices = [(title, link) for title, link in visit.asked if link]
        value = visit.link if visit.do and any(visit.link == link for _, link in choices) else None
        return gr.Radio(choices=choices, value=value, visible=bool(choices))

    # Files

    def _upload(self, given: Mapping[Any, Any], request: gr.Request) -> Updates:
        paths = [Path(each) for each in given[self.files] or []]
        attributes = {name: given[field] for name, field in self.attributes.items()}
        found: list[Observation] = []

        def read(visit: Visit) -> None:
            found.extend(read_uploads(self.explorer, paths, attributes))
            visit.uploads = found
            visit.choose(found[0])

        try:
            updates = self._attempt(request, read)
        finally:
            self._remove(paths)
        updates[self.files] = None
        if found:
            choices = [(each.title, k) for k, each in enumerate(found)]
            updates[self.uploaded] = gr.Radio(choices=choices, value=0, visible=len(found) > 1)
        return updates

    def _choose_upload(self, number: int, request: gr.Request) -> Updates:
        return self._attempt(request, lambda visit: visit.choose(visit.uploads[int(number)]))

    def _remove(self, paths: Sequence[Path]) -> None:
        """Remove uploaded files, which have been read."""
        root = self.folder.resolve()
        for path in paths:
            if path.resolve().is_relative_to(root):
                path.unlink(missing_ok=True)

    def _exports(self, key: str) -> Path:
        return self.folder / "exports" / "".join(each for each in key if each.isalnum())

    def _export(self, request: gr.Request) -> Updates:
        visit = self._visit(request)
        folder = self._exports(str(request.session_hash))
        try:
            os.makedirs(folder, exist_ok=True)
            paths = export_answer(self.explorer, visit.reply or visit.ask(), folder)
        except (ValueError, OSError) as error:
            return {self.notice: _notice(str(error)), self.exported: gr.skip()}
        return {
            self.exported: gr.File(value=[str(path) for path in paths], visible=True),
            self.notice: "",
        }


def _row(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("row: expected a whole number.") from None


def _notice(text: str) -> str:
    shown = escape(for_terminal(text))
    return f'<p class="notice" role="alert">{shown}</p>' if text else ""
