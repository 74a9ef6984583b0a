"""Store the answers of a bundle on the validation rows, as the reference for drift and live quality.

What each column carries of the answers is measured beside them; a model of which it cannot be is watched all the same.

Commands that publish a champion call it. Without the reference, a check reports that the reference is missing. The
operator keeps the reference's digest with the version, so that no other file can take its place.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.answer_distance import distance_from
from optimizer_jobs.measure.answers import Answers, answer_as, outputs_of
from optimizer_jobs.measure.sensitivity import Inputs, UnmeasurableError, carried
from optimizer_jobs.models.bundle import Bundle, Manifest
from optimizer_jobs.models.engine import Session
from optimizer_jobs.production.carried import Carried, as_stored, units_of
from optimizer_jobs.production.reference import BYTES_LIMIT, ROWS_LIMIT, Reference, key_of, write_reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from optimizer_jobs.stores.base import AbsentError, Store
from optimizer_jobs.stores.opening import open_store

_BYTES = 1 << 30
_BATCH = 256
_BATCH_BYTES = 16 << 20
"""Most bytes of a call with changed rows."""


def store_reference(
    store: str, bundle: Bundle, session: Session, rows: Rows, *, keep: bool = False, seed: int = 0, batch: int = 64
) -> str | None:
    """Write a bundle's reference, with what each column carries.

    Args:
        store: URI of the store, on a volume or in a bucket.
        bundle: The bundle.
        session: The bundle's open model.
        rows: The validation rows.
        keep: Whether one that is there already stays, because the bundle was proven on other rows than these.
        seed: Seed of the random sample when there are too many rows.
        batch: Rows of a request, on which the answers of dynamic int8 models depend.

    Returns:
        Digest of the file; None where the model's answers cannot be stored.

    Raises:
        JobError: StoreFull, StoreNotWritable or SourceUnreachable.
    """
    place, key = open_store(store), key_of(bundle.digest)
    with tempfile.TemporaryDirectory(prefix="reference-") as scratch:
        file = Path(scratch) / "rows"
        if keep and _is_there(place, key, file):
            return file_digest(file)
        sample = _sample(rows, seed=seed)
        reference = _reference(session, sample, bundle.digest, batch)
        reference = replace(reference, carried=_carried(session, bundle.manifest, sample, seed=seed))
        try:
            write_reference(file, reference, session.signature)
        except ValueError as error:
            say(f"  drift cannot be compared with the validation rows: {error}")
            return None
        place.replace(key, file)
        return file_digest(file)


def _is_there(store: Store, key: str, into: Path) -> bool:
    """Copy the reference that is there already; return False where there is none."""
    try:
        store.fetch(key, into, limit=BYTES_LIMIT)
    except AbsentError:
        return False
    return True


def _sample(rows: Rows, *, seed: int) -> Rows:
    """Return all rows, or a random sample within the limits of rows and bytes."""
    row_bytes = max(1, sum(values.nbytes for values in rows.inputs.values()) // len(rows))
    limit = max(1, min(ROWS_LIMIT, _BYTES // row_bytes))
    if len(rows) <= limit:
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit]))


def _reference(session: Session, rows: Rows, digest: str, batch: int) -> Reference:
    count = len(rows)
    captured = Captured(
        request_ids=np.asarray([f"validation-{number}" for number in range(count)], dtype=object),
        rows=np.zeros(count, dtype=np.int64),
        times=np.zeros(count, dtype="datetime64[us]"),
        models=np.full(count, digest, dtype=object),
        inputs=rows.inputs,
        outputs=outputs_of(session, rows, batch),
        seen=count,
    )
    labels = np.empty(0) if rows.labels is None else rows.labels
    known = np.full(count, rows.labels is not None)
    return Reference(captured, known, labels, groups=rows.groups, weights=rows.weights)


def _carried(session: Session, manifest: Manifest, rows: Rows, *, seed: int) -> Carried:
    """Return what each column carries of the model's answers, or why that is not known."""
    row_bytes = max(1, sum(values.nbytes for values in rows.inputs.values()) // max(1, len(rows)))
    batch = max(1, min(_BATCH, _BATCH_BYTES // row_bytes))

    def ask(inputs: Inputs) -> Answers:
        return answer_as(manifest, session, Rows(inputs=inputs, labels=None, digest=rows.digest), batch=batch)

    try:
        shares = carried(ask, distance_from, rows.inputs, units_of(rows.inputs), seed=seed)
    except UnmeasurableError as error:
        words = str(error)
    except Exception as error:  # noqa: BLE001 - rows like none that the model has seen may break it, and cost no reference
        say(f"  {printable(str(error), limit=300)}")
        words = f"the model fails on rows whose columns are drawn anew ({type(error).__name__})"
    else:
        return as_stored(shares)
    say(f"  what columns carry is not known: {printable(words, limit=280)}")
    return Carried(unknown=printable(words, limit=280))
