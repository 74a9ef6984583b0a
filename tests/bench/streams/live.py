"""What a model server leaves of a stream: captured requests in our format, and the labels as they become known."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import TEXT, Signature
from optimizer_jobs.stores.published import open_bundle
from tests.bench.streams.models import Floats, Places
from tests.bench.streams.sources import Stream

CAPTURED, LABELS = "captured", "labels"
LABEL_DELAY = np.timedelta64(12, "h")
"""How long after a request its label becomes known."""
_QUEUE = 1_000_000
_PATIENCE = 3600.0
"""Seconds that writing may take: what is not written yet would be missing from a window, as if nobody had asked."""


class _Folder:
    """Files of this machine, whole or not at all; a bench need not outlive a power failure."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Write a file below a folder."""
        place = self._folder / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / f".{name}").write_bytes(content)
        (place / f".{name}").rename(place / name)


class Server:
    """Answers a stream's rows by one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.digest, self.signature = bundle.digest, bundle.manifest.signature
        self._session = open_session(bundle, threads_limit=1)

    @classmethod
    def of(cls, uri: str) -> "Server":
        """Return the server of a published bundle."""
        return cls(open_bundle(uri))

    def answer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return every output for the rows."""
        return dict(self._session.run(inputs))

    def probabilities(self, rows: pd.DataFrame) -> Floats:
        """Return the probability (N,) of label 1."""
        return probabilities(self.answer(inputs_of(rows, self.signature)), self.signature)


def inputs_of(rows: pd.DataFrame, signature: Signature) -> dict[str, NDArray[Any]]:
    """Return rows of a stream as a model's inputs, of which each takes the column of its name."""
    found = {}
    for spec in signature.inputs:
        values = rows[spec.name].to_numpy()
        typed = values.astype(object) if spec.dtype == TEXT else values.astype(spec.dtype)
        found[spec.name] = typed.reshape(len(rows), *(1 for _ in spec.shape[1:]))
    return found


def probabilities(outputs: dict[str, Any], signature: Signature) -> Floats:
    """Return the probability (N,) of label 1 among a model's answers."""
    reading = signature.reading
    if reading is None or reading.scores is None:
        raise ValueError("the model answers no probabilities")
    return np.asarray(outputs[reading.scores][:, 1], dtype=np.float64)


class Live:
    """A stream as it is served: what was asked up to now lies in the folders of a claim."""

    def __init__(self, stream: Stream, claim: Path) -> None:
        self._stream, self._claim = stream, claim
        self.begins, self.ends = stream.begins, stream.times[-1] + np.timedelta64(1, "s")
        self._served = self._labelled = stream.begins
        self.answers = np.full(len(stream), np.nan)
        """(N,): the probability that was answered to each row; NaN where it was not asked yet."""
        (claim / LABELS).mkdir(parents=True, exist_ok=True)

    def serve_until(self, moment: np.datetime64, server: Server) -> None:
        """Let everything be asked that comes before a moment, and write it."""
        places = self._stream.between(self._served, moment)
        self._served = max(self._served, moment)
        if len(places):
            self._capture(places, server)
        self._label(moment - LABEL_DELAY)

    def _capture(self, places: Places, server: Server) -> None:
        """Write each row as a request of its own."""
        folder = _Folder(self._claim / CAPTURED)
        writer = CaptureWriter(folder, server.signature, queue_rows=_QUEUE, flush_rows=_QUEUE, flush_seconds=_PATIENCE)
        inputs = inputs_of(self._stream.rows.iloc[places], server.signature)
        outputs = server.answer(inputs)
        self.answers[places] = probabilities(outputs, server.signature)
        for at, place in enumerate(places):
            asked, answered = (_row(tensors, at) for tensors in (inputs, outputs))
            moment = float(self._stream.times[place].astype(np.int64))
            if not writer.offer(f"r{place}", server.digest, asked, answered, moment):
                raise RuntimeError("a captured request was dropped")
        writer.close(timeout=_PATIENCE)

    def _label(self, moment: np.datetime64) -> None:
        """Write the labels of rows before a moment, in a file that is as old as what it tells."""
        places = self._stream.between(self._labelled, moment)
        if not len(places):
            return
        self._labelled = moment
        path = self._claim / LABELS / f"until-{moment.astype(np.int64)}.parquet"
        table = pa.table({"request_id": [f"r{place}" for place in places], "label": self._stream.labels[places]})
        parquet.write_table(table, path)
        known = float((moment + LABEL_DELAY).astype(np.int64))
        os.utime(path, (known, known))


def _row(tensors: dict[str, Any], at: int) -> dict[str, Any]:
    return {name: values[at : at + 1] for name, values in tensors.items()}
