"""A metric that a container of the owner's own computes: outputs and labels go there as files, numbers come back.

What comes back may be hostile: it is a file of numbers of a size that is known beforehand, or nothing.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs import owned_code
from optimizer_jobs.exchange import Beside, Work, created, forget, on_one_line, open_regular, shared_folder
from retune.api.own_code import CustomMetric
from retune.contract.exchange import METRIC_VARIABLE

Array = NDArray[Any]
Floats = NDArray[np.float64]

HERE = "--run-metric-here"
"""Option of `retune optimize` that runs the command on a person's own machine."""

_FIELD = "model.customMetric"
_NUMBER_BYTES, _HEADER_BYTES = 16, 16 << 10
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_AGAIN = "Correct what the container runs: it reads RETUNE_OUTPUTS and RETUNE_LABELS, and writes RETUNE_RESULT."


class _FailedError(Exception):
    """The container measured nothing; the message is a sentence without a full stop."""


@dataclass(frozen=True)
class Answered:
    """What a metric is computed from, for N rows."""

    outputs: Mapping[str, Array]
    """Every output of the model by name, (N, ...)."""
    labels: Array
    """(N, ...)"""
    groups: Array | None = None
    """(N,): what each row belongs to; None where the data has no groups."""

    @property
    def numbered(self) -> Array | None:
        """The groups (N,) as numbers from 0, in the order in which they first come."""
        if self.groups is None:
            return None
        _, first, codes = np.unique(self.groups, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(first))[codes])

    def take(self, indices: Array, groups: Array | None) -> "Answered":
        """Return the rows at `indices` (M,), with other groups (M,)."""
        return Answered({name: values[indices] for name, values in self.outputs.items()}, self.labels[indices], groups)


def measured(custom: CustomMetric, answered: Answered, *, seconds: float) -> Floats:
    """Have the container compute the metric once.

    Args:
        custom: The metric, which names a container.
        answered: N rows of G groups.
        seconds: Longest time that the command may take.

    Returns:
        What it wrote: numbers, of whatever shape.

    Raises:
        JobError: ModelInvalid; no container stands by, it fails, or it writes no numbers.
    """
    folder = shared_folder(METRIC_VARIABLE)
    if folder is None:
        raise owned_code.invalid(
            custom.words,
            "no container stands beside this process to run it.",
            f"Run it in the cluster, or let `retune optimize` run its command here with {HERE}.",
        )
    container = Beside(folder, "the measurement", _FailedError, poll_seconds=0.05, lines=1)
    try:
        container.wait_until_ready()
        return _once(container, custom, answered, seconds)
    except _FailedError as error:
        raise owned_code.invalid(custom.words, f"{error}.", _AGAIN) from error


def _once(container: Beside, custom: CustomMetric, answered: Answered, seconds: float) -> Floats:
    trial = container.new_trial()
    try:
        groups = answered.numbered
        _save(trial / "outputs.npz", answered.outputs)
        _save(trial / "labels.npz", {"labels": answered.labels} | ({} if groups is None else {"groups": groups}))
        container.do(trial, Work(variables=_variables(custom), files=_FILES, timeout=seconds))
        try:
            return _numbers(trial / _FILES["RETUNE_RESULT"], rows=len(answered.labels))
        except _FailedError as error:
            raise _FailedError(f"{error}{container.last_words(trial)}") from error
    finally:
        forget(trial)


_FILES = {"RETUNE_OUTPUTS": "outputs.npz", "RETUNE_LABELS": "labels.npz", "RETUNE_RESULT": "output/result.npy"}


def _variables(custom: CustomMetric) -> dict[str, str]:
    arguments = owned_code.arguments_of(custom.arguments, where=custom.words, field=_FIELD)
    return {f"RETUNE_PARAM_{name.upper()}": on_one_line(value) for name, value in arguments.items()}


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an NPZ file, whatever its arrays are called."""
    with created(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            plain = values.astype(np.str_) if values.dtype == object else values
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(plain), allow_pickle=False)


def _numbers(path: Path, *, rows: int) -> Floats:
    """Return the numbers of a file that may be anything; at most one a row."""
    limit = _HEADER_BYTES + _NUMBER_BYTES * rows
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise _FailedError("the measurement left no file RETUNE_RESULT") from None
    if len(content) > limit:
        raise _FailedError(f"RETUNE_RESULT has more than {limit} bytes, which is more than one number a row")
    try:
        return _parsed(content)
    except (ValueError, TypeError, EOFError, MemoryError, OverflowError) as error:
        raise _FailedError("RETUNE_RESULT is no NPY file of numbers, as numpy.save writes them") from error


def _parsed(content: bytes) -> Floats:
    """Return the array of an NPY file; its header is read first, since it may claim any size."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = _HEADERS.get(version)
    if read_header is None:
        raise ValueError(f"version {version}")
    shape, _, dtype = read_header(stream)
    if dtype.kind not in "biuf" or prod(shape) * dtype.itemsize > len(content):
        raise ValueError("no numbers, or fewer than the header claims")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False), dtype=np.float64)
