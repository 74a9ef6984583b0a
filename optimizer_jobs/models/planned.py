"""A session with two compiled copies of a model: one for the shapes of its most frequent calls, one for any shape.

Engines fuse more and choose better kernels when all shapes are fixed. A call of any other shape goes, as a whole, to
the copy for any shape, so the answers never change.
"""

from collections.abc import Mapping

from optimizer_jobs.models.engine import Array, Session
from optimizer_jobs.signature import Signature


class PlannedSession:
    """Two open sessions of one model: `planned` for exactly `shapes`, `free` for all others.

    Safe to call from several threads when both sessions are.
    """

    def __init__(self, free: Session, planned: Session, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._free = free
        self._planned = planned
        self._shapes = shapes

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the model, with free axes as in its file."""
        return self._free.signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch of any shape; raises EngineError when the inputs do not fit the model."""
        fits = len(inputs) == len(self._shapes) and all(
            values.shape == self._shapes.get(name) for name, values in inputs.items()
        )
        return (self._planned if fits else self._free).run(inputs)
