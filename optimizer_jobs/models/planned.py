"""A session with a second plan for the calls it gets most, beside the one that takes any.

Engines fuse more and pick better kernels when nothing about a shape is open. Never changes what is answered: a call of
another shape goes to the plan for any shape, as a whole.
"""

from collections.abc import Mapping

from optimizer_jobs.models.engine import Array, Session
from optimizer_jobs.signature import Signature


class PlannedSession:
    """Two open sessions of one model. Safe to call from several threads when they are."""

    def __init__(self, free: Session, planned: Session, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._free = free
        self._planned = planned
        self._shapes = shapes

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the file, their axes as free as they are there."""
        return self._free.signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output for one batch of any shape; raises EngineError when it does not fit the model."""
        fits = len(inputs) == len(self._shapes) and all(
            values.shape == self._shapes.get(name) for name, values in inputs.items()
        )
        return (self._planned if fits else self._free).run(inputs)
