"""All checks of a graph and its data, before a training or after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deepscm_pl.data import CausalData
from deepscm_pl.evaluation.data_check import (
    DuplicateImages,
    Leakage,
    QuestionOverlap,
    check_leakage,
    check_overlap,
    find_duplicates,
    independent_table,
)
from deepscm_pl.evaluation.graph_check import GraphCheck, check_graph
from deepscm_pl.evaluation.independence import MixedTable, adjusted
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.noise import NoiseResult, evaluate_noise
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Check", "CheckSettings", "check"]

_NOISE_ROWS = 500  # of images


@dataclass(frozen=True)
class CheckSettings:
    """Settings of a check.

    Attributes:
        questions: Interventions whose overlap with the training split is asked, as text.
        level: Level of the tests.
        permutations: Number of random graphs to compare with; 0 for none.
        seed: Seed of everything random.
    """

    questions: Sequence[str] = ()
    level: float = 0.05
    permutations: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """Results of all checks.

    Attributes:
        table: The rows on which the graph was tested.
        graph: The consistency of the graph; None if it was left out.
        leakage: What splits share.
        duplicates: Equal and nearly equal images, for each image variable.
        overlap: The overlap of each question.
        noise: The noise of a trained model in the test split; empty before a training.
        level: Level of the tests.
        left_out: Parts that could not be checked, with reasons.
    """

    table: MixedTable | None
    graph: GraphCheck | None
    leakage: Leakage
    duplicates: Sequence[DuplicateImages] = ()
    overlap: Sequence[QuestionOverlap] = ()
    noise: Sequence[NoiseResult] = ()
    level: float = 0.05
    left_out: Sequence[str] = field(default_factory=list)

    @property
    def verdicts(self) -> dict[str, str]:
        """One sentence for each item that was checked, by the item."""
        found: dict[str, str] = {}
        if self.graph is not None:
            found |= {f"graph, {name}": text for name, text in self.graph.verdicts.items()}
        found["leakage"] = self.leakage.verdict
        found |= {f"duplicates of {each.variable}": each.verdict for each in self.duplicates}
        found |= {each.title: each.verdict for each in self.overlap}
        if self.noise:
            found["noise"] = self._noise()
        return found

    @property
    def has_findings(self) -> bool:
        """Whether a verdict says that something is wrong."""
        wrong = ("contradicted", "leak", "duplicates", "extrapolated", "not normal", "no better")
        return any(text.startswith(wrong) for text in self.verdicts.values())

    def _noise(self) -> str:
        tested = [
            each for each in self.noise if each.entries == 1 and each.statistics.p_value is not None
        ]
        p_values = adjusted([float(each.statistics.p_value or 0) for each in tested])
        wrong = [e.variable for e, p in zip(tested, p_values, strict=True) if p < self.level]
        related = [
            f"{each.variable} with {name}"
            for each in self.noise
            if each.entries == 1
            for name, value in each.statistics.correlations.items()
            if each.statistics.correlation_by_chance is not None
            and abs(value) > each.statistics.correlation_by_chance
        ]
        if not tested:
            return "unknown: no variable has noise of one number"
        parts = [f"not normal: the noise of {', '.join(wrong)}"] if wrong else []
        if related:
            start = "" if wrong else "not normal: "
            parts.append(f"{start}the noise is correlated with a parent: {', '.join(related)}")
        if parts:
            return f"{'; '.join(parts)}; the mechanism does not fit, or a common cause is missing"
        return f"normal: the noise of {len(tested)} scalars, uncorrelated with their parents"


def check(
    scm: StructuralCausalModel,
    data: CausalData,
    settings: CheckSettings | None = None,
    progress: bool = True,
) -> Check:
    """Check whether a graph and its data are fit for a model, and the noise of a trained one.

    Args:
        scm: The model, trained or not.
        data: Its data; they are loaded if necessary.
        settings: Questions, level and numbers; None for the defaults.
        progress: Whether to show progress bars.

    Raises:
        ValueError: If the data lack a variable of the model, have fewer than 30 independent rows,
            or a question is not valid.
    """
    settings = CheckSettings() if settings is None else settings
    known = data.variables("train")
    missing = [name for name in scm.graph if name not in known]
    if missing:
        raise ValueError(
            f"graph: expected variables of the data, {', '.join(known)}, but got "
            f"{', '.join(missing)}; rename it in the graph, or add it to the data."
        )
    scm.describe(data.descriptions)
    left_out = []
    # Questions first, because they can be wrong.
    overlap = (
        check_overlap(data, scm, settings.questions, seed=settings.seed)
        if settings.questions
        else []
    )
    table, graph = None, None
    if len(scm.scalar_variables) < 2:
        left_out.append("The graph: it has fewer than two variables that are numbers or classes.")
    else:
        table = independent_table(data, scm)
        graph = check_graph(
            scm.graph, table, settings.level, settings.permutations, settings.seed, progress
        )
        if graph.untested:
            left_out.append(f"Independences of {', '.join(graph.untested)}, which are images.")
    noise: list[NoiseResult] = []
    if bool(scm.fitted):
        model = ModelOnData.of(scm, data)
        noise = evaluate_noise(model, min(_NOISE_ROWS, len(model)), progress=progress)
    else:
        left_out.append("The noise: the model is not trained; check its checkpoint (--ckpt_path).")
    return Check(
        table,
        graph,
        check_leakage(data, scm.graph.nodes),
        [find_duplicates(data, name, settings.seed, progress) for name in scm.image_variables],
        overlap,
        noise,
        settings.level,
        left_out,
    )
