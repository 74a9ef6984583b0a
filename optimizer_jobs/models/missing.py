"""Missing values (NaN) in a model's inputs: which models deal with them, and whether one did.

A model that was not made for them answers NaN, or worse, something. So both is asked for: that the graph says that it
deals with missing values, and that the answers on the rows that have some are finite.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.engine import Array, Session

_OPERATORS = frozenset({"Imputer", "IsNaN"})
_BATCH = 1024
_SHOWN = 5


def accepts_missing(model: Path) -> bool:
    """Return whether the ONNX file at `model` has operators that treat a missing value as one."""
    return any(_treats(node) for node in _nodes(onnx.load(model, load_external_data=False)))


def unanswered(session: Session, rows: Rows) -> str | None:
    """Return which rows with missing values get no finite answer, in words without a full stop; None when all do."""
    lacking = np.zeros(len(rows), dtype=bool)
    for values in rows.inputs.values():
        lacking |= _missing(values).any(axis=1)
    if not lacking.any():
        return None
    asked = rows.take(lacking)
    bad = ~_finite(session, asked)
    if not bad.any():
        return None
    return f"the model gives no finite answer for {bad.sum()} of {len(rows)} rows, where {_where(asked.take(bad))}"


def _treats(node: NodeProto) -> bool:
    if node.op_type in _OPERATORS:
        return True
    return any(one.name.endswith("missing_value_tracks_true") and any(one.ints) for one in node.attribute)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _missing(values: Array) -> Array:
    """Return where a row of an input has missing values, as (N, F)."""
    flat = values.reshape(len(values), -1)
    return np.isnan(flat) if flat.dtype.kind == "f" else np.zeros(flat.shape, dtype=bool)


def _finite(session: Session, rows: Rows) -> Array:
    """Return for each row whether all its outputs are finite."""
    size = session.signature.batch or min(_BATCH, len(rows))
    found = [_finite_outputs(session.run(rows.take(batch).inputs)) for batch in _batches(len(rows), size)]
    return np.concatenate(found)[: len(rows)]


def _batches(rows: int, size: int) -> Iterator[Array]:
    """Yield the numbers of rows in batches of one size; the last is filled up from the start."""
    for start in range(0, rows, size):
        yield np.arange(start, start + size) % rows


def _finite_outputs(outputs: Mapping[str, Array]) -> Array:
    finite = np.ones(len(next(iter(outputs.values()))), dtype=bool)
    for values in outputs.values():
        if values.dtype.kind == "f":
            finite &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return finite


def _where(rows: Rows) -> str:
    """Return which inputs are missing in these rows."""
    found = []
    for name, values in rows.inputs.items():
        columns = np.flatnonzero(_missing(values).any(axis=0))
        if len(columns):
            shown = ", ".join(str(column) for column in columns[:_SHOWN]) + (" ..." if len(columns) > _SHOWN else "")
            found.append(f"input {name!r} is missing" + (f" in column {shown}" if values.size > len(values) else ""))
    return " and ".join(found[:_SHOWN])
