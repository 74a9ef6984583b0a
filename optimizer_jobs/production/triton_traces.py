"""Read the trace files of Triton Inference Server, written with the levels TIMESTAMPS and TENSORS.

Triton writes ids and texts into its JSON as they come, without escapes, so that one of them can break a record or look
like another. A record that cannot be read costs itself; texts are not taken from a trace at all. Floats have six
significant digits there. Times are those of the machine's clock since it started: the last of a file is taken for the
moment when the file was written.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.models.golden import OWN_IDS
from optimizer_jobs.production import files
from optimizer_jobs.production.foreign import Exchange, Span, listed, short_name
from optimizer_jobs.production.protocol import ID_LIMIT, Array, UnfitEventError, shaped, values_of
from optimizer_jobs.production.reading import Tally
from optimizer_jobs.signature import Signature, TensorSpec

NAMES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,230}\.json(\.[0-9]{1,12})?")
"""Names of the files that are read: Triton adds a number where it has a log-frequency."""

FILE_BYTES = 64 << 20
"""Largest file that is read."""

BROKEN = "records of a trace that cannot be read"
FOREIGN = "traces of other models"

_WHOLE = frozenset({"BOOL", "INT16", "INT32", "INT64", "UINT16", "UINT32", "UINT64"})
_FLOATS = frozenset({"FP32", "FP64"})
_BEGIN = '{"id":'
_START = "REQUEST_START"
_GIVEN, _ANSWERED = "TENSOR_QUEUE_INPUT", "TENSOR_BACKEND_OUTPUT"
_PATIENCE = (4, 16 << 20)
"""How often a file's length, and how many characters more, may be spent on records that turn out to be broken."""
_DEEP = 1 << 16
"""Characters that a record is taken to have cost that nests too deeply."""


@dataclass
class _Trace:
    """What is known of one request."""

    request_id: str | None = None
    inner: bool = False
    """Whether it is a part of an ensemble's request."""
    start: int | None = None
    """When the request began, in nanoseconds of the machine's clock."""
    inputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    doubled: bool = False
    """Whether a tensor is there twice, so that nobody knows which is true."""


@dataclass
class _File:
    """The traces of one file."""

    traces: dict[int, _Trace] = field(default_factory=dict)
    last: int | None = None
    """The last moment in it, in nanoseconds of the machine's clock."""

    def add(self, record: Any) -> bool:
        """Add a record; return whether it is one."""
        number = record.get("id") if isinstance(record, dict) else None
        if not isinstance(number, int):
            return False
        trace = self.traces.setdefault(number, _Trace())
        if "timestamps" in record:
            return self._add_times(trace, record["timestamps"])
        if "tensor" in record:
            return _add_tensor(trace, record.get("activity"), record["tensor"])
        return _add_names(trace, record)

    def _add_times(self, trace: _Trace, times: Any) -> bool:
        for moment in times if isinstance(times, list) else ():
            name, at = (moment.get("name"), moment.get("ns")) if isinstance(moment, dict) else (None, None)
            if not isinstance(at, int) or not 0 < at < 1 << 63:
                return False
            self.last = max(at, self.last or 0)
            trace.start = at if name == _START else trace.start
        return isinstance(times, list)

    def time_of(self, trace: _Trace, written: float) -> float:
        """Return when a request began, in seconds since 1970; `written` is when the file was."""
        if trace.start is None or self.last is None:
            return written
        return written - (self.last - trace.start) / 1e9


def exchanges(span: Span, signature: Signature, tally: Tally) -> Iterator[Exchange]:
    """Yield the requests of a span with their answers.

    Args:
        span: Which requests are wanted, and where.
        signature: Inputs and outputs of the model.
        tally: Counts what cannot be used.

    Raises:
        JobError: The folder cannot be listed, or its server cannot be read.
    """
    found = listed(span, NAMES, tally, largest=FILE_BYTES)
    if len(found) > files.FILES_LIMIT:
        tally.set_aside["files beyond the limit"] += len(found) - files.FILES_LIMIT
    for file in files.sample(found, limit=files.FILES_LIMIT, seed=span.seed):
        try:
            with memory_told(), files.opened(file, into=span.into) as source:
                text = source.read(FILE_BYTES).decode("utf-8", "replace")
        except OSError:
            tally.set_aside["files that cannot be read"] += 1
            continue
        yield from _exchanges(_read(text, tally), file, span, signature, tally)


def _read(text: str, tally: Tally) -> _File:
    """Return the traces in a file, which may end in the middle of one."""
    found, decoder, spent = _File(), json.JSONDecoder(strict=False), 0
    most, place = _PATIENCE[0] * len(text) + _PATIENCE[1], text.find(_BEGIN)
    while place >= 0 and spent <= most:
        try:
            record, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            record, end, spent = None, place + 1, spent + error.pos - place
        except (ValueError, RecursionError):
            record, end, spent = None, place + 1, spent + _DEEP
        tally.set_aside[BROKEN] += not found.add(record)
        place = text.find(_BEGIN, end)
    tally.set_aside["files that cannot be read to their end"] += place >= 0
    return found


def _add_names(trace: _Trace, record: Mapping[str, Any]) -> bool:
    if not record.keys() <= {"id", "model_name", "model_version", "request_id", "parent_id"}:
        return False
    given = record.get("request_id")
    trace.request_id = given if isinstance(given, str) and 0 < len(given) <= ID_LIMIT else None
    trace.inner = "parent_id" in record
    return True


def _add_tensor(trace: _Trace, activity: Any, tensor: Any) -> bool:
    side = {_GIVEN: trace.inputs, _ANSWERED: trace.outputs}.get(activity) if isinstance(activity, str) else None
    if not isinstance(tensor, dict) or not all(isinstance(value, str) for value in tensor.values()):
        return False
    if side is not None and "name" in tensor:
        trace.doubled |= tensor["name"] in side
        side[tensor["name"]] = tensor
    return True


def _exchanges(
    read: _File, file: files.ListedFile, span: Span, signature: Signature, tally: Tally
) -> Iterator[Exchange]:
    name = short_name(file)
    for number, trace in read.traces.items():
        moment = read.time_of(trace, file.changed)
        request_id = trace.request_id or f"{name}-{number}"
        if not span.has(moment) or trace.inner or request_id in OWN_IDS or not span.wants(request_id):
            continue
        if not {spec.name for spec in signature.inputs} & trace.inputs.keys():
            tally.set_aside[FOREIGN] += bool(trace.inputs)
            continue
        try:
            inputs, outputs = _tensors(trace, signature)
        except UnfitEventError as error:
            tally.unfit(str(error).rstrip("."), rows=1, file=name)
            continue
        yield Exchange(request_id, moment, span.model, inputs, outputs, name)


def _tensors(trace: _Trace, signature: Signature) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return a request's inputs and outputs; raises UnfitEventError."""
    if trace.doubled:
        raise UnfitEventError("a tensor is in the trace twice.")
    inputs = {spec.name: _values(trace.inputs.get(spec.name), spec) for spec in signature.inputs}
    return inputs, {spec.name: _values(trace.outputs.get(spec.name), spec) for spec in signature.outputs}


def _values(tensor: Mapping[str, Any] | None, spec: TensorSpec) -> Array:
    if tensor is None:
        raise UnfitEventError(f"tensor {spec.name!r} is missing.")
    kind = tensor.get("dtype")
    if kind not in _WHOLE | _FLOATS:
        raise UnfitEventError(f"tensor {spec.name!r} is of a type whose values a trace does not hold, or not safely.")
    try:
        numbers = np.array(tensor["data"].split(",")).astype(np.float64 if kind in _FLOATS else np.dtype(_NUMPY[kind]))
        with np.errstate(all="ignore"):
            return shaped(values_of(numbers, spec), [int(size) for size in tensor["shape"].split(",")])
    except (KeyError, ValueError, OverflowError) as error:
        raise UnfitEventError(f"tensor {spec.name!r} has values or a shape that are none.") from error


_NUMPY = {kind: "uint64" if kind == "UINT64" else "int64" for kind in _WHOLE}
