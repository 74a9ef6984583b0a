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
from optimizer_jobs.technique import Alive, Context

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
    return [dict(rows.take(slice(at, at + size)).inputs) for at in range(0, len(rows) - size + 1, size)]


def reader(pieces: Sequence[dict[str, Any]], alive: Alive | None = None) -> Any:
    """Return the batches as ONNX Runtime's quantizer reads them.

    Args:
        pieces: The batches.
        alive: Asked before each batch; what it raises ends the quantizer's work.
    """
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
        """Returns the batches one by one."""

        def __init__(self) -> None:
            self._left = iter(pieces)

        def get_next(self) -> dict[str, Any] | None:
            if alive is not None:
                alive()
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
