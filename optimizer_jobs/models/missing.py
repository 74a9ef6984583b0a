"""Missing values (NaN) in a model's inputs: does a model handle them?

A model that was not made for missing values answers NaN, or worse, a wrong number. So two things are checked: that the
graph has operators for missing values, and that the answers for rows with missing values are finite.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.engine import Array, Session
from optimizer_jobs.models.layout import ask

_OPERATORS = frozenset({"Imputer", "IsNaN"})
_BATCH = 1024
_SHOWN = 5


def accepts_missing(model: Path) -> bool:
    """Return whether the ONNX file at `model` has operators that handle missing values."""
    return any(_handles_missing(node) for node in _nodes(onnx.load(model, load_external_data=False)))


def unanswered(session: Session, rows: Rows) -> str | None:
    """Return which rows with missing values get no finite answer, in words without a full stop; None when all do."""
    incomplete = np.zeros(len(rows), dtype=bool)
    for values in rows.inputs.values():
        incomplete |= _missing(values).any(axis=1)
    if not incomplete.any():
        return None
    asked = rows.take(incomplete)
    bad = ~_finite(session, asked)
    if not bad.any():
        return None
    return f"the model gives no finite answer for {bad.sum()} of {len(rows)} rows, where {_where(asked.take(bad))}"


def _handles_missing(node: NodeProto) -> bool:
    if node.op_type in _OPERATORS:
        return True
    return any(
        attribute.name.endswith("missing_value_tracks_true") and any(attribute.ints) for attribute in node.attribute
    )


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _missing(values: Array) -> Array:
    """Return a mask (N, F) of the missing values of an input (N, ...)."""
    flat = values.reshape(len(values), -1)
    return np.isnan(flat) if flat.dtype.kind == "f" else np.zeros(flat.shape, dtype=bool)


def _finite(session: Session, rows: Rows) -> Array:
    """Return a mask (N,) of the rows whose outputs are all finite."""
    size = session.signature.batch or min(_BATCH, len(rows))
    masks = [_finite_outputs(ask(session, rows.take(batch).inputs)) for batch in _batches(len(rows), size)]
    return np.concatenate(masks)[: len(rows)]


def _batches(rows: int, size: int) -> Iterator[Array]:
    """Yield row indices in batches of `size`; the last batch is filled up with the first rows."""
    for start in range(0, rows, size):
        yield np.arange(start, start + size) % rows


def _finite_outputs(outputs: Mapping[str, Array]) -> Array:
    finite = np.ones(len(next(iter(outputs.values()))), dtype=bool)
    for values in outputs.values():
        if values.dtype.kind == "f":
            finite &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return finite


def _where(rows: Rows) -> str:
    """Return in words which inputs are missing in these rows."""
    places = []
    for name, values in rows.inputs.items():
        columns = np.flatnonzero(_missing(values).any(axis=0))
        if len(columns):
            shown = ", ".join(str(column) for column in columns[:_SHOWN]) + (" ..." if len(columns) > _SHOWN else "")
            places.append(f"input {name!r} is missing" + (f" in column {shown}" if values.size > len(values) else ""))
    return " and ".join(places[:_SHOWN])
