"""Protocols by which others evaluate counterfactual images, each number with its definition."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.evaluation.protocols.judging import Judge as Judge, morphometry as morphometry
    from deepscm_pl.evaluation.protocols.results import (
        Figure as Figure,
        ProtocolResult as ProtocolResult,
    )
    from deepscm_pl.evaluation.protocols.run import (
        PROTOCOLS as PROTOCOLS,
        ProtocolSettings as ProtocolSettings,
        run_protocol as run_protocol,
    )

__getattr__ = first_use(__name__)
