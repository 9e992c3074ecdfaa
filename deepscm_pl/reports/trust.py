"""The paragraph of a report about the assumptions behind its answers."""

from __future__ import annotations

from deepscm_pl.evaluation.run import Evaluation

__all__ = ["describe_assumptions"]


def describe_assumptions(evaluation: Evaluation) -> str:
    """Return the paragraph; what is known of the intervals depends on the world."""
    known = (
        "*Coverage* shows how far the intervals of its particles can be trusted."
        if evaluation.world is not None
        else "without a known world, the intervals of its particles are lower bounds."
    )
    return (
        "Association and intervention are identified by data, if the graph is right, no common "
        "cause of two variables is missing, and the question stays near the training data. "
        "Counterfactuals are not: they also depend on the coupling of the noise that each "
        "mechanism chooses (its docstring states which), and no data can test that choice; "
        "*Sensitivity* shows how far answers move under others. All particles of one model share "
        f"its errors: {known} `docs/trust.md` describes when not to trust an answer."
    )
