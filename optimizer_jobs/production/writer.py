"""Write captured requests in the background of a model server, without ever disturbing it.

Requests go into a bounded queue, and one thread writes them. A request that does not fit into the queue, or cannot be
written, is counted and dropped: the server must not slow down, fill its memory or fail because of capturing.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from prometheus_client import Counter
from pyarrow import parquet

from optimizer_jobs.models.engine import Array
from optimizer_jobs.production import layout
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

WRITTEN = Counter("retune_capture_rows", "Captured rows that are in a file.")
DROPPED = Counter("retune_capture_dropped_rows", "Rows that were not captured, by reason.", ["reason"])

QUEUE_BYTES = 64 << 20
"""Most bytes of inputs and outputs in the queue."""

_WARNING_SECONDS = 60.0
"""Shortest time between two warnings in the log."""

_log = logging.getLogger(__name__)

_Group = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]
"""What the rows of one file have in common: the folder, and the shape of one row by column."""


@dataclass(frozen=True)
class _Request:
    """A request of N rows with its answer."""

    request_id: str
    model: str
    tensors: Mapping[str, Array]
    """By column, with shape (N, ...)."""
    time: float
    """When it arrived, in seconds since 1970."""

    @property
    def rows(self) -> int:
        return max((len(values) for values in self.tensors.values() if values.ndim), default=0)

    @property
    def size(self) -> int:
        return sum(values.nbytes for values in self.tensors.values())


class Destination(Protocol):
    """Where files of captured requests are put."""

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Write a file below a folder (`date=.../hour=...`) completely, or leave none; whatever it raises is logged."""


class _Volume:
    """Files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, folder: str, name: str, content: bytes) -> None:
        place = self._folder / folder
        place.mkdir(parents=True, exist_ok=True)
        beside = place / f".{name}"
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(place / name)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


class CaptureWriter:
    """Takes requests from any thread and writes them in a thread of its own."""

    def __init__(
        self,
        place: Path | Destination,
        signature: Signature,
        *,
        queue_rows: int = 20_000,
        flush_rows: int = 5_000,
        flush_seconds: float = 10.0,
    ) -> None:
        """Start the thread that writes.

        Args:
            place: Folder that contains the folders of days, made when the first rows are written; or what puts them
                elsewhere.
            signature: Inputs and outputs of the model.
            queue_rows: Most rows in the queue; requests beyond are dropped.
            flush_rows: Number of rows that are written without waiting for more.
            flush_seconds: Longest time that a row waits.

        Raises:
            ValueError: The capture format cannot hold the model's element types.
        """
        layout.schema(signature)
        self._destination: Destination = _Volume(place) if isinstance(place, Path) else place
        self._signature = signature
        self._columns = layout.columns(signature)
        self._queue_rows, self._flush_rows, self._flush_seconds = queue_rows, flush_rows, flush_seconds
        self._waiting: list[_Request] = []
        self._rows = self._bytes = self._sequence = 0
        self._changed = threading.Condition()
        self._closed = False
        self._warned = -_WARNING_SECONDS
        self._name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def offer(
        self, request_id: str, model: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array], time: float
    ) -> bool:
        """Put a request with its answer into the queue, without waiting.

        Args:
            request_id: The request's id.
            model: Digest of the model that answered.
            inputs: Values by name, with shape (N, ...); they must not be changed afterwards.
            outputs: Values by name, with shape (N, ...); they must not be changed afterwards.
            time: When the request arrived, in seconds since 1970.

        Returns:
            Whether there was room for it.
        """
        tensors = {layout.INPUT + name: values for name, values in inputs.items()}
        tensors |= {layout.OUTPUT + name: values for name, values in outputs.items()}
        request = _Request(request_id, model, tensors, time)
        with self._changed:
            full = self._rows + request.rows > self._queue_rows or self._bytes + request.size > QUEUE_BYTES
            if full or self._closed:
                DROPPED.labels("closed" if self._closed else "queue full").inc(request.rows)
                return False
            first = not self._waiting
            self._waiting.append(request)
            self._rows += request.rows
            self._bytes += request.size
            if first or self._rows >= self._flush_rows:
                self._changed.notify()
        return True

    def close(self, *, timeout: float = 10.0) -> None:
        """Write the queue and end the thread; rows that are not written after `timeout` seconds are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            requests = self._next()
            if not requests:
                return
            self._write(requests)

    def _next(self) -> list[_Request]:
        """Wait until requests are due and return them; an empty list when the writer is closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: self._rows >= self._flush_rows or self._closed, self._flush_seconds)
            requests, self._waiting = self._waiting, []
            self._rows = self._bytes = 0
            return requests

    def _write(self, requests: Sequence[_Request]) -> None:
        """Write a file for each hour and shape among the requests."""
        for (folder, shapes), group in self._grouped(requests).items():
            rows = sum(request.rows for request in group)
            try:
                self._write_file(folder, self._table(group, dict(shapes)))
                WRITTEN.inc(rows)
            except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
                self._drop("not written", rows, f"{type(error).__name__}: {error}")

    def _grouped(self, requests: Sequence[_Request]) -> Mapping[_Group, list[_Request]]:
        groups = defaultdict(list)
        for request in requests:
            why = self._unfit(request)
            if why is not None:
                self._drop("unfit", request.rows, why)
                continue
            shapes = tuple((name, request.tensors[name].shape[1:]) for name in self._columns)
            groups[layout.folder_of(request.time), shapes].append(request)
        return groups

    def _unfit(self, request: _Request) -> str | None:
        """Return why the capture format cannot hold a request, or None when it can."""
        for name, spec in self._columns.items():
            values = request.tensors.get(name)
            if values is None:
                return f"{name} is missing"
            if values.ndim != max(len(spec.shape), 1) or len(values) != request.rows:
                return f"{name} has shape {list(values.shape)} in a request of {request.rows} rows"
        return None

    def _drop(self, reason: str, rows: int, why: str) -> None:
        DROPPED.labels(reason).inc(rows)
        if time.monotonic() - self._warned >= _WARNING_SECONDS:
            self._warned = time.monotonic()
            _log.warning("captured rows are lost (%s): %s", reason, why)

    def _table(self, requests: Sequence[_Request], shapes: layout.Shapes) -> pa.Table:
        schema = layout.schema(self._signature, shapes)
        rows = [request.rows for request in requests]
        keys = {
            layout.REQUEST_ID: np.repeat([request.request_id for request in requests], rows),
            layout.ROW: np.concatenate([np.arange(count, dtype=np.int32) for count in rows]),
            layout.TIME: np.repeat([round(request.time * 1e6) for request in requests], rows),
            layout.MODEL: np.repeat([request.model for request in requests], rows),
        }
        arrays = [pa.array(values, schema.field(name).type) for name, values in keys.items()]
        for name, spec in self._columns.items():
            values = np.concatenate([request.tensors[name] for request in requests])
            arrays.append(column(values, spec))
        return pa.Table.from_arrays(arrays, schema=schema)

    def _write_file(self, folder: str, table: pa.Table) -> None:
        self._sequence += 1
        content = pa.BufferOutputStream()
        parquet.write_table(table, content, compression="zstd")
        self._destination.put(
            folder, f"{self._name}-{self._sequence:06d}{layout.SUFFIX}", content.getvalue().to_pybytes()
        )


def column(values: Array, spec: TensorSpec) -> pa.Array:
    """Return values of shape (N, ...) as a column of N rows in the capture format."""
    kind = layout.element(spec)
    flat = values.reshape(-1) if spec.dtype == TEXT else np.ascontiguousarray(values, spec.dtype).reshape(-1)
    elements = pa.array([str(text) for text in flat] if spec.dtype == TEXT else flat, kind)
    if layout.scalar(spec):
        return elements
    width = layout.size_of(values.shape[1:])
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * np.int32(width), elements)
