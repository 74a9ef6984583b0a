"""What a window is compared with: rows with the model's answers in the captured layout, and labels where known.

Written once beside a bundle or a run's data, with the signature's columns and a column `label` that may be empty.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.errors import JobError
from optimizer_jobs.production import layout
from optimizer_jobs.production.reading import Tally, joined, read_file
from optimizer_jobs.production.windows import Captured, captured_of
from optimizer_jobs.production.writer import column
from optimizer_jobs.signature import Signature
from retune.contract.results import Reason

Array = NDArray[Any]

LABEL = "label"
ROWS_LIMIT = 20_000
"""Rows of a reference."""

_BYTES_LIMIT = 2 << 30


@dataclass(frozen=True)
class Reference:
    """Rows with answers; `labelled` (N,) says which have a label, `labels` (M,) are those."""

    rows: Captured
    labelled: NDArray[np.bool_]
    labels: Array


def of_bundle(store: str, digest: str) -> str:
    """Return where the reference of a bundle lies that was measured on spec.data.validation."""
    return f"{store.rstrip('/')}/references/{digest.removeprefix('sha256:')}{layout.SUFFIX}"


def write_reference(path: Path, reference: Reference, signature: Signature) -> None:
    """Write a reference to a new file at `path`."""
    rows = reference.rows
    tensors = {layout.INPUT + name: values for name, values in rows.inputs.items()}
    tensors |= {layout.OUTPUT + name: values for name, values in rows.outputs.items()}
    schema = layout.schema(signature, {name: values.shape[1:] for name, values in tensors.items()})
    keys = (rows.request_ids, rows.rows, rows.times.astype("datetime64[us]").astype(np.int64), rows.models)
    arrays = [pa.array(values, kind) for values, kind in zip(keys, layout.KEYS.values(), strict=True)]
    arrays += [column(tensors[name], spec) for name, spec in layout.columns(signature).items()]
    labels: list[Any] = [None] * len(rows)
    for place, label in zip(np.flatnonzero(reference.labelled), reference.labels.tolist(), strict=True):
        labels[place] = label
    table = pa.Table.from_arrays(arrays, schema=schema).append_column(LABEL, pa.array(labels))
    parquet.write_table(table, path, compression="zstd", row_group_size=4096)


def read_reference(uri: str, signature: Signature, *, into: Path, digest: str | None = None) -> Reference:
    """Return the reference at `uri`.

    Raises:
        JobError: DataNotFound when it is not there, DigestMismatch, or DataInvalid when it is not one of this model.
    """
    copy = fetch(uri, digest=digest, limit_bytes=_BYTES_LIMIT, into=into, what="Data").path
    tally = Tally()
    with copy.open("rb") as source:
        parts = list(
            read_file(
                source, signature, name=copy.name, tally=tally, choose=lambda part: np.ones(len(part), dtype=np.bool_)
            )
        )
    if not parts or tally.set_aside:
        why = next(iter([*tally.violations, *tally.set_aside]), "no rows")
        raise JobError(
            Reason.DATA_INVALID,
            uri,
            f"this is not a reference of the model: {why}",
            "Remove the file; the next promotion writes another.",
        )
    labels = parquet.read_table(copy, columns=[LABEL]).column(LABEL) if _has_labels(copy) else pa.nulls(0)
    return _with_labels(captured_of(joined(parts), signature), labels)


def _has_labels(path: Path) -> bool:
    return LABEL in parquet.read_schema(path).names


def _with_labels(rows: Captured, labels: Any) -> Reference:
    if len(labels) != len(rows):
        return Reference(rows, np.zeros(len(rows), dtype=np.bool_), np.empty(0))
    labelled = ~np.asarray(labels.is_null())
    return Reference(rows, labelled, np.asarray(labels.drop_null().to_pylist()))
