"""Golden requests: real rows with the answers a bundle gave when it was made, in the form a server is asked.

They prove that a live server runs the bundle it was given. The form is the Open Inference Protocol v2.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.engine import Array, EngineError, Session
from optimizer_jobs.signature import TEXT, TensorSpec
from retune.contract.requests import Document

_DATATYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL", TEXT: "BYTES",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
GOLDEN_ID = "retune-golden"
"""Id of a golden request, by which a server knows that nobody's question is asked, and captures nothing."""

_NUMBERS_LIMIT = 400_000
"""Input numbers that all golden requests together may have; large inputs get fewer requests."""

_DIGITS = 7
"""Significant digits kept of a float: those a 32-bit float has."""


class Tensor(Document):
    """One tensor of the protocol: `data` is flat, in row-major order."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: tuple[bool | int | float | str, ...]


class GoldenRequest(Document):
    """One request and the outputs it must bring."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the inference request."""
        return {"id": GOLDEN_ID, "inputs": [tensor.model_dump(mode="json") for tensor in self.inputs]}


class Golden(Document):
    """All golden requests of a bundle and how exactly floats must agree."""

    requests: tuple[GoldenRequest, ...] = ()
    absolute: float = 1e-3
    relative: float = 1e-3


def record(session: Session, rows: Rows, count: int = 8) -> Golden:
    """Return up to `count` golden requests of one row each, spread evenly over the rows that lack nothing.

    A model with a fixed batch gets requests of that many rows. Raises EngineError when an answer is not finite, or
    when every row lacks something, which JSON cannot say.
    """
    rows = _complete(rows)
    size = session.signature.batch or 1
    row = sum(spec.row_size for spec in session.signature.inputs)
    affordable = min(count, max(1, _NUMBERS_LIMIT // (row * size)))
    starts = np.unique(np.linspace(0, max(0, len(rows) - size), num=affordable).astype(int))
    return Golden(requests=tuple(_ask(session, rows.take(slice(start, start + size))) for start in starts))


def _complete(rows: Rows) -> Rows:
    """Return the rows whose inputs are all there."""
    whole = np.ones(len(rows), dtype=bool)
    for values in rows.inputs.values():
        if values.dtype.kind == "f":
            whole &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not whole.any():
        raise EngineError("every row has missing values, and golden requests need some without")
    return rows if whole.all() else rows.take(whole)


def check(answer: Mapping[str, Any], expected: GoldenRequest, *, golden: Golden) -> str | None:
    """Return why a server's JSON answer is not the expected one, or None when it is."""
    outputs = answer.get("outputs")
    if not isinstance(outputs, list):
        return "the answer has no list of outputs"
    found = {item["name"]: item for item in outputs if isinstance(item, dict) and isinstance(item.get("name"), str)}
    for tensor in expected.outputs:
        reason = _compare(found.get(tensor.name), tensor, golden)
        if reason is not None:
            return f"output {tensor.name!r} {reason}"
    return None


def _ask(session: Session, rows: Rows) -> GoldenRequest:
    answers = session.run(rows.inputs)
    inputs = tuple(_tensor(spec, rows.inputs[spec.name]) for spec in session.signature.inputs)
    outputs = tuple(_rounded(_tensor(spec, answers[spec.name])) for spec in session.signature.outputs)
    return GoldenRequest(inputs=inputs, outputs=outputs)


def _tensor(spec: TensorSpec, values: Array) -> Tensor:
    if spec.is_float and not np.isfinite(values).all():
        raise EngineError(f"{spec.name!r} is not finite, which cannot be written in JSON")
    data = tuple(values.reshape(-1).tolist())
    return Tensor(name=spec.name, shape=values.shape, datatype=_DATATYPES[spec.dtype], data=data)


def _rounded(tensor: Tensor) -> Tensor:
    """Round floats to the digits that mean something, so that machines differ less; inputs are never rounded."""
    data = [float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value for value in tensor.data]
    return tensor.model_copy(update={"data": tuple(data)})


def _compare(found: Mapping[str, Any] | None, expected: Tensor, golden: Golden) -> str | None:
    if found is None:
        return "is missing"
    data = found.get("data")
    if not isinstance(data, list):
        return "has no data"
    flat = _flat(data, limit=len(expected.data))
    if len(flat) != len(expected.data):
        return f"has not the expected {len(expected.data)} values"
    for index, (have, want) in enumerate(zip(flat, expected.data, strict=True)):
        if not _equal(have, want, golden):
            return f"is {have!r:.40} at position {index} where {want!r} was recorded"
    return None


def _flat(data: list[Any], *, limit: int) -> list[Any]:
    """Return nested lists as one list, stopping once there is more than `limit`."""
    flat: list[Any] = []
    stack: list[Any] = [data]
    while stack and len(flat) <= limit:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        else:
            flat.append(item)
    return flat


def _equal(have: object, want: object, golden: Golden) -> bool:
    if not isinstance(want, float):
        return bool(have == want)
    if not isinstance(have, int | float) or not math.isfinite(have):
        return False
    return math.isclose(have, want, rel_tol=golden.relative, abs_tol=golden.absolute)
