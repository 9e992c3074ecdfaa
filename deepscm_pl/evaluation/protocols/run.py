"""Protocols by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from deepscm_pl.digest import weights_digest
from deepscm_pl.evaluation.protocols.answering import ProtocolSettings, Task
from deepscm_pl.evaluation.protocols.benchmark import (
    BENCHMARK_NOTES,
    benchmark,
    benchmark_omissions,
)
from deepscm_pl.evaluation.protocols.causal_gen import CAUSAL_GEN_NOTES, causal_gen
from deepscm_pl.evaluation.protocols.cost import cost_remarks
from deepscm_pl.evaluation.protocols.judging import require_judges
from deepscm_pl.evaluation.protocols.ours import OURS_NOTES, ours
from deepscm_pl.evaluation.protocols.rasal import RASAL_NOTES, rasal
from deepscm_pl.evaluation.protocols.results import Figure, ProtocolResult

__all__ = ["PROTOCOLS", "Protocol", "ProtocolSettings", "run_protocol"]


@dataclass(frozen=True)
class Protocol:
    """A protocol.

    Attributes:
        figures: Computes its figures.
        notes: How it differs from the published code.
        has_truth: Whether it compares images with rendered truths.
        is_joint: Whether it judges several models that answer together.
        remarks: Returns notes on a task, such as figures that are left out.
    """

    figures: Callable[[Task], list[Figure]]
    notes: Sequence[str] = ()
    has_truth: bool = False
    is_joint: bool = False
    remarks: Callable[[Task], list[str]] = lambda task: []


PROTOCOLS: Mapping[str, Protocol] = {
    "causal-gen": Protocol(causal_gen, CAUSAL_GEN_NOTES),
    "benchmark": Protocol(benchmark, BENCHMARK_NOTES, remarks=benchmark_omissions),
    "rasal": Protocol(rasal, RASAL_NOTES, has_truth=True),
    "ours": Protocol(ours, OURS_NOTES, is_joint=True, remarks=cost_remarks),
}
"""The protocols by name."""


def run_protocol(name: str, task: Task) -> ProtocolResult:
    """Compute the figures of a protocol; the state of torch's generators is restored.

    Args:
        name: One of :data:`PROTOCOLS`.
        task: The model on its test rows, and the judges.

    Raises:
        ValueError: If there is no such protocol, a cause of the image has no judge, the protocol
            needs true images where there are none, or it judges one model and there are several.
    """
    if name not in PROTOCOLS:
        raise ValueError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}, but got {name!r}; choose one."
        )
    protocol = PROTOCOLS[name]
    if len(task.members) > 1 and not protocol.is_joint:
        raise ValueError(
            f"protocol {name}: expected one model, but got {len(task.members)}; test them one by "
            "one, or by the protocol ours, which judges models that answer together."
        )
    if protocol.has_truth:
        _require_truth(name, task)
    else:
        require_judges(task.model, task.judges, name)
    device = task.model.scm.fitted.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(task.settings.seeds[0])
        figures = protocol.figures(task)
    model = task.model
    available = len(model) if model.available is None else model.available
    return ProtocolResult(
        name,
        figures,
        len(model),
        available,
        task.settings.seeds,
        _notes(protocol, task),
        {name: each.digest for each in task.judges if each.digest for name in each.variables},
        weights_digest(torch.nn.ModuleList(task.members)),
    )


def _require_truth(name: str, task: Task) -> None:
    if task.model.originals is None or not task.model.measured:
        reason = task.model.why_no_originals or "the data are of no known world"
        raise ValueError(
            f"protocol {name}: expected images that a known world draws and measures, such as "
            f"those of deepscm data morphomnist, but {reason}; choose another protocol."
        )


def _notes(protocol: Protocol, task: Task) -> list[str]:
    notes = [*protocol.notes, *protocol.remarks(task)]
    model, count = task.model, len(task.members)
    if count > 1:
        notes.append(f"answers are medians of {count} models, which together have all costs")
    if model.available is not None and len(model) < model.available:
        notes.append(
            f"only the first {len(model):,} of {model.available:,} test images were judged"
        )
    return notes
