"""The reference: rows with the model's answers that live windows are compared with, and their labels where known.

A reference is written once for a bundle or a run, as a file in the capture format with a further column `label`, which
may have missing values, and with columns `group` and `weight` where the rows have them. Its metadata has what each
column carries.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.errors import JobError
from optimizer_jobs.production import layout
from optimizer_jobs.production.carried import EARLIER, Carried, read, written
from optimizer_jobs.production.columns import Mask
from optimizer_jobs.production.reading import Part, Tally, joined, read_file
from optimizer_jobs.production.windows import Captured, captured_of
from optimizer_jobs.production.writer import column
from optimizer_jobs.signature import Signature
from retune.contract.results import Reason

Array = NDArray[Any]

LABEL, GROUP, WEIGHT = "label", "group", "weight"
ROWS_LIMIT = 20_000
"""Most rows in a reference."""

BYTES_LIMIT = 2 << 30
"""Largest file that is read as a reference."""


@dataclass(frozen=True)
class Reference:
    """N rows with the model's answers, of which M have a label."""

    rows: Captured
    labelled: NDArray[np.bool_]
    """(N,): whether the row has a label."""
    labels: Array
    """(M,): the labels of the labelled rows, in their order."""
    groups: Array | None = None
    """(N,): what each row belongs to; None where that is not known."""
    weights: NDArray[np.float64] | None = None
    """(N,): how much each row counts; None where all count alike."""
    carried: Carried = field(default_factory=lambda: Carried(unknown=EARLIER))
    """What each column carries of the answers."""


def of_bundle(store: str, digest: str) -> str:
    """Return the URI of a bundle's reference on the validation rows.

    Args:
        store: URI of the store.
        digest: Digest of the bundle.
    """
    return f"{store.rstrip('/')}/{key_of(digest)}"


def key_of(digest: str) -> str:
    """Return the key, in the folder of a resource, of the reference of the bundle with this digest."""
    return f"references/{digest.removeprefix('sha256:')}{layout.SUFFIX}"


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
    for index, label in zip(np.flatnonzero(reference.labelled), reference.labels.tolist(), strict=True):
        labels[index] = label
    table = pa.Table.from_arrays(arrays, schema=schema).append_column(LABEL, pa.array(labels))
    for name, values in ((GROUP, reference.groups), (WEIGHT, reference.weights)):
        table = table if values is None else table.append_column(name, pa.array(values.tolist()))
    if reference.carried.unknown != EARLIER:
        table = table.replace_schema_metadata({**table.schema.metadata, **written(reference.carried)})
    parquet.write_table(table, path, compression="zstd", row_group_size=4096)


def read_reference(uri: str, signature: Signature, *, into: Path, digest: str | None = None) -> Reference:
    """Return the reference at `uri`.

    Args:
        uri: URI of the file.
        signature: Inputs and outputs of the model.
        into: Folder for a private copy.
        digest: Digest that the file must have; None accepts any.

    Raises:
        JobError: DataNotFound, DigestMismatch, or DataInvalid when the file is not a reference of this model.
    """
    copy = _private_copy(uri, digest=digest, into=into)
    tally = Tally()
    with copy.open("rb") as source:
        parts = list(read_file(source, signature, name=copy.name, tally=tally, choose=_all))
    if not parts or tally.set_aside:
        why = next(iter([*tally.violations, *tally.set_aside]), "no rows")
        raise JobError(
            Reason.DATA_INVALID,
            uri,
            f"this is not a reference of the model: {why}",
            "Remove the file; the next promotion writes another.",
        )
    rows = captured_of(joined(parts), signature)
    labels, groups, weights = (_beside(copy, name, rows=len(rows)) for name in (LABEL, GROUP, WEIGHT))
    labelled = np.zeros(len(rows), dtype=np.bool_) if labels is None else ~np.asarray(labels.is_null())
    return Reference(
        rows,
        labelled,
        np.empty(0) if labels is None else np.asarray(labels.drop_null().to_pylist()),
        groups=None if groups is None else np.asarray(groups.to_pylist()),
        weights=None if weights is None else np.asarray(weights.to_pylist(), dtype=np.float64),
        carried=read(parquet.read_schema(copy).metadata),
    )


def _private_copy(uri: str, *, digest: str | None, into: Path) -> Path:
    try:
        return fetch(uri, digest=digest, limit_bytes=BYTES_LIMIT, into=into, what="Data").path
    except JobError as error:
        if error.reason is not Reason.DIGEST_MISMATCH:
            raise
        raise JobError(
            error.reason,
            uri,
            "this is not the file that was written when the model was proven.",
            "Restore it from a copy; the next promotion writes another.",
        ) from error


def _all(part: Part) -> Mask:
    return np.ones(len(part), dtype=np.bool_)


def _beside(path: Path, name: str, *, rows: int) -> pa.ChunkedArray | None:
    """Return a column (N,) that the capture format does not have; None where the file has no such column of N rows."""
    if name not in parquet.read_schema(path).names:
        return None
    column: pa.ChunkedArray = parquet.read_table(path, columns=[name]).column(name)
    return column if len(column) == rows else None
