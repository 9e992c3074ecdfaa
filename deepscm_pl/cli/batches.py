"""The division of a request into batches, with their seeds and their memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepscm_pl.memory import require_disk, require_memory
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Batches", "Request"]

_BATCH_ROWS = 256
"""Observations at a time, at most."""
_BATCH_NUMBERS = 2**24
"""Numbers in the answers of a batch, at most; one particle of one observation may have more."""
_COPIES = 6
"""Copies of these numbers in memory while they are computed and written, as measured."""
_CELL, _LINE = 8, 24
"""Bytes of a cell of the table, and of the rest of its line, at least."""
_COMPRESSED = 4
"""The largest compression ratio of images in their files."""


@dataclass(frozen=True)
class Request:
    """The size of a request.

    Attributes:
        observations: Number of observations, at least.
        interventions: Number of interventions.
        particles: Draws for each observation.
        factual: Whether the observations are written as well.
        npz: Whether all values are written as arrays as well.
    """

    observations: int
    interventions: int
    particles: int = 1
    factual: bool = False
    npz: bool = False

    @property
    def answers(self) -> int:
        """Number of sets of values that are written."""
        return self.observations * (self.interventions * self.particles + self.factual)


@dataclass(frozen=True)
class Batches:
    """The division of a request into batches.

    It depends on the model and the request, not on the machine, because the random numbers of an
    answer depend on its batch: the seed of the first batch is that of the request, and others are
    derived from it.

    Attributes:
        rows: Observations per batch.
        particles: Particles per batch; with several batches of particles, each has one observation.
        elements: Numbers in one answer.
        item: Bytes per number.
    """

    rows: int
    particles: int
    elements: int
    item: int

    @classmethod
    def of(cls, scm: StructuralCausalModel, request: Request) -> Batches:
        """Divide a request so that its memory is bounded."""
        elements = sum(math.prod(scm[name].domain.shape) for name in scm.graph.nodes)
        each = elements * (request.interventions + 1)
        particles = max(1, min(request.particles, _BATCH_NUMBERS // each))
        fitting = max(1, min(_BATCH_ROWS, _BATCH_NUMBERS // (each * particles)))
        rows = fitting if particles == request.particles else 1
        return cls(rows, particles, elements, scm.dtype.itemsize)

    def seed(self, seed: int, batch: int, chunk: int = 0) -> int:
        """The seed of a batch of observations and a chunk of particles."""
        if batch == chunk == 0:
            return seed
        return int(np.random.SeedSequence([seed, batch, chunk]).generate_state(1, np.uint64)[0])

    def chunks(self, particles: int) -> Iterator[tuple[int, int]]:
        """The first particle and the number of particles of each chunk."""
        for first in range(0, particles, self.particles):
            yield first, min(self.particles, particles - first)

    def check(
        self, scm: StructuralCausalModel, request: Request, folder: Path, option: str
    ) -> None:
        """Raise ValueError, naming the largest option, if the answers exceed memory or disk.

        Args:
            scm: The model.
            request: The request.
            folder: Folder of the answers.
            option: Option for the number of observations.
        """
        held = min(self.rows, request.observations) * self.particles * (request.interventions + 1)
        require_memory(
            "do", _COPIES * held * self.elements * self.item, "ask for fewer interventions at once"
        )
        most = max(
            ("num_particles", request.particles),
            ("do", request.interventions),
            (option, request.observations),
            key=lambda each: each[1],
        )[0]
        line = _LINE + _CELL * len(scm.graph.nodes)
        images = sum(math.prod(scm[name].domain.shape) for name in scm.image_variables)
        size = line + images // _COMPRESSED + request.npz * self.elements * self.item
        files = request.answers * len(scm.image_variables)
        require_disk(most, folder, request.answers * size, files, f"ask for less (--{most})")
