"""A verdict on a model in words: what is good enough, what is not, by which figure and limit.

Each :class:`Verdict` compares one figure of an :class:`~deepscm_pl.evaluation.run.Evaluation` with
a limit of :class:`~deepscm_pl.evaluation.verdict_thresholds.VerdictThresholds`, for one variable or
one question.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from deepscm_pl.evaluation.association import AssociationRow
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.mechanism_fit import Convergence, MechanismFit, left_out_words
from deepscm_pl.evaluation.noise import NoiseResult
from deepscm_pl.evaluation.reaction import ReactionResult
from deepscm_pl.evaluation.results import CounterfactualResult
from deepscm_pl.evaluation.run import Evaluation
from deepscm_pl.evaluation.verdict_thresholds import VerdictThresholds
from deepscm_pl.numerals import format_number
from deepscm_pl.overlap import VERDICTS
from deepscm_pl.reaction import ReactionThresholds
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Criterion", "Grade", "Judgement", "Verdict", "VerdictThresholds", "judge", "worst"]

Grade = Literal["good", "doubtful", "bad", "unknown"]
"""The grade of a verdict; ``unknown`` where nothing measures it."""

Criterion = Literal["converged", "better than no model", "reacts", "calibrated", "supported"]
"""What is judged."""

_GRADES: Sequence[Grade] = ("bad", "doubtful", "good", "unknown")
"""From the worst."""

_LEVEL = 0.9
"""The level of the intervals that are judged."""


@dataclass(frozen=True)
class Verdict:
    """A judgement of one criterion, for one variable or one question.

    Attributes:
        subject: The variable, or the question as in tables, such as ``do(age = 60 years)``.
        variable: The variable; empty if the verdict is about all variables.
        question: The text of the intervention; empty if it is about all.
        criterion: What is judged.
        word: The judgement in a word, such as ``converged`` or ``extrapolates``.
        grade: Whether that is good.
        figure: The number that was compared; None if it is unknown.
        threshold: The limit that it was compared with; None without a figure.
        reason: The judgement with its figure, in words.

    Example:
        >>> said = Verdict("x", "x", "", "converged", "converged", "good", 0.01, 0.02, "converged")
        >>> said.sentence
        'x: converged'
    """

    subject: str
    variable: str
    question: str
    criterion: Criterion
    word: str
    grade: Grade
    figure: float | None
    threshold: float | None
    reason: str

    @property
    def sentence(self) -> str:
        """The reason with its subject."""
        return f"{self.subject}: {self.reason}"

    def as_plain_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "sentence": self.sentence}


@dataclass(frozen=True)
class Judgement:
    """All verdicts on a model.

    Attributes:
        verdicts: The verdicts, by variable in the order of the graph, then by question.
        thresholds: Their limits.
        reaction: Limits of the reaction of images.
    """

    verdicts: Sequence[Verdict]
    thresholds: VerdictThresholds = field(default_factory=VerdictThresholds)
    reaction: ReactionThresholds = field(default_factory=ReactionThresholds)

    @property
    def subjects(self) -> dict[str, list[Verdict]]:
        """The verdicts on each variable and each question."""
        found: dict[str, list[Verdict]] = {}
        for each in self.verdicts:
            found.setdefault(each.subject, []).append(each)
        return found

    @property
    def grade(self) -> Grade:
        """The worst grade of the variables; with bad answers to every question, bad as well.

        Example:
            >>> Judgement([]).grade
            'unknown'
        """
        of_variables = worst([each for each in self.verdicts if not each.question])
        questions = [found for found in self.subjects.values() if found[0].question]
        if questions and all(worst(found) == "bad" for found in questions):
            return "bad"
        return of_variables

    @property
    def headline(self) -> str:
        """One sentence for the model as a whole."""
        counts = [sum(v.grade == grade for v in self.verdicts) for grade in ("bad", "doubtful")]
        bad, doubtful = (f"{each} of {len(self.verdicts)}" for each in counts)
        return {
            "bad": f"do not rely on this model: {bad} judgements are bad",
            "doubtful": f"use this model with care: {doubtful} judgements are doubtful",
            "good": "the model is as good as could be measured",
            "unknown": "nothing could be judged",
        }[self.grade] + (f", and {bad} are bad" if counts[0] and self.grade != "bad" else "")

    def as_plain_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "grade": self.grade,
            "headline": self.headline,
            "thresholds": {**asdict(self.thresholds), "reaction": asdict(self.reaction)},
            "verdicts": [each.as_plain_data() for each in self.verdicts],
        }


def worst(verdicts: Sequence[Verdict]) -> Grade:
    """Return the worst grade; ``unknown`` if there is no other."""
    grades = {each.grade for each in verdicts}
    return next((grade for grade in _GRADES if grade in grades), "unknown")


def judge(
    evaluation: Evaluation,
    scm: StructuralCausalModel,
    association: Sequence[AssociationRow] = (),
    thresholds: VerdictThresholds | None = None,
) -> Judgement:
    """Judge a model by its evaluation.

    Args:
        evaluation: The results.
        scm: The evaluated model.
        association: The rows of the association table, for the bits per dimension of images.
        thresholds: Limits; None for those of the evaluation.
    """
    reaction = evaluation.reaction
    thresholds = thresholds or evaluation.thresholds
    found: list[Verdict] = []
    fits = {each.variable: each for each in evaluation.mechanisms}
    for name in scm.graph.nodes:
        found += _of_fit(fits.get(name), name, scm, association, thresholds)
        if reaction is not None and reaction.image == name:
            found += _of_reaction(reaction, evaluation.counterfactuals, thresholds)
        noise = [each for each in evaluation.noise if each.variable == name and each.entries == 1]
        found += [] if name in scm.image_variables else map(_Noise(thresholds).verdict, noise)
    for answered in evaluation.counterfactuals:
        found += _of_question(answered, evaluation, reaction.image if reaction else "", thresholds)
    return Judgement(
        found, thresholds, ReactionThresholds() if reaction is None else reaction.thresholds
    )


def _of_variable(name: str, criterion: Criterion, *rest: Any) -> Verdict:
    return Verdict(name, name, "", criterion, *rest)


def _of_fit(
    fit: MechanismFit | None,
    name: str,
    scm: StructuralCausalModel,
    association: Sequence[AssociationRow],
    limits: VerdictThresholds,
) -> Iterator[Verdict]:
    if fit is not None and fit.convergence is not None:
        yield _convergence(fit, fit.convergence)
    if name in scm.image_variables:
        yield from _Image(scm, name, association, limits).verdicts(fit)
    elif fit is not None:
        yield from _Scalar(fit, limits).verdicts()


def _convergence(fit: MechanismFit, course: Convergence) -> Verdict:
    if course.state == "converged" and (gain := fit.left_out) is not None:
        limit = max(course.least, 2 * gain.standard_error)
        words = left_out_words(gain)
        return _of_variable(
            fit.variable, "converged", "stopped early", "doubtful", gain.mean, limit, words
        )
    grades: dict[str, Grade] = {"converged": "good", "unknown": "unknown"}
    grade = grades.get(course.state, "doubtful")
    is_known = not math.isnan(course.rise)
    threshold = max(course.least, 2 * course.standard_error) if is_known else None
    rise = course.rise if is_known else None
    return _of_variable(
        fit.variable, "converged", course.state, grade, rise, threshold, course.words
    )


@dataclass(frozen=True)
class _Scalar:
    """Whether the mechanism of a scalar is better than without parents, and than fitted forms."""

    fit: MechanismFit
    limits: VerdictThresholds

    def verdicts(self) -> Iterator[Verdict]:
        over_constant, over_parentless = self.fit.over_constant, self.fit.over_parentless
        worse = over_constant is not None and self._sign(over_constant) < 0
        if over_constant is not None and (worse or over_parentless is None):
            yield self._constant(over_constant, is_root=over_parentless is None)
        elif over_parentless is not None:
            yield self._parents(over_parentless)

    def _constant(self, gain: Estimate, is_root: bool) -> Verdict:
        best = "the best constant distribution"
        sign = self._sign(gain)
        if sign < 0:
            grade: Grade = "bad" if -gain.mean >= self.limits.large_gain else "doubtful"
            return self._said("worse", grade, gain, f"worse than {best} by {_nats(gain)}")
        words = f"better than {best} by {_nats(gain)}" if sign else f"as good as {best}"
        return self._said("better" if sign else "as good", "good", gain, words)

    def _parents(self, gain: Estimate) -> Verdict:
        none = "with the parents of other rows" if self.fit.shuffled else "without parents"
        sign, (loss, form) = self._sign(gain), self._better_form()
        if sign < 0:
            words = f"worse than {none} by {_nats(gain)}: it overfits, or is untrained"
            return self._said("worse", "bad", gain, words)
        if sign > 0 and loss is None:
            return self._said("better", "good", gain, f"better than {none} by {_nats(gain)}")
        if sign > 0:
            words = f"better than {none} by {_nats(gain)}, but a {form} gains {_nats(loss)} more"
            return self._said("better", "doubtful", gain, words)
        if loss is not None:
            words = f"no better than {none}, but a {form} gains {_nats(loss)}: it is untrained"
            return self._said("no better", "bad", gain, words)
        if gain.mean + 2 * gain.standard_error > self.limits.large_gain:
            words = f"perhaps no better than {none} ({_nats(gain)}: too few rows)"
            return self._said("perhaps better", "doubtful", gain, words)
        words = f"no better than {none}: its parents may have no effect in these data"
        return self._said("no better", "doubtful", gain, words)

    def _better_form(self) -> tuple[Estimate | None, str]:
        """The gain of a fitted form over the mechanism, if it is large."""
        found: list[tuple[Estimate, str]] = []
        if (linear := self.fit.over_linear) is not None:
            found.append((linear._replace(mean=-linear.mean), "fitted linear form"))
        if self.fit.nonlinear is not None:
            found.append((self.fit.nonlinear, "fitted nonlinear form"))
        for gain, form in found:
            if self._sign(gain) > 0 and gain.mean >= self.limits.large_gain:
                return gain, form
        return None, ""

    def _sign(self, gain: Estimate) -> int:
        return _sign(gain, self.limits.gain)

    def _said(self, word: str, grade: Grade, gain: Estimate, words: str) -> Verdict:
        return _of_variable(
            self.fit.variable, "better than no model", word, grade, gain.mean, self.limits.gain,
            words,
        )  # fmt: skip


@dataclass(frozen=True)
class _Image:
    """Whether the mechanism of an image is better than one distribution for all images."""

    scm: StructuralCausalModel
    name: str
    association: Sequence[AssociationRow]
    limits: VerdictThresholds

    def verdicts(self, fit: MechanismFit | None) -> Iterator[Verdict]:
        bits, uniform = self._bits(), self._uniform()
        gain = None if fit is None else fit.over_constant
        too_many = (
            f"{format_number(bits)} bits per dimension, where uniform grey levels have {uniform:g}"
            if bits is not None and bits >= uniform
            else ""
        )
        if fit is None or gain is None:
            if too_many:
                yield self._said("worse", "bad", bits, uniform, f"worse than no model: {too_many}")
            return
        dimension = fit.features * math.log(2)
        gained = Estimate(gain.mean / dimension, gain.standard_error / dimension, gain.rows)
        amount = f"{abs(gained.mean):.2f} ± {gained.standard_error:.2f} bits per dimension"
        grade: Grade = "good"
        words = f"better than one distribution for all images by {amount}"
        if _sign(gained, self.limits.bits) <= 0:
            sign = "worse than" if gained.mean < -self.limits.bits else "no better than"
            words = f"{sign} one distribution for all images ({amount})"
            yield self._said(
                sign.removesuffix(" than"), "bad", gained.mean, self.limits.bits, words
            )
            return
        if too_many:
            grade, words = (
                "doubtful",
                f"{words}, but {too_many}: the scale of its likelihood is off",
            )
        elif fit.over_parentless is not None and _sign(fit.over_parentless, self.limits.gain) <= 0:
            grade, words = "doubtful", f"{words}, but no better with its own parents than others'"
        yield self._said("better", grade, gained.mean, self.limits.bits, words)

    def _bits(self) -> float | None:
        keys = [f"bits_per_dimension/{self.name}", f"recorded_bits_per_dimension/{self.name}"]
        found = [row.estimate.mean for row in self.association if row.key in keys]
        return min(found, default=None)

    def _uniform(self) -> float:
        upper = self.scm[self.name].domain.upper
        return math.log2(upper + 1) if upper < math.inf else 8.0

    def _said(self, word: str, grade: Grade, *rest: Any) -> Verdict:
        return _of_variable(self.name, "better than no model", word, grade, *rest)


def _of_reaction(
    reaction: ReactionResult,
    answered: Sequence[CounterfactualResult],
    limits: VerdictThresholds,
) -> Iterator[Verdict]:
    yield from _of_pixel_noise(reaction)
    measured = _measured_shares(answered)
    for name, cause in reaction.causes.items():
        if name in measured:
            yield _reacts(reaction, name, measured[name], "measured in the images", limits)
        elif cause.response is not None and not math.isnan(cause.response.mean):
            share, source = cause.response.mean, "read by a predictor from the images"
            yield _reacts(reaction, name, share, source, limits)
        elif not math.isnan(cause.change.mean):
            yield _changes(reaction, name, cause.change.mean)
    asked = {name for each in answered for name in each.question.do}
    changes = {} if reaction.measured is None else reaction.measured.changes
    for name in sorted(asked & changes.keys() - reaction.causes.keys()):
        words = f"does not react to {name}: there is no path between them in the graph"
        figure, limit = changes[name], reaction.thresholds.change
        yield _of_variable(
            reaction.image, "reacts", "does not react", "doubtful", figure, limit, words
        )


def _of_pixel_noise(reaction: ReactionResult) -> Iterator[Verdict]:
    measured, limits = reaction.measured, reaction.thresholds
    if measured is None or measured.pixel_noise is None or measured.latent is None:
        return
    noise, most = measured.pixel_noise, limits.pixel_noise
    said = measured.verdicts([], limits)
    word, grade = "encoded", "good"
    words = f"pixel noise is {100 * noise:.0f} % of the variation of the images"
    if said:
        words = said[0].removeprefix(f"{reaction.image}: ")
        word, grade = ("repeats", "bad") if noise >= most else ("collapsed", "doubtful")
    yield _of_variable(reaction.image, "reacts", word, grade, noise, most, words)


def _measured_shares(answered: Sequence[CounterfactualResult]) -> dict[str, float]:
    """The share of the changes that interventions on an attribute ask for, measured in images."""
    found: dict[str, list[Estimate]] = {}
    for each in answered:
        for name, effect in each.effectiveness.items():
            if name in each.question.do and effect.shown is not None:
                found.setdefault(name, []).append(effect.shown)
    return {
        name: sum(each.mean * each.rows for each in shares) / sum(each.rows for each in shares)
        for name, shares in found.items()
    }


def _reacts(
    reaction: ReactionResult, cause: str, share: float, source: str, limits: VerdictThresholds
) -> Verdict:
    least = reaction.thresholds.response
    percent = f"{100 * max(share, 0.0):.0f} % of the asked changes are {source}"
    word, grade, limit = "reacts", "good", limits.shown
    if share < least:
        word, grade, limit = "does not react", "bad", least
    elif share < limits.shown:
        word, grade = "hardly reacts", "doubtful"
    elif share > limits.exaggerated:
        word, grade, limit = "exaggerates", "doubtful", limits.exaggerated
    words = f"exaggerates {cause}" if word == "exaggerates" else f"{word} to {cause}"
    words = f"{words}: {percent}"
    return _of_variable(reaction.image, "reacts", word, grade, share, limit, words)


def _changes(reaction: ReactionResult, cause: str, change: float) -> Verdict:
    image, least = reaction.image, reaction.thresholds.change
    percent = f"it changes by {100 * change:.1f} % of the difference between two images"
    if change < least:
        words = f"does not react to {cause}: {percent}"
        return _of_variable(image, "reacts", "does not react", "bad", change, least, words)
    words = f"changes with {cause}, but nothing measures whether it shows what is asked: {percent}"
    return _of_variable(image, "reacts", "changes", "unknown", change, least, words)


@dataclass(frozen=True)
class _Noise:
    """Whether the inferred noise of a scalar is that of its prior."""

    limits: VerdictThresholds

    def verdict(self, noise: NoiseResult) -> Verdict:
        """Judge by the distance from the prior, and by correlations with parents."""
        found, limits, name = noise.statistics, self.limits, noise.variable
        distance = found.kolmogorov_smirnov
        if distance is None:
            words = "calibration unknown (too few rows)"
            return _of_variable(name, "calibrated", "unknown", "unknown", None, None, words)
        p_value = math.nan if found.p_value is None else found.p_value
        grade, word, limit = "good", "calibrated", limits.kolmogorov_smirnov
        words = f"calibrated (its noise is {distance:.3f} away from its prior)"
        if distance > limits.kolmogorov_smirnov:
            words = f"{words[:-1]}, no further than by chance)"
        if distance > limits.kolmogorov_smirnov and not p_value >= limits.p_value:
            is_bad = distance >= limits.miscalibrated
            grade, word = ("bad", "not calibrated") if is_bad else ("doubtful", "hardly calibrated")
            limit = limits.miscalibrated if is_bad else limit
            words = f"{word} (its noise is {distance:.3f} away from its prior)"
        elif distance >= limits.miscalibrated:
            grade, word, limit = "unknown", "unknown", limits.miscalibrated
            words = f"calibration unknown (too few rows: its noise is {distance:.3f} away from its "
            words += "prior, no further than by chance)"
        related = self._related(found.correlations, found.correlation_by_chance)
        if related:
            grade = "bad" if grade == "bad" else "doubtful"
            words = f"{words}; its noise correlates with {related}: mechanism or graph do not fit"
        return _of_variable(name, "calibrated", word, grade, distance, limit, words)

    def _related(self, correlations: Mapping[str, float], by_chance: float | None) -> str:
        least = max(self.limits.correlation, by_chance or 0.0)
        return ", ".join(
            f"{name} ({value:+.2f})" for name, value in correlations.items() if abs(value) > least
        )


def _of_question(
    answered: CounterfactualResult, evaluation: Evaluation, image: str, limits: VerdictThresholds
) -> Iterator[Verdict]:
    text, title = answered.question.text, answered.question.title

    def said(variable: str, criterion: Criterion, *rest: Any) -> Verdict:
        return Verdict(title, variable, text, criterion, *rest)

    ratio = answered.error.ratio
    if ratio.particle is not None and math.isfinite(ratio.particle.mean):
        yield said(
            image, "better than no model", *_truthful(ratio.particle, ratio.stranger, limits)
        )
    yield said(image, "calibrated", *_covered(answered, limits))
    if evaluation.overlap is not None and text in evaluation.overlap.verdicts:
        yield said("", "supported", *_supported(evaluation.overlap.verdicts[text], limits))


def _truthful(
    ratio: Estimate, stranger: Estimate | None, limits: VerdictThresholds
) -> tuple[str, Grade, float, float, str]:
    figure = f"{ratio.mean:.2f} times that of no change"
    if ratio.mean >= limits.useless:
        words = f"no better than no change: the error against the truth is {figure}"
        return "no better", "bad", ratio.mean, limits.useless, words
    words = f"the error against the truth is {figure}"
    if ratio.mean >= limits.error:
        return "hardly better", "doubtful", ratio.mean, limits.error, f"hardly better: {words}"
    if stranger is not None and ratio.mean >= stranger.mean:
        words = f"{words}, but that of another individual is {stranger.mean:.2f}"
        return "loses the identity", "doubtful", ratio.mean, stranger.mean, words
    return "better", "good", ratio.mean, limits.error, f"better than no change: {words}"


def _covered(
    answered: CounterfactualResult, limits: VerdictThresholds
) -> tuple[str, Grade, float | None, float | None, str]:
    calibrated, particles = (
        answered.intervals.covered_varying,
        answered.coverage.varying.get(_LEVEL),
    )
    covered = particles if calibrated is None else calibrated
    if covered is None or math.isnan(covered.mean):
        words = "calibration unknown: without the truth, intervals are lower bounds"
        return "unknown", "unknown", None, None, words
    kind = "intervals of the particles" if calibrated is None else "intervals"
    words = f"90 % {kind} hold {100 * covered.mean:.0f} % of the true pixels"
    width = answered.intervals.width
    if calibrated is not None and width is not None:
        words += f", {format_number(width.mean, 2)} grey levels wide"
        if width.mean >= limits.width:
            return "too wide", "bad", width.mean, limits.width, f"says nothing: {words}"
    difference = abs(covered.mean - _LEVEL)
    by_chance = limits.coverage < difference <= 2 * covered.standard_error
    words += ", no further from 90 % than by chance" if by_chance else ""
    if by_chance and difference >= limits.wrong_coverage:
        words = f"calibration unknown (too few rows): {words}"
        return "unknown", "unknown", covered.mean, _LEVEL, words
    if by_chance or difference <= limits.coverage:
        return "calibrated", "good", covered.mean, _LEVEL, f"calibrated: {words}"
    word = "overconfident" if covered.mean < _LEVEL else "underconfident"
    grade: Grade = "bad" if difference >= limits.wrong_coverage else "doubtful"
    return word, grade, covered.mean, _LEVEL, f"{word}: {words}"


def _supported(
    counts: Mapping[str, int], limits: VerdictThresholds
) -> tuple[str, Grade, float | None, float | None, str]:
    total = sum(counts[each] for each in VERDICTS)
    if not total:
        return "unknown", "unknown", None, None, "impossible in every row"
    share = counts["extrapolated"] / total
    edge = counts["edge"] / total
    words = f"{100 * share:.0f} % of the answers extrapolate"
    if share >= limits.mostly_extrapolated:
        return "extrapolates", "bad", share, limits.mostly_extrapolated, f"not supported: {words}"
    if share >= limits.extrapolated:
        words = f"partly supported: {words}"
        return "partly extrapolates", "doubtful", share, limits.extrapolated, words
    near = f", {100 * edge:.0f} % are at the edge of the training data"
    near = near if edge >= limits.mostly_extrapolated else ""
    return "supported", "good", share, limits.extrapolated, f"supported{near}"


def _sign(gain: Estimate, least: float) -> int:
    """1 for a gain, −1 for a loss and 0 for neither, beyond two standard errors."""
    error = 0.0 if math.isnan(gain.standard_error) else gain.standard_error
    if abs(gain.mean) < max(least, 2 * error) or math.isnan(gain.mean):
        return 0
    return 1 if gain.mean > 0 else -1


def _nats(gain: Estimate | None) -> str:
    return "" if gain is None else f"{abs(gain.mean):.2f} ± {gain.standard_error:.2f} nats"
