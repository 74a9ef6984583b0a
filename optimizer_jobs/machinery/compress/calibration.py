"""Rows on which a quantizer observes value ranges. These are calibration rows: never validation, never test."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.layout import as_taken
from optimizer_jobs.technique import Context

_BATCH = 64
"""Largest batch, where the model does not fix it."""


def sample(rows: Rows, count: int, *, seed: int) -> Rows:
    """Return `count` random rows in their original order, or all of them when there are fewer."""
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.take(np.sort(drawn))


def batches(rows: Rows, context: Context) -> list[dict[str, Any]]:
    """Return the model's inputs in batches of equal size, as histograms need them.

    Args:
        rows: Rows to observe; the last ones are left out when they do not fill a batch.
        context: Says how many rows one call of the model takes.

    Returns:
        Values (B, ...) by input name, for each batch.
    """
    pieces = -(-len(rows) // _BATCH)
    size = context.signature.batch or len(rows) // pieces
    pieces_of_rows = (rows.take(slice(at, at + size)).inputs for at in range(0, len(rows) - size + 1, size))
    return [dict(as_taken(context.signature, inputs)) for inputs in pieces_of_rows]


def reader(pieces: Sequence[dict[str, Any]], context: Context) -> Any:
    """Return the batches as ONNX Runtime's quantizer reads them, for as long as the context has time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
        """Returns the batches one by one."""

        def __init__(self) -> None:
            self._left = iter(pieces)

        def get_next(self) -> dict[str, Any] | None:
            context.check_time()
            return next(self._left, None)

        def rewind(self) -> None:
            self._left = iter(pieces)

    return Reader()


def session_of(model: ModelProto) -> Any:
    """Return an ONNX Runtime session of a graph in memory, on one thread, that logs errors only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what libraries log below errors, warn of, and print."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
