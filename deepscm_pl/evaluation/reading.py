"""How to read the tables of a report, in a few sentences each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepscm_pl.evaluation.tables import Table

__all__ = ["how_to_read"]

_SENTENCES: Mapping[str, Sequence[tuple[str, str]]] = {
    "association": [
        (
            "",
            "The higher log p, the better the model explains the images; ≥ marks a lower bound of "
            "it, the evidence lower bound with its draws of the latent for each image.",
        ),
        (
            "bits per dimension",
            "Bits per dimension put images of any size on one scale: the fewer, the better, and 8 "
            "for a uniform distribution.",
        ),
        (
            "gain of K",
            "Bounds with K draws are tighter, but of fewer images: compare them by their gain over "
            "the bound of the same images, which is the larger, the worse the encoder.",
        ),
    ],
    "densities": [
        (
            "two samples of the world",
            "*Distance* is how far, on average, probability has to be moved to turn the model's "
            "density into the world's; 0 is perfect. *Two samples of the world* is how far apart "
            "two finite samples of the same world are: a model about as near cannot be told from "
            "it. An effect follows its cause, so that p(effect | do(cause)) moves with the value; "
            "a cause does not follow its effect, so that p(cause | do(effect)) must not.",
        ),
        (
            "90 %",
            "What the model says of those on whom nothing is known but what is given. An effect "
            "follows its cause: p(effect | do(cause)) moves with the value. p(cause | effect) is "
            "what observing the effect tells of its cause, which setting it would not.",
        ),
        ("", "Where an effect has several first causes, it is also given all of them at once."),
    ],
    "errors": [
        (
            "",
            "*Error of a draw* is how far a counterfactual image of the model is from what the "
            "world says it would have been. It has two baselines: *factual unchanged*, the error "
            "of doing nothing, and *another original*, the error of the true image of another "
            "original with the same attributes, which is the intervention done perfectly on "
            "someone else; a model above that has lost the identity. *Ratio to unchanged*: 0 is "
            "perfect, and at 1 the model is no better than doing nothing.",
        ),
    ],
    "similarity": [
        (
            "",
            "Peak signal-to-noise ratio (PSNR) and structural similarity (SSIM, 1 at best) are the "
            "better, the higher; the baselines are those above.",
        ),
    ],
    "effectiveness": [
        (
            "",
            "Attributes are measured in the images of the model. *Error* and *bias* are against "
            "the value that the model itself intended;",
        ),
        (
            "error against the truth",
            "*error against the truth*, where an attribute follows what was done, is against the "
            "world's, and shows a wrong causal mechanism;",
        ),
        (
            "",
            "0 is perfect, and about the *noise floor*, the error of measuring true images, is as "
            "good as can be told. *Unmeasurable* images are left out of the errors.",
        ),
    ],
    "soundness": [
        (
            "there and back",
            "*There and back*, and *10 times* so, is the error of doing and undoing; 0 is perfect.",
        ),
        (
            "identity kept",
            "*Identity kept* is how often a classifier sees the same class as in the factual "
            "image.",
        ),
        (
            "by the truth",
            "*By the truth* is how often it does in the true image: about as often is right.",
        ),
        (
            "change ÷ true change",
            "*Change ÷ true change*: above 1 the model changes more than it has to, below 1 less.",
        ),
        (
            "coverage of 50 %",
            "*Coverage* is how often the true pixel lies in the central interval of the particles, "
            "over pixels that vary: it should be the level of the interval; below it the model is "
            "too sure, above it not sure enough.",
        ),
    ],
    "noise": [
        (
            "",
            "The noise that a right model infers is standard normal and independent of the "
            "parents: *Kolmogorov–Smirnov*, the largest distance of the two distribution "
            "functions, and *mean* are near 0, *standard deviation* is near 1, and *p*, known "
            "where the noise is a single number, is rarely below 0.05. *Correlation with parents*, "
            "of many numbers the largest, stays below *by chance up to* in 95 of 100 models that "
            "are right: about 2/√n for one number of n images, more for the largest of many. "
            "Beyond it, the mechanism or the graph does not fit.",
        ),
    ],
}
"""For each table, what to look for in it, and what to say if it is there."""


def how_to_read(name: str, table: Table) -> str:
    """What is good and what is bad in a table of a report, of what it shows.

    Example:
        >>> table = Table("", ["intervention", "there and back"], [["do(a = 1)", "0.00"]])
        >>> how_to_read("soundness", table)
        '*There and back*, and *10 times* so, is the error of doing and undoing; 0 is perfect.'
    """
    shown = "\n".join([*table.columns, *(row[0] for row in table.rows)])
    return " ".join(said for sought, said in _SENTENCES[name] if sought in shown)
