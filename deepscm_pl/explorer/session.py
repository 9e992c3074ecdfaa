"""The live explorer without its page: visitors, their questions, and the answers."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlencode

import numpy as np
import torch
from torch import Tensor

from deepscm_pl.data.placement import Placement
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.escaping import for_terminal, one_line
from deepscm_pl.explorer.abduction import Abduction, average
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.questions import Explorer, Scene, decimals_of, do_text, values_to_set
from deepscm_pl.figures.pixels import difference_limit
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.moments import Moments
from deepscm_pl.scm import summarise

__all__ = [
    "Curve",
    "Curves",
    "Details",
    "Observation",
    "Paths",
    "Question",
    "Reply",
    "Session",
    "Visit",
]

_MOST_VISITS = 64
_MOST_KEPT, _KEPT_NUMBERS = 128, 2**27
"""Observations whose noise is kept, and the numbers that they may have in all."""
_HISTORY = 12
_PARTICLES, _DRAWN_NUMBERS = 16, 2**24
"""Particles, fewer if their images have more numbers."""
_NUMBERS_AT_A_TIME = 2**18
"""Numbers of particles that are drawn before another question may be answered."""
_LEVEL = 0.9
_STEPS, _OTHERS = 15, 24
"""Points of an effect curve, and the other observations that it is compared with."""
_LONGEST_LINK = 2000

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Steps: TypeAlias = Generator[None, None, dict[str, Any]]
"""A computation that pauses where another question may be answered."""


@dataclass(frozen=True, eq=False)
class Observation:
    """An observation that is asked about.

    Attributes:
        title: A name for people.
        values: ``(1, *event)`` of every variable; missing numbers and classes are NaN.
        row: The row of the test split; None if it is from elsewhere.
        placements: The position of each image in the scanner, where known.
    """

    title: str
    values: Mapping[str, Tensor]
    row: int | None = None
    placements: Mapping[str, Placement] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Question:
    """A question: what would have been observed, had variables been set to values."""

    observation: Observation
    do: Mapping[str, float]

    def is_same(self, other: Question) -> bool:
        """Whether another question has the same observation and intervention."""
        return self.observation is other.observation and dict(self.do) == dict(other.do)


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to a question, which is computed first.

    Attributes:
        question: The question.
        title: The intervention with units.
        factual: The observation as plain data.
        scene: The answer as plain data.
        images: The mean images of the answer, ``(*event)``.
        limits: The ends of the colour scales of differences, by image.
        ticket: The number of the question of this visitor.
    """

    question: Question
    title: str
    factual: Scene
    scene: Scene
    images: Mapping[str, Tensor]
    limits: Mapping[str, float]
    ticket: int


@dataclass(frozen=True, eq=False)
class Paths:
    """The direct and the indirect part of the change of a variable, which need not add up.

    Attributes:
        name: The variable.
        through: The mediators.
        direct: The change with the mediators at their factual values, ``(*event)``.
        indirect: The change with only the mediators at their counterfactual values, ``(*event)``.
    """

    name: str
    through: Sequence[str]
    direct: Tensor
    indirect: Tensor


@dataclass(frozen=True)
class Curve:
    """The answers for one variable over the values of a cause.

    Attributes:
        name: The variable.
        own: The answers about the observation.
        others: Those about other observations of the test split.
    """

    name: str
    own: Sequence[float]
    others: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Curves:
    """Effect curves over one cause."""

    cause: str
    values: Sequence[float]
    curves: Sequence[Curve]


@dataclass(frozen=True, eq=False)
class Details:
    """What is computed once a visitor rests at a question.

    Attributes:
        factual: Attributes measured in the observed image.
        measured: Attributes measured in the counterfactual one.
        particles: The number of particles.
        deviations: Their standard deviation, ``(*event)`` of each number and image that changes.
        intervals: 90 % intervals of numbers, from quantiles of the particles. Both ends are equal
            if the observation determines the noise, such as that of invertible mechanisms.
        shares: The share of the particles in each class, of classes that change.
        half_widths: Mean half-widths of calibrated intervals of images, in grey levels.
        disagreement: The standard deviation between models, of each number and, as root mean square
            over pixels, of each image; empty for a single model.
        paths: Direct and indirect changes of variables that have both.
        curves: Effect curves over the variable that was set last; None without any.
    """

    factual: Mapping[str, float | None]
    measured: Mapping[str, float | None]
    particles: int
    deviations: Mapping[str, Tensor]
    intervals: Mapping[str, tuple[float, float]]
    shares: Mapping[str, Mapping[int, float]]
    half_widths: Mapping[str, float]
    disagreement: Mapping[str, float]
    paths: Sequence[Paths]
    curves: Curves | None


class _Recent(OrderedDict[_Key, _Value]):
    """The last few entries."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def add(self, key: _Key, value: _Value) -> _Value:
        self[key] = value
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return value


class Turns:
    """Computations one at a time; answers go before details, which others may wait for.

    Example:
        >>> turns = Turns()
        >>> with turns.take(is_urgent=True):
        ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._urgent = 0

    @contextmanager
    def take(self, is_urgent: bool) -> Iterator[None]:
        """Wait for a turn, and have it while the block runs.

        Args:
            is_urgent: Whether to go before those that are not.

        Raises:
            RuntimeError: If this thread has the turn already: it would wait for itself.
        """
        with self._changed:
            if self._owner == threading.get_ident():
                raise RuntimeError("turns: this thread has the turn already; end it first.")
            self._urgent += is_urgent
            try:
                self._changed.wait_for(
                    lambda: self._owner is None and (is_urgent or not self._urgent)
                )
            finally:
                self._urgent -= is_urgent
            self._owner = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()


class Session:
    """A model and its visitors. Models answer one question at a time.

    Args:
        explorer: The model and its observations.
        programs: How it was opened, for commands.

    Raises:
        ValueError: If no variable can be set.
    """

    def __init__(self, explorer: Explorer, programs: Programs) -> None:
        self.explorer, self.programs = explorer, programs
        self.causes = explorer.causes(steps=2)
        self.turns = Turns()
        self._lock = threading.Lock()
        self._visits: _Recent[str, Visit] = _Recent(_MOST_VISITS)
        self.particles = self._particles()
        self._portions = [*self._portioned()]
        numbers = 2 * self._numbers * self.particles  # of the values and of their noise
        most = min(max(_KEPT_NUMBERS // numbers, 2), _MOST_KEPT)
        self._kept: _Recent[tuple[int, int | None], tuple[Observation, Abduction]] = _Recent(
            most * (1 + len(self._portions))
        )

    @property
    def _numbers(self) -> int:
        shapes = [each.domain.shape for each in self.explorer.variables.values()]
        return sum(map(math.prod, shapes))

    def _particles(self) -> int:
        """The number of particles of details."""
        model = self.explorer.model
        if model.calibration is not None:
            return model.calibration.particles
        fitting = max(min(_DRAWN_NUMBERS // self._numbers, _PARTICLES), 2)
        return max(fitting, 2 * len(model.ensemble.members))

    def _portioned(self) -> Iterator[tuple[Ensemble, int]]:
        """Divide the particles of details into portions of one model each."""
        ensemble, most = self.explorer.model.ensemble, max(_NUMBERS_AT_A_TIME // self._numbers, 1)
        for member, share in zip(ensemble.members, ensemble.share(self.particles), strict=True):
            for first in range(0, share, most):
                yield Ensemble([member]), min(most, share - first)

    def abduction(self, observation: Observation) -> Abduction:
        """The noise of an observation for its answers, inferred the first time."""
        model = self.explorer.model
        return self._inferred(observation, None, model.ensemble, model.particles(None))

    def particles_of(
        self, observation: Observation, do: Mapping[str, float]
    ) -> Generator[None, None, dict[str, Tensor]]:
        """Draw :attr:`particles` of an answer, ``(P, 1, *event)``, in the order of the models."""
        found = []
        for number, (ensemble, share) in enumerate(self._portions):
            found.append(self._inferred(observation, number, ensemble, share).draws(do))
            yield
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def _inferred(
        self,
        observation: Observation,
        portion: int | None,
        ensemble: Ensemble,
        particles: int | None,
    ) -> Abduction:
        key = id(observation), portion
        if key not in self._kept:
            seed = self.explorer.seed + (portion or 0)
            found = Abduction.infer(ensemble, observation.values, particles, seed)
            # The observation is kept, too, so that no other one gets its identity.
            self._kept.add(key, (observation, found))
        return self._kept.add(key, self._kept[key])[1]

    def visit(self, key: str) -> Visit:
        """The visitor with a key, new ones at the first row of the test split."""
        with self._lock:
            return self._visits.add(key, self._visits.get(key) or Visit(self))

    def leave(self, key: str) -> None:
        """Forget a visitor."""
        with self._lock:
            self._visits.pop(key, None)

    @property
    def visitors(self) -> int:
        """The number of visitors."""
        return len(self._visits)

    def observation(self, row: int) -> Observation:
        """An observation of the test split.

        Raises:
            ValueError: If the row does not exist.
        """
        explorer = self.explorer
        found = {name: explorer.placement(name, row) for name in explorer.scm.image_variables}
        places = {name: place for name, place in found.items() if place is not None}
        return Observation(explorer.title(row), explorer.factual(row), row, places)

    def step(self, name: str) -> float:
        """The step of the slider of a number."""
        explorer = self.explorer
        domain = explorer.variables[name].domain
        return domain.step or (1.0 if domain.whole else 10.0 ** -decimals_of(explorer.scm, name))

    def limits(self, name: str) -> tuple[float, float]:
        """The ends of the slider of a number: the training data, and a sixth of them beyond.

        They are multiples of the step, inside of the domain. Values beyond the training data are
        extrapolations, which are marked.
        """
        domain, step = self.explorer.variables[name].domain, self.step(name)
        low, high = self.explorer.scm.training_distribution.limits(name)
        margin = (high - low) / 6 or step

        def nearest(value: float, up: bool) -> float:
            return float(f"{(math.ceil if up else math.floor)(value / step) * step:.12g}")

        def chosen(beyond: float, seen: float, up: bool) -> float:
            candidates = (nearest(beyond, up), nearest(seen, not up))
            values = torch.tensor(candidates, dtype=self.explorer.scm.dtype)[:, None]
            inside = domain.contains(values).flatten().tolist()
            found = zip(candidates, inside, strict=True)
            return next((value for value, is_inside in found if is_inside), seen)

        return chosen(low - margin, low, False), chosen(high + margin, high, True)


class Visit:
    """A visitor: an observation, the variables that are set, and earlier questions.

    Args:
        session: The model.

    Attributes:
        observation: The observation that is asked about.
        do: The variables that are set, with their values, the last one last.
        history: Earlier questions, the latest first.
        uploads: The observations of the last upload.
        place: The voxel through which planes of volumes are shown; None for the middle.
        reply: The last answer.
        widened: The sliders that were made longer, to show a value beyond their ends.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.observation = session.observation(0)
        self.do: dict[str, float] = {}
        self.history: list[Question] = []
        self.uploads: Sequence[Observation] = ()
        self.reply: Reply | None = None
        self._tickets = count(1)
        self._ticket = 0
        self._factual: tuple[Observation, Scene] | None = None
        self._limits: dict[str, float] = {}
        self.place: tuple[int, int, int] | None = None
        self.widened: set[str] = set()

    # What a visitor does

    def choose(self, observation: Observation | int) -> None:
        """Ask about another observation, with nothing set.

        Raises:
            ValueError: If the row does not exist.
        """
        is_row = isinstance(observation, int)
        self.observation = self.session.observation(observation) if is_row else observation  # type: ignore[arg-type,assignment]
        self.do, self._limits, self.place = {}, {}, None

    def set(self, name: str, value: float) -> None:
        """Set a variable.

        Raises:
            ValueError: If there is no such variable that can be set, or no such value.
        """
        self.do = {**{n: v for n, v in self.do.items() if n != name}, **self._read(name, value)}

    def hold(self, names: Sequence[str]) -> None:
        """Set exactly these variables; those that were not set keep the value that they have."""
        values = (self.reply or self.ask()).scene.values
        found: dict[str, float] = {}
        kept = [name for name in self.do if name in names]
        for name in [*kept, *(name for name in names if name not in self.do)]:
            value = self.do.get(name, values.get(name))
            if value is not None:
                found |= self._read(name, value)
        self.do = found

    def follow(self, link: str) -> None:
        """Ask the question of a link, as of :attr:`link`.

        Raises:
            ValueError: If the model cannot answer it; the message names the reason, and the
                question of the visitor is unchanged.
        """
        parts = parse_qs(link[:_LONGEST_LINK].lstrip("?"))
        row, text = " and ".join(parts.get("index", ["0"])), ", ".join(parts.get("do", []))
        if not row.isascii() or not row.isdigit():
            raise ValueError(f"link: expected the number of a row, but got {one_line(row, 40)}.")
        do: dict[str, float] = {}
        try:
            observation = self.session.observation(int(row))
            found = parse_do(text, self.session.explorer.variables) if text else {}
            for name, value in found.items():
                do |= self._read(name, value)
        except ValueError as error:
            raise ValueError(f"link: {error}") from None
        self.choose(observation)
        self.do = do

    def _read(self, name: str, value: Any) -> dict[str, float]:
        """An intervention that is valid here."""
        explorer = self.session.explorer
        known = [cause.name for cause in self.session.causes]
        if name not in known:
            raise ValueError(
                f"do: expected one of {', '.join(known)}, but got {one_line(name, 80)}."
            )
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"do: expected a value of {name}, but got a change or a draw; set a value here, or "
                "ask with deepscm counterfactual."
            ) from None
        dtype = explorer.scm.dtype
        explorer.variables[name].domain.check(f"do({name})", torch.tensor([[number]], dtype=dtype))
        return {name: number}

    # What it is answered

    @property
    def question(self) -> Question:
        """The current question."""
        return Question(self.observation, dict(self.do))

    @property
    def text(self) -> str:
        """The intervention as a text of the command line; empty if nothing is set."""
        return do_text(self.session.explorer.variables, self.do)

    @property
    def link(self) -> str:
        """The query of an address that asks this question; empty for uploads."""
        return _link(self.question, self.text)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Titles and links of the history; only questions about the test split have links."""
        variables = self.session.explorer.variables
        found = []
        for each in self.history:
            title = for_terminal(f"{each.observation.title}: {format_do(each.do, variables)}")
            found.append((title, _link(each, do_text(variables, each.do))))
        return found

    @property
    def command(self) -> str:
        """The question as a command; empty if nothing is set."""
        programs = self.session.programs
        return programs.command(self.text, self.observation.row) if self.do else ""

    @property
    def python(self) -> str:
        """The question as a program; empty if nothing is set."""
        programs = self.session.programs
        return programs.python(self.text, self.observation.row) if self.do else ""

    def ask(self) -> Reply:
        """Answer the current question: the values, the images and their support.

        Raises:
            ValueError: If the answer is not finite.
        """
        # Before its turn, so that details of an earlier question end.
        ticket = self._ticket = next(self._tickets)
        with self.session.turns.take(is_urgent=True):
            explorer, question = self.session.explorer, self.question
            factual = self._described(question.observation)
            draws = self.session.abduction(question.observation).draws(question.do)
            means = average(explorer.model.ensemble, draws)
            scene = explorer.describe(means, is_measured=False)
            if question.do:
                scene = explorer.judge(scene, draws, question.do)
            images = {n: means[n][0] for n in explorer.scm.image_variables}
            for name, image in images.items():
                change = (image - question.observation.values[name][0]).numpy()
                limit = difference_limit(np.asarray(change, np.float64))
                self._limits[name] = max(limit, self._limits.get(name, 0.0))
            title = for_terminal(format_do(question.do, explorer.variables))
            self.reply = Reply(question, title, factual, scene, images, dict(self._limits), ticket)
            return self.reply

    def _described(self, observation: Observation) -> Scene:
        if self._factual is None or self._factual[0] is not observation:
            scene = self.session.explorer.describe(observation.values, is_measured=False)
            self._factual = observation, scene
        return self._factual[1]

    def is_current(self, reply: Reply) -> bool:
        """Whether the visitor still asks the question of an answer."""
        return reply.ticket == self._ticket

    def details(self, reply: Reply) -> Details | None:
        """Compute what takes longer, and remember the question.

        Returns:
            None as soon as the visitor has asked another question.
        """
        steps, found = self._steps(reply), None
        while found is None and self.is_current(reply):
            with self.session.turns.take(is_urgent=False):
                try:
                    next(steps)
                except StopIteration as end:
                    found = Details(**end.value)
        if found is None or not self.is_current(reply):
            return None
        self._remember(reply.question)
        return found

    def _steps(self, reply: Reply) -> _Steps:
        """Compute details, with pauses in which another question may be answered."""
        found: dict[str, Any] = {}
        for part in (self._measured, self._uncertainty, self._paths, self._curves):
            found |= yield from part(reply)
            yield
        return found

    def _remember(self, question: Question) -> None:
        if question.do:
            others = [each for each in self.history if not each.is_same(question)]
            self.history = [question, *others][:_HISTORY]

    def _measured(self, reply: Reply) -> _Steps:
        explorer = self.session.explorer
        values = reply.question.observation.values
        before = explorer.describe(values).measured
        yield
        if not before:
            return {"factual": {}, "measured": {}}
        images = {name: image[None] for name, image in reply.images.items()}
        return {"factual": before, "measured": explorer.describe({**values, **images}).measured}

    def _uncertainty(self, reply: Reply) -> _Steps:
        """The spread of particles, and its part between models."""
        explorer, do = self.session.explorer, reply.question.do
        model, calibration = explorer.model, explorer.model.calibration
        draws = yield from self.session.particles_of(reply.question.observation, do)
        deviations, intervals, shares, widths, disagreement = {}, {}, {}, {}, {}
        for name in self._uncertain(reply):
            values = draws[name]
            if explorer.variables[name].domain.categories is not None:
                shares[name] = _shares(values)
                continue
            deviations[name] = summarise(values)[1][0]
            if explorer.variables[name].domain.shape == (1,):
                ends = (
                    values.flatten()
                    .double()
                    .quantile(
                        torch.tensor([0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2], dtype=torch.float64)
                    )
                )
                intervals[name] = float(ends[0]), float(ends[1])
            elif calibration is not None and do:
                factual = reply.question.observation.values[name]
                heading = format_do(do, explorer.variables)
                width = calibration.half_width(heading, tuple(do), Moments.of(values), factual)
                widths[name] = float(width.mean())
            if len(model.ensemble.members) > 1:
                between = model.ensemble.spread(values).between
                if bool(between.isfinite().all()):
                    disagreement[name] = float(between.double().square().mean().sqrt())
        return {
            "particles": self.session.particles,
            "deviations": deviations,
            "intervals": intervals,
            "shares": shares,
            "half_widths": widths,
            "disagreement": disagreement,
        }

    def _changed(self, reply: Reply) -> list[str]:
        """The variables that follow from those that are set."""
        graph = self.session.explorer.scm.graph
        below = graph.descendants(*reply.question.do)
        return [name for name in graph if name in below and name not in reply.question.do]

    def _uncertain(self, reply: Reply) -> list[str]:
        """The variables that change, and those whose values are inferred."""
        changed, factual = self._changed(reply), reply.factual.values
        is_missing = {name for name, value in factual.items() if value is None}
        chosen = {*changed, *(is_missing - {*reply.question.do})}
        return [name for name in self.session.explorer.scm.graph if name in chosen]

    def _paths(self, reply: Reply) -> _Steps:
        explorer, do = self.session.explorer, reply.question.do
        graph, values = explorer.scm.graph, reply.question.observation.values
        own = [value for name, value in values.items() if value.isnan().any() and name in graph]
        if not do or own:  # without factual values, there is nothing to hold mediators at
            return {"paths": []}
        abduction = self.session.abduction(reply.question.observation)
        changed, found = self._changed(reply), []
        scalars = [n for n in changed if explorer.variables[n].domain.shape == (1,)]
        draws: dict[str, Tensor] | None = None
        for name in changed:
            through = [n for n in scalars if n in graph.ancestors(name)]
            without = {n: [p for p in ps if p not in through] for n, ps in graph.parents.items()}
            is_class = explorer.variables[name].domain.categories is not None
            if not through or is_class or not _reaches(without, [*do], name):
                continue
            draws = draws or abduction.draws(do)
            held = {n: float(values[n]) for n in through}
            direct = abduction.mean({**do, **held})[name]
            yield
            kept = {n: float(values[n]) for n in do}
            indirect = abduction.mean({**kept, **{n: draws[n] for n in through}})[name]
            before = values[name]
            found.append(Paths(name, through, (direct - before)[0], (indirect - before)[0]))
            yield
        return {"paths": found}

    def _curves(self, reply: Reply) -> _Steps:
        """Effect curves over the variable that was set last, or over the first cause of others."""
        explorer, do = self.session.explorer, dict(reply.question.do)
        cause = [*do][-1] if do else next((c.name for c in self.session.causes if c.affected), None)
        if cause is None:
            return {"curves": None}
        domains = {name: each.domain for name, each in explorer.variables.items()}
        below = explorer.scm.graph.descendants(cause) - {*do, cause}
        names = [n for n in domains if n in below and domains[n].shape == (1,)]
        values = values_to_set(explorer.scm, cause, _STEPS)
        if not names or len(values) < 2:
            return {"curves": None}
        do.pop(cause, None)
        abduction = self._others(reply.question.observation, (*names, *do, cause))
        grid = []
        for value in values:
            yield
            grid.append(abduction.mean({**do, cause: value}))
        curves = []
        for name in names:
            columns = torch.stack([each[name].flatten() for each in grid], dim=1).double()
            own, *others = columns.tolist()
            curves.append(Curve(name, own, others))
        return {"curves": Curves(cause, values, curves)}

    def _others(self, observation: Observation, names: Sequence[str]) -> Abduction:
        """The noise of the observation, then of some others, without their images if possible."""
        explorer = self.session.explorer
        members = [member.restrict(names) for member in explorer.model.ensemble.members]
        ensemble = Ensemble(members, explorer.model.ensemble.weights)
        most = 2 if members[0].image_variables else _OTHERS
        rows = [row for row in range(explorer.count) if row != observation.row]
        others = explorer.rows_of(list(islice(rows, most)))
        joined = {n: torch.cat([observation.values[n], others[n]]) for n in members[0].graph}
        return Abduction.infer(ensemble, joined, explorer.model.particles(None), explorer.seed)


def _shares(classes: Tensor) -> dict[int, float]:
    """The share of each class, the most frequent one first."""
    found, counts = classes.flatten().long().unique(return_counts=True)
    pairs = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda each: -each[1])
    return {each: number / classes.numel() for each, number in pairs}


def _link(question: Question, text: str) -> str:
    if question.observation.row is None:
        return ""
    parts: dict[str, Any] = {"index": question.observation.row}
    return f"?{urlencode(parts | ({'do': text} if text else {}))}"


def _reaches(parents: Mapping[str, Sequence[str]], sources: Sequence[str], target: str) -> bool:
    """Whether a directed path leads from one of ``sources`` to ``target``."""
    reached = {*sources}
    for name, causes in parents.items():
        if reached & {*causes}:
            reached.add(name)
    return target in reached
