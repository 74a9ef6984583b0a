"""A session that takes any number of rows, on top of an engine that only gets calls of a fixed number of rows.

Engines plan memory and choose kernels ahead when all shapes are fixed. A request of another size is split into pieces.
The last piece is filled up with copies of the last row, and the answers for these copies are dropped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optimizer_jobs.models.engine import Array, EngineError, Session
from optimizer_jobs.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto


class FixedSession:
    """Wraps a session so that it is only ever called with `rows` rows. Safe to call from several threads."""

    def __init__(self, session: Session, *, rows: int) -> None:
        self._session = session
        self._rows = rows
        self._signature = _freed(session.signature)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the model, for any number of rows."""
        return self._signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of a batch of any size; raises EngineError when the inputs do not fit the model."""
        count = self._count(inputs)
        if count == self._rows:
            return self._session.run(inputs)
        pieces = [self._piece(inputs, start, count) for start in range(0, count, self._rows)]
        return {name: np.concatenate([piece[name] for piece in pieces])[:count] for name in pieces[0]}

    def _count(self, inputs: Mapping[str, Array]) -> int:
        counts = {len(values) for values in inputs.values() if values.ndim}
        if len(counts) != 1 or 0 in counts:
            raise EngineError(f"the inputs have {sorted(counts)} rows; every one needs the same number, at least one")
        return counts.pop()

    def _piece(self, inputs: Mapping[str, Array], start: int, count: int) -> dict[str, Array]:
        rows = np.minimum(np.arange(start, start + self._rows), count - 1)
        return self._session.run({name: values[rows] for name, values in inputs.items()})


def row_axis(model: "ModelProto") -> str | None:
    """Return the name of the free first axis that all inputs share, or None.

    None also when another axis of an input has the same name, or when an output has a fixed first axis.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [info.type.tensor_type.shape.dim for info in model.graph.input if info.name not in weights]
    outputs = [info.type.tensor_type.shape.dim for info in model.graph.output]
    if not inputs or not all(inputs) or not all(outputs) or any(shape[0].HasField("dim_value") for shape in outputs):
        return None
    names = {shape[0].dim_param for shape in inputs}
    others = {axis.dim_param for shape in inputs for axis in shape[1:]}
    return names.pop() if len(names) == 1 and not names & {"", *others} else None


def row_axis_of(path: Path) -> str:
    """Return the name of the row axis of the ONNX file at `path`; raises EngineError when it has none."""
    import onnx

    name = row_axis(onnx.load(path, load_external_data=False))
    if name is None:
        raise EngineError("the rows of this model cannot be fixed: its inputs do not share a named first axis")
    return name


def _freed(signature: Signature) -> Signature:
    return Signature(inputs=_any_rows(signature.inputs), outputs=_any_rows(signature.outputs))


def _any_rows(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec.model_copy(update={"shape": (-1, *spec.shape[1:])}) for spec in specs)
