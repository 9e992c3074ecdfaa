"""The parts of the live page as HTML: every text is escaped here."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from functools import cache
from html import escape

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import for_terminal, shortened
from deepscm_pl.explorer.curves import CurvePictures
from deepscm_pl.explorer.graph import draw_boxes
from deepscm_pl.explorer.questions import Explorer, as_png, decimals_of
from deepscm_pl.explorer.session import Curves, Details, Reply
from deepscm_pl.figures.pixels import as_pictures, change_colours, planes_through
from deepscm_pl.interventions import format_do
from deepscm_pl.numerals import MINUS
from deepscm_pl.variables import Variable

__all__ = ["Parts", "format_plain"]

_BOX, _IMAGE_BOX, _THUMB = 50.0, 76.0, 40
_ONE_VALUE = "one value"
_CLASSES = 3
"""Classes whose shares of the particles are shown."""
_CHARACTERS = 20
"""Characters that fit into a box of the graph."""
_PLANES = (
    ("axial", "from above", "L", "R", "A", "P"),
    ("coronal", "from behind", "L", "R", "S", "I"),
    ("sagittal", "from the right", "P", "A", "S", "I"),
)
"""Name, view, and the sides at the left, the right, the top and the bottom."""


def format_plain(variable: Variable, value: float | None, decimals: int) -> str:
    """A value without its unit: the name of a class, or a number with some decimals.

    Example:
        >>> format_plain(Variable("age"), -1234.5, 1), format_plain(Variable("age"), None, 1)
        ('\u22121234.5', 'missing')
    """
    if value is None or not math.isfinite(value):
        return "missing"
    if variable.domain.categories is not None:
        name = variable.classes[int(value)] if variable.classes else f"{value:g}"
        return for_terminal(name)
    if abs(value) >= 1e12 or decimals > 6:
        return f"{value:.3g}".replace("-", MINUS)
    text = f"{value:,.{decimals}f}" if abs(value) >= 1e4 else f"{value:.{decimals}f}"
    is_zero = not any(each in "123456789" for each in text)
    return text.lstrip("-") if is_zero else text.replace("-", MINUS)


class Parts:
    """Writer of the parts of a page about one model.

    Args:
        explorer: The model.
    """

    def __init__(self, explorer: Explorer) -> None:
        self.explorer, self.graph = explorer, explorer.scm.graph
        self.variables = explorer.variables
        self.scalars = [n for n, v in self.variables.items() if v.domain.shape == (1,)]
        self.images = list(explorer.scm.image_variables)
        self.decimals = {n: decimals_of(explorer.scm, n) for n in self.scalars}

    # Texts

    def plain(self, name: str, value: float | None) -> str:
        """A value without its unit."""
        return format_plain(self.variables[name], value, self.decimals[name])

    def full(self, name: str, value: float | None) -> str:
        """A value with its unit."""
        text, unit = self.plain(name, value), for_terminal(self.variables[name].unit)
        return f"{text} {unit}" if unit and text != "missing" else text

    def label(self, name: str) -> str:
        """The name of a variable in words."""
        return for_terminal(self.variables[name].spoken)

    def change(self, name: str, before: float | None, after: float | None) -> str:
        """The change of a value, with its sign."""
        if before is None or after is None:
            return ""
        if self.variables[name].domain.categories is not None:
            return "same" if before == after else "changed"
        text = format_plain(Variable(name), after - before, self.decimals[name])
        if not any(each in "123456789" for each in text):
            return "0"
        return text if text.startswith(MINUS) else f"+{text}"

    def _roles(self, reply: Reply) -> dict[str, str]:
        """What a question does to each variable: ``set``, ``moved``, ``still``, or nothing."""
        do = reply.question.do
        if not do:
            return dict.fromkeys(self.graph, "")
        below = self.graph.descendants(*do)
        return {n: "set" if n in do else "moved" if n in below else "still" for n in self.graph}

    # The question

    def title(self, reply: Reply) -> str:
        """The question with the support of its answer."""
        scene = reply.scene
        if not reply.question.do:
            return (
                '<div class="heading"><h2 class="title" aria-live="polite">As observed</h2>'
                '<p class="verdict">Set a variable to ask what if.</p></div>'
            )
        is_cause = any(self.graph.children(name) for name in reply.question.do)
        about = self._support(scene.verdict, scene.rows) if is_cause else "affects nothing else"
        return (
            f'<div class="heading"><h2 class="title" aria-live="polite">{escape(reply.title)}</h2>'
            f'<p class="verdict"><i class="mark {scene.verdict}"></i><b>{scene.verdict}</b>'
            f"<span>{about}</span></p></div>"
        )

    def _support(self, verdict: str, rows: float | None) -> str:
        near, total = rows or 0.0, int(self.explorer.scm.training_distribution.rows)
        if verdict == "supported" and near < 10:
            return "as near to training rows as these are to each other"
        count = "fewer than 1" if near < 1 else f"about {round(near):,}"
        return f"{count} of {total:,} training rows {'is' if near < 1 else 'are'} near"

    # Images

    def pictures(self, reply: Reply, place: tuple[int, int, int] | None = None) -> str:
        """The factual image, the counterfactual one and their difference, of each image.

        Args:
            reply: The answer.
            place: The voxel through which planes of volumes are shown; None for the middle.
        """
        return "".join(self._trio(name, reply, place) for name in self.images)

    def _trio(self, name: str, reply: Reply, place: tuple[int, int, int] | None) -> str:
        observation = reply.question.observation
        before, after, limit = observation.values[name][0], reply.images[name], reply.limits[name]
        change = (after - before).double()
        mean = float(change.abs().mean())
        about = "none" if mean == 0 else f"{mean:.{1 if mean < 10 else 0}f} grey levels on average"
        title = reply.title if reply.question.do else "nothing is set"
        shown: list[tuple[str, str, str, Tensor, Callable[[NDArray[np.float64]], bytes]]] = [
            ("Factual", observation.title, "as observed", before, _grey),
            ("Counterfactual", title, f"under {title}", after, _grey),
            ("Difference", about, about, change, lambda plane: _signed(plane, limit)),
        ]
        views = self._planes(name, place) if before.dim() == 4 else [_whole]
        scale = self._scale(name, observation.placements.get(name)) if before.dim() == 4 else ""
        figures = ""
        for heading, caption, alt, image, paint in shown:
            pictures = "".join(
                view(image, paint, escape(f"{self.label(name)} of {observation.title}, {alt}"))
                for view in views
            )
            small = f" <span>{escape(caption)}</span>" if caption else ""
            figures += (
                f'<figure><div class="views">{pictures}</div>'
                f"<figcaption><b>{heading}</b>{small}</figcaption></figure>"
            )
        is_colour = before.shape[0] == 3
        bar = (
            f'<div class="bar{" colour" if is_colour else ""}"><i></i><div><span>+{limit:g}</span>'
            f"<span>0</span><span>{MINUS}{limit:g}</span></div>"
            f"<small>grey levels{', each colour' if is_colour else ''}</small></div>"
        )
        kind = "trio wide" if before.dim() == 4 else "trio"
        answered = " is-answered" if reply.question.do else ""
        return f'<div class="{kind}{answered}">{figures}{bar}</div>{scale}'

    def _planes(
        self, name: str, place: tuple[int, int, int] | None
    ) -> list[Callable[[Tensor, Callable[[NDArray[np.float64]], bytes], str], str]]:
        sizes = self.variables[name].domain.shape[1:]
        x, y, z = place or tuple(size // 2 for size in sizes)

        def view(k: int) -> Callable[[Tensor, Callable[[NDArray[np.float64]], bytes], str], str]:
            title, seen, left, right, top, bottom = _PLANES[k]

            def draw(image: Tensor, paint: Callable[[NDArray[np.float64]], bytes], alt: str) -> str:
                plane = planes_through(image, (x, y, z))[k].double().numpy()
                sides = "".join(
                    f'<b class="{side}" aria-hidden="true">{letter}</b>'
                    for side, letter in zip(
                        ("left", "right", "top", "bottom"),
                        (left, right, top, bottom),
                        strict=True,
                    )
                )
                return (
                    f'<span class="plane">{_image(paint(plane), f"{title} plane of {alt}")}'
                    f"{sides}<small>{title}, {seen}</small></span>"
                )

            return draw

        return [view(k) for k in range(3)]

    def _scale(self, name: str, placement: Placement | None) -> str:
        """The sizes of a volume, in mm if its position is known."""
        sizes = self.variables[name].domain.shape[1:]
        if placement is None:
            text = f"{' × '.join(map(str, sizes))} voxels of unknown size; letters assume that"
            return f'<p class="legend">{text} they are ordered from left, posterior, inferior.</p>'
        voxel = np.sqrt((np.asarray(placement.affine)[:3, :3] ** 2).sum(axis=0))
        extent = " × ".join(f"{n * mm:.0f}" for n, mm in zip(sizes, voxel, strict=True))
        length = 10.0 ** math.floor(math.log10(sizes[0] * voxel[0] / 2))
        width = 100 * length / (sizes[0] * voxel[0])
        return (
            f'<p class="legend">{extent} mm, voxels of {voxel[0]:.3g} × {voxel[1]:.3g} × '
            f"{voxel[2]:.3g} mm. The bar is {length:g} mm long in the axial plane:</p>"
            f'<p class="ruler"><i style="width:{width:.1f}%"></i></p>'
        )

    # The graph

    def graph_picture(self, reply: Reply) -> str:
        """The causal graph with factual and counterfactual values."""
        roles, images = self._roles(reply), set(self.images)
        heights = {name: _IMAGE_BOX if name in images else _BOX for name in self.graph}
        drawing = draw_boxes(self.graph, heights)
        shapes = "".join(
            self._edge(each.cause, each.effect, each.path, roles) for each in drawing.curves
        )
        for name, box in drawing.boxes.items():
            middle, role = box.x + box.width / 2, roles[name]
            inner = (
                self._thumbs(name, reply, (middle, box.y + box.height - _THUMB - 8))
                if name in images
                else self._values(name, reply, role, (middle, box.y + 38))
            )
            tip = self.label(name) if name in images else self._told(name, reply, role)
            shapes += (
                f'<g class="box {role}"><title>{escape(tip)}</title>'
                f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
                f'<text class="label" x="{middle}" y="{box.y + 20}" text-anchor="middle">'
                f"{escape(shortened(self.label(name), _CHARACTERS))}</text>{inner}</g>"
            )
        edges = ", ".join(f"{each.cause} to {each.effect}" for each in drawing.curves) or "none"
        told = "; ".join(self._told(name, reply, roles[name]) for name in self.scalars)
        return (
            f'<svg viewBox="0 0 {drawing.width} {drawing.height}" width="{drawing.width}" '
            f'height="{drawing.height}" role="img"><title>{escape(f"Edges: {edges}. {told}.")}'
            f"</title>{shapes}</svg>"
        )

    def _edge(self, cause: str, effect: str, path: str, roles: Mapping[str, str]) -> str:
        is_cut = roles[effect] == "set"
        kind = "cut" if is_cut else "moved" if roles[cause] in ("set", "moved") else ""
        x, y = (float(each) for each in path.rpartition("L")[2].split())
        found = (
            f'<path class="arrow {kind}" d="{path}"/><path class="tip {kind}" '
            f'd="M{x - 4.5} {y - 9}L{x} {y}L{x + 4.5} {y - 9}Z"/>'
        )
        if is_cut:
            found += f'<path class="scissors" d="M{x - 5} {y - 18}l10 10m-10 0l10 -10"/>'
        return found

    def _told(self, name: str, reply: Reply, role: str) -> str:
        before, after = reply.factual.values[name], reply.scene.values[name]
        is_changed = role in ("set", "moved")
        arrow = f"{self.plain(name, before)} → " if is_changed else ""
        return f"{self.label(name)} {arrow}{self.full(name, after if is_changed else before)}"

    def _values(self, name: str, reply: Reply, role: str, at: tuple[float, float]) -> str:
        before, after = reply.factual.values[name], reply.scene.values[name]
        if role in ("set", "moved"):
            old = shortened(self.plain(name, before), _CHARACTERS // 2 - 1)
            room = _CHARACTERS - len(old) - 3
            new = self.full(name, after)
            new = new if len(new) <= room else self.plain(name, after)
            inner = f'{escape(old)} → <tspan class="new">{escape(shortened(new, room))}</tspan>'
        else:
            inner = escape(shortened(self.full(name, before), _CHARACTERS))
        return f'<text class="value" x="{at[0]}" y="{at[1]}" text-anchor="middle">{inner}</text>'

    def _thumbs(self, name: str, reply: Reply, at: tuple[float, float]) -> str:
        (middle, top), found = at, ""
        pairs = zip((reply.factual, reply.scene), (middle - _THUMB - 12, middle + 12), strict=True)
        for scene, x in pairs:
            found += (
                f'<image x="{x}" y="{top}" width="{_THUMB}" height="{_THUMB}" '
                f'href="{_source(as_png(scene.images[name]))}"/>'
            )
        y = top + _THUMB / 2 + 4
        return f'{found}<text class="value" x="{middle}" y="{y}" text-anchor="middle">→</text>'

    # Values

    def values(self, reply: Reply, details: Details | None = None) -> str:
        """The table of numbers and classes, with measured attributes and spread if known."""
        roles = self._roles(reply)
        is_measured = bool(details and details.factual)
        spread = {} if details is None else self._spread(details)
        heads = ["factual", "counter&shy;factual", "change"]
        heads += ["measured in factual", "measured in counter&shy;factual"] if is_measured else []
        heads += ["90 % of particles"] if spread else []
        heads += ["between models"] if details and details.disagreement else []
        head = "".join(f'<th scope="col">{each}</th>' for each in ["variable", *heads])
        body = ""
        for name in self.scalars:
            before, after = reply.factual.values[name], reply.scene.values[name]
            is_changed = roles[name] in ("set", "moved")
            cells = [self.plain(name, before), self.plain(name, after)]
            cells.append(self.change(name, before, after) if is_changed else "–")
            if details and is_measured:
                for found in (details.factual, details.measured):
                    cells.append(self.plain(name, found[name]) if name in found else "")
            if spread:
                cells.append(spread.get(name, ""))
            if details and details.disagreement:
                other = details.disagreement.get(name)
                cells.append("" if other is None else f"±{other:.2g}")
            classes = ("", ' class="now"', ' class="change"')
            row = "".join(
                f"<td{classes[k] if k < len(classes) else ''}>{escape(each)}</td>"
                for k, each in enumerate(cells)
            )
            unit = escape(for_terminal(self.variables[name].unit))
            body += (
                f'<tr class="{roles[name] or "still"}"><th scope="row">{escape(self.label(name))} '
                f"<small>{unit}</small></th>{row}</tr>"
            )
        if not self.scalars:
            return ""
        legend = "" if details is None else self._legend(details, {*spread.values()})
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{legend}"

    def _spread(self, details: Details) -> dict[str, str]:
        """The particles of numbers and classes as texts; empty if none of them differ."""
        found = {}
        for name, ends in details.intervals.items():
            low, high = (self.plain(name, each) for each in ends)
            found[name] = _ONE_VALUE if low == high else f"{low} to {high}"
        for name, shares in details.shares.items():
            likely = [(self.plain(name, k), share) for k, share in shares.items()][:_CLASSES]
            words = [
                f"{shortened(each, _CHARACTERS)} {100 * share:.0f} %" for each, share in likely
            ]
            found[name] = _ONE_VALUE if len(shares) == 1 else ", ".join(words)
        return {} if {*found.values()} <= {_ONE_VALUE} else found

    def _legend(self, details: Details, spread: set[str]) -> str:
        """What the columns mean."""
        found = []
        if details.factual:
            found.append(
                "Measured: read from the images. In the factual image, a difference from the "
                "recorded value is the error of the measurement."
            )
        found += self._about_spread(details, spread)
        return f'<p class="legend">{" ".join(found)}</p>' if found else ""

    def _about_spread(self, details: Details, spread: set[str]) -> list[str]:
        """What the intervals mean."""
        if not (details.intervals or details.shares):
            return []
        found = []
        if spread - {_ONE_VALUE}:
            found.append(
                f"90 % of particles: between the quantiles of 5 % and 95 % of {details.particles} "
                "draws of the noise that the observation does not determine; of classes, their "
                "shares. They are not calibrated, so a lower bound of the uncertainty."
            )
        if not spread or _ONE_VALUE in spread:
            what = "One value" if spread else "No intervals"
            found.append(
                f"{what}: the observation determines the noise, so that all particles agree. This "
                "does not mean that the model makes no error."
            )
        if details.disagreement:
            models = len(self.explorer.model.ensemble.members)
            found.append(f"Between models: the standard deviation of {models} models' answers.")
        return found

    def details(self, reply: Reply, details: Details) -> str:
        """Deviations of images, direct and indirect changes, and effect curves."""
        found = self._deviations(details, reply) + self._changes_of_images(details, reply)
        found = f'<div class="small-figures">{found}</div>' if found else ""
        found += self._changes_of_numbers(details)
        return found + ("" if details.curves is None else self.curves(reply, details.curves))

    def _deviations(self, details: Details, reply: Reply) -> str:
        found = ""
        for name in (each for each in self.images if each in details.deviations):
            deviation = details.deviations[name].double()
            most = max(float(deviation.max()), 1.0)
            picture = _image(_heat(_flat(deviation), most), f"deviation of {self.label(name)}")
            about = f"{float(deviation.mean()):.1f} grey levels on average, at most {most:.0f}"
            about += f"; {self._calibrated(details.half_widths.get(name), reply)}"
            if name in details.disagreement:
                about += f"; between models {details.disagreement[name]:.1f}"
            found += (
                f"<figure>{picture}<figcaption><b>Deviation of {details.particles} particles</b> "
                f"<span>{escape(about)}</span></figcaption></figure>"
            )
        return found

    def _calibrated(self, half_width: float | None, reply: Reply) -> str:
        """The calibrated interval of an image in words."""
        calibration = self.explorer.model.calibration
        if calibration is None or half_width is None:
            return "a lower bound of the uncertainty, because it is not calibrated"
        found = f"interval of {100 * calibration.level:g} % ±{half_width:.1f} on average, "
        found += f"calibrated on {for_terminal(calibration.source)}"
        if not calibration.is_complete:
            return f"{found} without a truth of interventions, so a lower bound"
        is_exact = calibration.is_exact(format_do(reply.question.do, self.variables))
        return found if is_exact else f"{found}, but not for this intervention itself"

    def _changes_of_images(self, details: Details, reply: Reply) -> str:
        found = ""
        for each in (each for each in details.paths if each.name in self.images):
            through = escape(", ".join(self.label(name) for name in each.through))
            for kind, change in (("Direct", each.direct), ("Indirect", each.indirect)):
                painted = _signed(_flat(change.double()), reply.limits[each.name])
                note = f"through {through}" if kind == "Indirect" else f"{through} as observed"
                alt = f"{kind} change of {escape(self.label(each.name))}"
                found += (
                    f"<figure>{_image(painted, alt)}<figcaption><b>{kind} change</b> "
                    f"<span>{note}</span></figcaption></figure>"
                )
        return found

    def _changes_of_numbers(self, details: Details) -> str:
        rows = ""
        for each in (each for each in details.paths if each.name not in self.images):
            through = escape(", ".join(self.label(name) for name in each.through))
            cells = (self.change(each.name, 0.0, float(v)) for v in (each.direct, each.indirect))
            rows += f'<tr><th scope="row">{escape(self.label(each.name))}</th>'
            rows += "".join(f"<td>{cell}</td>" for cell in cells)
            rows += f'<td class="text">{through}</td></tr>'
        if not rows:
            return ""
        return (
            '<h3>Direct and indirect changes</h3><table><thead><tr><th scope="col">variable</th>'
            '<th scope="col">direct</th><th scope="col">indirect</th>'
            f'<th scope="col" class="text">through</th></tr></thead><tbody>{rows}</tbody></table>'
        )

    # Curves

    def curves(self, reply: Reply, curves: Curves) -> str:
        """Effect curves over a cause: this observation among others."""
        marks = {"factual": reply.factual.values}
        if curves.cause in reply.question.do:
            marks["asked"] = reply.scene.values
        drawn = CurvePictures(self.variables, self.plain)
        pictures = "".join(drawn.picture(curves, each, marks) for each in curves.curves)
        return (
            f"<h3>Effect curves over {escape(self.label(curves.cause))}</h3>"
            f'<div class="curves">{pictures}</div><p class="legend">Blue: this observation; open '
            "circle: as observed; faint: other observations of the test split.</p>"
        )


def _whole(image: Tensor, paint: Callable[[NDArray[np.float64]], bytes], alt: str) -> str:
    return _image(paint(image.double().numpy()), alt)


def _flat(image: Tensor) -> NDArray[np.float64]:
    """An image, or the three planes through the middle of a volume, ``(C, H, W)``."""
    return as_pictures(image, image.dim()).numpy()


def _grey(image: NDArray[np.float64]) -> bytes:
    return as_png(image.round().clip(0, 255).astype(np.uint8))


def _signed(change: NDArray[np.float64], limit: float) -> bytes:
    if len(change) == 3:
        return as_png((255 * change_colours(change, limit)).round().astype(np.uint8))
    place = (127.5 + 127.5 * change[0] / limit).round().clip(0, 255).astype(np.uint8)
    return as_png(np.moveaxis(_colours("RdBu_r")[place], -1, 0))


def _heat(deviation: NDArray[np.float64], most: float) -> bytes:
    place = (255 * deviation.mean(axis=0) / most).round().clip(0, 255).astype(np.uint8)
    return as_png(np.moveaxis(_colours("magma")[place], -1, 0))


@cache
def _colours(name: str) -> NDArray[np.uint8]:
    """256 colours ``(256, 3)``."""
    from matplotlib import colormaps

    return colormaps[name](np.arange(256), bytes=True)[:, :3]


def _source(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _image(png: bytes, alt: str) -> str:
    """An element of an image; the description is escaped already."""
    return f'<img src="{_source(png)}" alt="{alt}">'
