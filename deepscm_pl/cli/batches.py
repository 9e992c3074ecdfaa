"""How many observations and particles are answered at a time, and with which random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepscm_pl.memory import require_disk, require_memory
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Batches", "Request"]

_ROWS = 256
"""Observations at a time, at most."""
_ELEMENTS = 2**24
"""Numbers in the answers of a batch, at most; one particle of one observation may have more."""
_COPIES = 6
"""How often these numbers are in memory while they are computed and written, as measured."""
_CELL, _LINE = 8, 24
"""Bytes of a cell of the table, and of what else stands in its line, at least."""
_COMPRESSED = 4
"""How much smaller images are in their files, at most."""


@dataclass(frozen=True)
class Request:
    """How much is asked for.

    Attributes:
        observations: How many, at least.
        interventions: How many.
        particles: Draws of each observation.
        factual: Whether the observations themselves are written, too.
        npz: Whether all values are written as arrays, too.
    """

    observations: int
    interventions: int
    particles: int = 1
    factual: bool = False
    npz: bool = False

    @property
    def answers(self) -> int:
        """How many sets of values are written."""
        return self.observations * (self.interventions * self.particles + self.factual)


@dataclass(frozen=True)
class Batches:
    """The division of a request.

    It follows from the model and the request, not from the machine, because the random numbers of
    an answer follow from its place: the seed of the first batch is that of the request, those of
    others are derived from it.

    Attributes:
        rows: Observations at a time.
        particles: Particles at a time; of several batches of particles each is of one observation.
        elements: Numbers in one answer.
        item: Bytes of a number.
    """

    rows: int
    particles: int
    elements: int
    item: int

    @classmethod
    def of(cls, scm: StructuralCausalModel, request: Request) -> Batches:
        """Divide a request so that the memory that it takes does not grow with it."""
        elements = sum(math.prod(scm[name].domain.shape) for name in scm.graph.nodes)
        each = elements * (request.interventions + 1)
        particles = max(1, min(request.particles, _ELEMENTS // each))
        fitting = max(1, min(_ROWS, _ELEMENTS // (each * particles)))
        rows = fitting if particles == request.particles else 1
        return cls(rows, particles, elements, scm.dtype.itemsize)

    def seed(self, seed: int, batch: int, chunk: int = 0) -> int:
        """The seed of some particles of a batch of observations."""
        if batch == chunk == 0:
            return seed
        return int(np.random.SeedSequence([seed, batch, chunk]).generate_state(1, np.uint64)[0])

    def chunks(self, particles: int) -> Iterator[tuple[int, int]]:
        """The first and the number of the particles that are drawn at a time."""
        for first in range(0, particles, self.particles):
            yield first, min(self.particles, particles - first)

    def check(
        self, scm: StructuralCausalModel, request: Request, folder: Path, option: str
    ) -> None:
        """Raise if the answers do not fit the memory or the disk.

        Args:
            scm: The model.
            request: What is asked for.
            folder: Where the answers are to be written.
            option: The one that says how many observations there are.

        Raises:
            ValueError: Naming the option that asks for most.
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
