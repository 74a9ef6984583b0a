"""Read what KServe's inference logger writes to a bucket: JSON or Parquet files with a record for each half of a call.

By default every half is an object of its own, named by the call's id; with `batchSize` a file has many. Its Parquet
files do not say when a call was made, so the time of the file is taken. Everything is hostile input: a broken record
costs itself, and is counted.
"""

import base64
import binascii
import json
import random
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
from pyarrow import parquet

from optimizer_jobs.data.memory import memory_told
from optimizer_jobs.production import files
from optimizer_jobs.production.columns import is_text, kind_of, open_parquet
from optimizer_jobs.production.events import KINDS, served_bundle, time_of
from optimizer_jobs.production.foreign import Exchange, Span, listed, short_name
from optimizer_jobs.production.protocol import (
    BODY_BYTES,
    ID_LIMIT,
    Body,
    Kind,
    UnfitEventError,
    UnreadableBodyError,
    parse_body,
    tensors,
)
from optimizer_jobs.production.reading import Tally
from optimizer_jobs.signature import Signature

NAMES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+-]{0,250}\.(json|parquet)")
"""Names of the files that are read."""

FILE_BYTES = 64 << 20
"""Largest file that is read."""

GROUP_BYTES = 256 << 20
"""Largest part of a Parquet file, as it declares it, once it is unpacked."""

RECORDS_BYTES = 256 << 20
"""Largest total size of a file's records."""

WAITING_BYTES = 256 << 20
"""Largest total size of halves that wait for the other one."""

BROKEN = "records that cannot be read"
UNREADABLE = "calls that are no inference, or cannot be read"
ALONE = "requests or answers without the other half"
DOUBLED = "requests with an id that another has too"

_BYTES, _TYPE, _ID, _ANNOTATIONS, _TIME = "bytes", "reqType", "id", "annotations", "occurrenceTime"
_COLUMNS = [_BYTES, _TYPE, _ID, _ANNOTATIONS]
_BATCH_ROWS = 64
_OVERHEAD_BYTES = 1024
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError)
_HALF = re.compile(r"-(request|response)\.(json|parquet)$")


@dataclass(frozen=True)
class _Half:
    """A request or an answer."""

    id: str
    kind: Kind
    time: float
    payload: bytes
    served: str | None
    file: str

    @property
    def size(self) -> int:
        return len(self.payload) + _OVERHEAD_BYTES


def exchanges(span: Span, signature: Signature, tally: Tally) -> Iterator[Exchange]:
    """Yield the requests of a span with their answers.

    Args:
        span: Which requests are wanted, and where.
        signature: Inputs and outputs of the model.
        tally: Counts what cannot be used.

    Raises:
        JobError: The folder cannot be listed, or its server cannot be read.
    """
    for request, answer in _pairs(_halves(span, tally), span, tally):
        exchange = _exchange(request, answer, span, signature, tally)
        if exchange is not None:
            yield exchange


def _halves(span: Span, tally: Tally) -> Iterator[_Half]:
    found = listed(span, NAMES, tally, largest=FILE_BYTES)
    for file in _sample(found, tally, seed=span.seed):
        try:
            with memory_told(), files.opened(file, into=span.into) as source:
                read = _parquet if file.location.uri.endswith(".parquet") else _json
                for record in _bounded(read(source, tally), tally):
                    half = _half(record, file)
                    if half is None:
                        tally.set_aside[BROKEN] += 1
                    else:
                        yield half
        except _UNREADABLE:
            tally.set_aside["files that cannot be read"] += 1


def _bounded(records: Iterator[Any], tally: Tally) -> Iterator[Any]:
    """Yield a file's records, up to as many bytes as an honest file has: a small one may repeat a large text."""
    spent = 0
    for record in records:
        encoded = record.get(_BYTES) if isinstance(record, Mapping) else None
        spent += _OVERHEAD_BYTES + (len(encoded) if isinstance(encoded, str) else 0)
        if spent > RECORDS_BYTES:
            tally.set_aside["files that cannot be read to their end"] += 1
            return
        yield record


def _sample(found: list[files.ListedFile], tally: Tally, *, seed: int) -> list[files.ListedFile]:
    """Return the files, or of too many a random sample that does not part a request from its answer."""
    if len(found) <= files.FILES_LIMIT:
        return found
    calls: dict[str, list[files.ListedFile]] = {}
    for file in found:
        calls.setdefault(_HALF.sub("", file.location.uri), []).append(file)
    names = sorted(calls)
    random.Random(seed).shuffle(names)
    kept: set[str] = set()
    for name in names:
        if len(kept) + len(calls[name]) > files.FILES_LIMIT:
            break
        kept |= {file.location.uri for file in calls[name]}
    tally.set_aside["files beyond the limit"] += len(found) - len(kept)
    return [file for file in found if file.location.uri in kept]


def _json(source: IO[bytes], _tally: Tally) -> Iterator[Any]:
    """Yield the records of a file with one, or with a list of them."""
    content = json.load(source)
    yield from content if isinstance(content, list) else [content]


def _parquet(source: IO[bytes], tally: Tally) -> Iterator[Any]:
    """Yield the records of a file as JSON has them."""
    with open_parquet(source, repetitive=_repetitive(source)) as file:
        if not all(is_text(kind_of(file.schema_arrow, name)) for name in _COLUMNS):
            tally.set_aside["files of another layout"] += 1
            return
        for group in range(file.metadata.num_row_groups):
            if _unpacked_bytes(file.metadata.row_group(group)) > GROUP_BYTES:
                tally.set_aside["files too large to read"] += 1
                continue
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=_COLUMNS, use_threads=False):
                for row in range(len(batch)):
                    yield {name: batch.column(name)[row].as_py() for name in _COLUMNS}


def _repetitive(source: IO[bytes]) -> set[str]:
    """Return the columns that may hold a long text many times in a few bytes, and are to be read so that they do not.

    KServe's own files have none. Raises ValueError for a file of which nobody can tell.
    """
    meta = parquet.read_metadata(source)
    source.seek(0)
    found = set()
    for group in range(meta.num_row_groups):
        for index in range(meta.num_columns):
            column = meta.row_group(group).column(index)
            coded = any("DICTIONARY" in encoding for encoding in column.encodings)
            if coded and any("DELTA" in encoding for encoding in column.encodings):
                raise ValueError(f"{column.path_in_schema} is encoded in two ways")
            found |= {column.path_in_schema} if coded else set()
    return found


def _unpacked_bytes(group: parquet.RowGroupMetaData) -> int:
    columns = (group.column(index) for index in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema in _COLUMNS)


def _half(record: Any, file: files.ListedFile) -> _Half | None:
    """Return the half of a call that a record holds, or None where it is broken."""
    if not isinstance(record, Mapping):
        return None
    kind, identity, encoded = KINDS.get(str(record.get(_TYPE))), record.get(_ID), record.get(_BYTES) or ""
    moment = time_of(record.get(_TIME)) or file.changed
    if kind is None or not isinstance(identity, str) or not 0 < len(identity) <= ID_LIMIT or not moment:
        return None
    if not isinstance(encoded, str) or len(encoded) > 4 * (BODY_BYTES // 3 + 1):
        return None
    try:
        payload = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return _Half(identity, kind, moment, payload, served_bundle(record.get(_ANNOTATIONS)), short_name(file))


def _pairs(halves: Iterator[_Half], span: Span, tally: Tally) -> Iterator[tuple[_Half, _Half]]:
    """Yield each request of the span with its answer; those that an id does not tell apart are left out."""
    waiting: OrderedDict[str, _Half] = OrderedDict()
    doubled: set[str] = set()
    size = 0
    for half in halves:
        other = waiting.pop(half.id, None)
        size -= other.size if other else 0
        if half.id in doubled or (other is not None and other.kind == half.kind):
            doubled.add(half.id)
            tally.set_aside[DOUBLED] += 1 if half.kind == "request" else 0
        elif other is not None:
            request, answer = (half, other) if half.kind == "request" else (other, half)
            if span.has(request.time):
                yield request, answer
        else:
            waiting[half.id] = half
            size += half.size
        while size > WAITING_BYTES:
            _, oldest = waiting.popitem(last=False)
            size -= oldest.size
            tally.set_aside[ALONE] += span.has(oldest.time)
    tally.set_aside[ALONE] += sum(span.has(half.time) for half in waiting.values())


def _exchange(request: _Half, answer: _Half, span: Span, signature: Signature, tally: Tally) -> Exchange | None:
    """Return a request with its answer, or None where it is not wanted or cannot be used, which is counted."""
    try:
        asked, answered = parse_body(request.payload), parse_body(answer.payload)
        request_id = asked.id or request.id
        if asked.is_own or not span.wants(request_id):
            return None
        inputs, outputs = tensors(asked, "request", signature), tensors(answered, "response", signature)
    except UnreadableBodyError:
        tally.set_aside[UNREADABLE] += 1
        return None
    except UnfitEventError as error:
        tally.unfit(str(error).rstrip("."), rows=1, file=request.file)
        return None
    model = _model(answered, answer) or span.model
    return Exchange(request_id, request.time, model, inputs, outputs, request.file)


def _model(answered: Body, answer: _Half) -> str | None:
    return answered.bundle or answer.served
