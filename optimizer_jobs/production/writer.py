"""Write captured requests beside the work of a server, and never in its way.

A request is put on a bounded queue and forgotten; one thread writes. What does not fit, or cannot be written, is
counted and dropped: a server must not slow down, fill its memory or fail because of what is captured.
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
"""Bytes of inputs and outputs that may wait."""

_COMPLAIN_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    """One request with its answer: arrays by column, each (N, ...)."""

    request_id: str
    model: str
    tensors: Mapping[str, Array]
    time: float

    @property
    def rows(self) -> int:
        return max((len(values) for values in self.tensors.values() if values.ndim), default=0)

    @property
    def size(self) -> int:
        return sum(values.nbytes for values in self.tensors.values())


class CaptureWriter:
    """Takes requests from any thread, and writes them from one of its own."""

    def __init__(
        self,
        folder: Path,
        signature: Signature,
        *,
        queue_rows: int = 20_000,
        flush_rows: int = 5_000,
        flush_seconds: float = 10.0,
    ) -> None:
        """Start the thread that writes.

        Args:
            folder: Where the folders of days lie; made when the first rows are written.
            signature: What the model takes and answers.
            queue_rows: Rows that may wait; more are dropped.
            flush_rows: Rows that are written without waiting any longer.
            flush_seconds: Longest that a row waits.

        Raises:
            ValueError: The model has tensors that the format has no place for.
        """
        layout.schema(signature)
        self._folder, self._signature = folder, signature
        self._columns = layout.columns(signature)
        self._queue_rows, self._flush_rows, self._flush_seconds = queue_rows, flush_rows, flush_seconds
        self._waiting: list[_Request] = []
        self._rows = self._bytes = self._sequence = 0
        self._changed = threading.Condition()
        self._closed = False
        self._complained = -_COMPLAIN_SECONDS
        self._name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def offer(
        self, request_id: str, model: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array], time: float
    ) -> bool:
        """Take a request and its answer without waiting; return whether there was room for it.

        Args:
            request_id: The request's id.
            model: Digest of what answered.
            inputs: By name, each (N, ...); not to be changed afterwards.
            outputs: The same.
            time: When the request came, in seconds since 1970.
        """
        given = {layout.INPUT + name: values for name, values in inputs.items()}
        given |= {layout.OUTPUT + name: values for name, values in outputs.items()}
        request = _Request(request_id, model, given, time)
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
        """Write what waits and end; what cannot be written in `timeout` seconds is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            taken = self._next()
            if not taken:
                return
            self._write(taken)

    def _next(self) -> list[_Request]:
        """Wait until rows are due and return them; none when the writer is closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: self._rows >= self._flush_rows or self._closed, self._flush_seconds)
            taken, self._waiting = self._waiting, []
            self._rows = self._bytes = 0
            return taken

    def _write(self, taken: Sequence[_Request]) -> None:
        """Write requests, those of each hour and shape into a file."""
        for (folder, shapes), requests in self._sorted(taken).items():
            rows = sum(request.rows for request in requests)
            try:
                self._write_file(self._folder / folder, self._table(requests, dict(shapes)))
                WRITTEN.inc(rows)
            except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
                self._drop("not written", rows, f"{type(error).__name__}: {error}")

    def _sorted(
        self, taken: Sequence[_Request]
    ) -> Mapping[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]], list[_Request]]:
        groups = defaultdict(list)
        for request in taken:
            why = self._unfit(request)
            if why is not None:
                self._drop("unfit", request.rows, why)
                continue
            shapes = tuple((name, request.tensors[name].shape[1:]) for name in self._columns)
            groups[layout.folder_of(request.time), shapes].append(request)
        return groups

    def _unfit(self, request: _Request) -> str | None:
        """Return why a request has no place in the format, or None."""
        for name, spec in self._columns.items():
            values = request.tensors.get(name)
            if values is None:
                return f"{name} is missing"
            if values.ndim != max(len(spec.shape), 1) or len(values) != request.rows:
                return f"{name} has shape {list(values.shape)} in a request of {request.rows} rows"
        return None

    def _drop(self, reason: str, rows: int, why: str) -> None:
        DROPPED.labels(reason).inc(rows)
        if time.monotonic() - self._complained >= _COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            _log.warning("captured rows are lost (%s): %s", reason, why)

    def _table(self, requests: Sequence[_Request], shapes: layout.Shapes) -> pa.Table:
        schema = layout.schema(self._signature, shapes)
        keys = {
            layout.REQUEST_ID: np.repeat([each.request_id for each in requests], [each.rows for each in requests]),
            layout.ROW: np.concatenate([np.arange(each.rows, dtype=np.int32) for each in requests]),
            layout.TIME: np.repeat([round(each.time * 1e6) for each in requests], [each.rows for each in requests]),
            layout.MODEL: np.repeat([each.model for each in requests], [each.rows for each in requests]),
        }
        arrays = [pa.array(values, schema.field(name).type) for name, values in keys.items()]
        for name, spec in self._columns.items():
            values = np.concatenate([request.tensors[name] for request in requests])
            arrays.append(column(values, spec))
        return pa.Table.from_arrays(arrays, schema=schema)

    def _write_file(self, folder: Path, table: pa.Table) -> None:
        """Write a file whole or not at all."""
        self._sequence += 1
        name = f"{self._name}-{self._sequence:06d}{layout.SUFFIX}"
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{name}"
        try:
            with beside.open("wb") as file:
                parquet.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            beside.rename(folder / name)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def column(values: Array, spec: TensorSpec) -> pa.Array:
    """Return (N, ...) values as a column of N."""
    kind = layout.element(spec)
    flat = values.reshape(-1) if spec.dtype == TEXT else np.ascontiguousarray(values, spec.dtype).reshape(-1)
    elements = pa.array([str(text) for text in flat] if spec.dtype == TEXT else flat, kind)
    if layout.scalar(spec):
        return elements
    width = layout.size_of(values.shape[1:])
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * np.int32(width), elements)
