"""Golden requests: real rows with the answers that a bundle gave when it was made.

Asking a live server the same requests proves that it runs this bundle. They have the form of the Open Inference
Protocol v2.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer_jobs.models.engine import Array, EngineError, Session
from optimizer_jobs.models.layout import as_taken
from optimizer_jobs.signature import TEXT, Signature, TensorSpec
from retune.contract.requests import Document

if TYPE_CHECKING:
    from optimizer_jobs.data.datasets import Rows  # which brings readers of every format, and servers check only

DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
    TEXT: "BYTES",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
}
"""The protocol's name of each element type."""
GOLDEN_ID, SHADOW_ID = "retune-golden", "retune-shadow"
"""Ids of golden requests, and of captured ones that are asked again."""
OWN_IDS = frozenset({GOLDEN_ID, SHADOW_ID})
"""A server that sees one of them knows that no user asks, and does not capture the request."""

_NUMBERS_LIMIT = 400_000
"""Numbers that all golden requests, or all answers, together may have; models with large rows get fewer requests."""

_DIGITS = 7
"""Significant digits that are kept of a float: as many as a 32-bit float has."""


class Tensor(Document):
    """One tensor of the protocol."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    """The protocol's name of the element type, such as FP32."""
    data: tuple[bool | int | float | str | None, ...]
    """All elements as a flat list in row-major order; None, which JSON writes as null, is a missing number."""


class GoldenRequest(Document):
    """One request with the outputs that a server must answer."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def body(self, request_id: str = GOLDEN_ID) -> dict[str, Any]:
        """Return the JSON body of the inference request."""
        return {"id": request_id, "inputs": [tensor.model_dump(mode="json") for tensor in self.inputs]}


class Golden(Document):
    """All golden requests of a bundle and how exactly floats must agree."""

    requests: tuple[GoldenRequest, ...] = ()
    absolute: float = 1e-3
    """Largest absolute difference of a float; a float that is within either tolerance agrees."""
    relative: float = 1e-3
    """Largest relative difference of a float."""


def record(session: Session, rows: "Rows", count: int = 8, *, sizes: Sequence[int] = (1,)) -> Golden:
    """Return golden requests of the sizes that serve, in turn, spread evenly over the rows without missing values.

    Where every row has some, requests are spread over all rows, and missing numbers are null.

    Args:
        session: The open model that answers them.
        rows: Rows to take the requests from.
        count: Largest number of requests.
        sizes: Rows of the requests that serve. A model with a fixed batch gets requests of that many rows instead.

    Raises:
        EngineError: An answer is not finite, which JSON cannot write.
    """
    rows = _most_complete(rows)
    fixed, most = session.signature.batch, _NUMBERS_LIMIT // _row_numbers(session.signature)
    fitting = max(1, most // len(sizes))
    wanted = [fixed] if fixed else [min(size, len(rows), fitting) for size in sizes]
    asked = _affordable(dict.fromkeys(wanted), count, rows=most)
    starts = np.linspace(0, max(0, len(rows) - min(wanted)), num=len(asked)).astype(int)
    last = [max(0, len(rows) - size) for size in asked]
    spans = dict.fromkeys(zip(np.minimum(starts, last).tolist(), asked, strict=True))
    return Golden(
        requests=tuple(answered(session, rows.take(slice(start, start + size)).inputs) for start, size in spans)
    )


def _row_numbers(signature: Signature) -> int:
    """Return the numbers of a row, of its inputs or of its outputs, whichever are more."""
    first = signature.rows_first
    return max(sum(spec.row_size for spec in specs) for specs in (first.inputs, first.outputs))


def _affordable(sizes: Iterable[int], count: int, *, rows: int) -> list[int]:
    """Return at most `count` sizes in turn that have at most `rows` rows together, but always one."""
    turns = list(islice(cycle(sizes), count))
    return [size for size, total in zip(turns, accumulate(turns), strict=True) if total <= rows] or turns[:1]


def _most_complete(rows: "Rows") -> "Rows":
    """Return the rows without missing values, or all rows where each has some."""
    complete = np.ones(len(rows), dtype=bool)
    for values in rows.inputs.values():
        if values.dtype.kind == "f":
            complete &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return rows.take(complete) if complete.any() and not complete.all() else rows


def check(answer: Mapping[str, Any], expected: GoldenRequest, *, golden: Golden) -> str | None:
    """Return how a server's JSON answer differs from the expected one, in words, or None when it does not."""
    outputs = answer.get("outputs")
    if not isinstance(outputs, list):
        return "the answer has no list of outputs"
    by_name = {item["name"]: item for item in outputs if isinstance(item, dict) and isinstance(item.get("name"), str)}
    for tensor in expected.outputs:
        reason = _compare(by_name.get(tensor.name), tensor, golden)
        if reason is not None:
            return f"output {tensor.name!r} {reason}"
    return None


def answered(session: Session, inputs: Mapping[str, Array]) -> GoldenRequest:
    """Return rows as a request, with the model's own answer.

    Args:
        session: The open model.
        inputs: Values by input name, each with shape (N, ...).

    Raises:
        EngineError: The model refuses them, or JSON cannot write them or the answer.
    """
    taken = as_taken(session.signature, inputs)
    answers = session.run(taken)
    asked = tuple(_tensor(spec, taken[spec.name], missing=True) for spec in session.signature.inputs)
    outputs = tuple(_rounded(_tensor(spec, answers[spec.name])) for spec in session.signature.outputs)
    return GoldenRequest(inputs=asked, outputs=outputs)


def feed(request: GoldenRequest, signature: Signature) -> dict[str, Array]:
    """Return the inputs of a request as the model takes them, by name; a missing number is NaN.

    Args:
        request: The request.
        signature: The model's inputs, for their element types.
    """
    dtypes = {spec.name: object if spec.dtype == TEXT else spec.dtype for spec in signature.inputs}
    return {
        tensor.name: np.asarray(tensor.data, dtypes[tensor.name]).reshape(tensor.shape) for tensor in request.inputs
    }


def replay(session: Session, request: GoldenRequest, *, golden: Golden) -> str | None:
    """Ask an open model a request as a server would, and return how its answer differs, in words, or None.

    Raises:
        EngineError: The model refuses the request.
    """
    answers = session.run(feed(request, session.signature))
    outputs = [{"name": name, "data": np.asarray(values).reshape(-1).tolist()} for name, values in answers.items()]
    return check({"outputs": outputs}, request, golden=golden)


def outputs_in(answer: Mapping[str, Any], request: GoldenRequest) -> dict[str, Array] | None:
    """Return the outputs in a server's JSON answer that the request knows, in its shapes; None where one is missing."""
    named = {item.get("name"): item.get("data") for item in answer.get("outputs") or () if isinstance(item, dict)}
    found: dict[str, Array] = {}
    for tensor in request.outputs:
        data = named.get(tensor.name)
        flat = _flat(data, limit=len(tensor.data)) if isinstance(data, list) else []
        if len(flat) != len(tensor.data):
            return None
        found[tensor.name] = np.array(flat).reshape(tensor.shape)
    return found


def _tensor(spec: TensorSpec, values: Array, *, missing: bool = False) -> Tensor:
    """Return values in the form of the protocol; NaN is null where values may be `missing`."""
    allowed = np.isnan(values) if missing and spec.is_float else False
    if spec.is_float and not (np.isfinite(values) | allowed).all():
        raise EngineError(f"{spec.name!r} is not finite, which cannot be written in JSON")
    data = (None if isinstance(value, float) and math.isnan(value) else value for value in values.reshape(-1).tolist())
    return Tensor(name=spec.name, shape=values.shape, datatype=DATATYPES[spec.dtype], data=tuple(data))


def _rounded(tensor: Tensor) -> Tensor:
    """Round floats to their significant digits, so that answers of different machines differ less."""
    data = [float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value for value in tensor.data]
    return tensor.model_copy(update={"data": tuple(data)})


def _compare(output: Mapping[str, Any] | None, expected: Tensor, golden: Golden) -> str | None:
    if output is None:
        return "is missing"
    data = output.get("data")
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
    """Return nested lists as one flat list; stop once it has more than `limit` elements."""
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
