"""The rows that are chosen from, and those that have been judged: captured ones with a label, and the reference's."""

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import Manifest, manifest_digest
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.production.labels import UNKNOWN, read_labels
from optimizer_jobs.production.reference import key_of, read_reference
from optimizer_jobs.production.told import Told, told_by
from optimizer_jobs.production.windows import Captured, Selection, answering, read_window
from optimizer_jobs.signature import Signature
from retune.api.production import CaptureFormat
from retune.contract.paths import bundle_uri
from retune.contract.requests import SuggestRequest
from retune.contract.results import Reason

MOST_ROWS = 20_000
"""Most captured rows that are looked at; of more, a random part."""
_LABELS = 2_000_000
_MANIFEST_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNREADABLE = (ValueError, RecursionError, OSError)


@dataclass(frozen=True)
class Found:
    """What was read."""

    rows: Captured
    labelled: NDArray[np.bool_]
    """(N,): whether a row has a label already."""
    judged: tuple[Captured, ...]
    """Rows beside which others are called unseen."""
    signature: Signature
    manifest: Manifest | None
    notes: tuple[str, ...]


def found(request: SuggestRequest, scratch: Path) -> Found:
    """Return the rows of a request.

    Args:
        request: The request.
        scratch: Folder for private copies.

    Raises:
        JobError: There are no captured rows, or none that can be read.
    """
    now = int(time.time())
    told = told_by(request.captured, now=now, into=scratch) if _is_own(request) else None
    if told is None and _is_own(request):
        raise _nothing(request)
    digest = _serving(request, told)
    manifest, why = _manifest(request, digest)
    signature = _signature(request, digest, manifest, told, unread=why)
    notes = (f"{why[0].upper()}{why[1:]}, so answers are read as the captured files tell.",) if why else ()
    reading = _Reading(request, signature, now, now if told is None else told.newest, scratch)
    models = {*request.serves, *(answering(manifest, digest) if manifest is not None else ())}
    rows, others = _rows(reading, models, told)
    labelled, unread = _labelled(request, rows, scratch)
    reference, absent = _reference(request, digest, signature, scratch)
    captured = (rows.take(labelled),) if labelled.any() else ()
    every = (*notes, *others, *_set_aside(rows), *unread, *absent)
    return Found(rows, labelled, captured + reference, signature, manifest, every)


@dataclass(frozen=True)
class _Reading:
    """How captured rows are read."""

    request: SuggestRequest
    signature: Signature
    now: int
    newest: int
    scratch: Path

    def of(self, models: Collection[str] | None) -> Captured:
        """Return rows of these versions, of all where it is None."""
        start = self.newest - self.request.span
        wanted = Selection(start=start, end=self.newest + 1, now=self.now, models=models)
        production = self.request.production.model_copy(update={"uri": self.request.captured})
        return read_window(production, self.signature, wanted, max_rows=MOST_ROWS, into=self.scratch / "rows", seed=0)


def _rows(reading: _Reading, models: set[str], told: Told | None) -> tuple[Captured, tuple[str, ...]]:
    """Return the rows of the version that serves; where it has none, of the version that answered the newest row."""
    newest = None if told is None else {told.model}
    rows = reading.of(models or newest)
    notes: tuple[str, ...] = ()
    if not len(rows) and models and newest is not None and not newest & models:
        rows = reading.of(newest)
        notes = (
            "The version that serves has no captured rows in this time: these are of the one that was asked last.",
        )
    if len(rows):
        return rows, notes
    why = next(iter(rows.violations), "") or "; ".join(f"{count} {why}" for why, count in rows.set_aside.items())
    raise JobError(
        Reason.DATA_INVALID,
        reading.request.captured,
        f"no captured row of the version that serves can be read: {why or 'none is of this time'}.",
        "Give a longer --since, or a --store with the bundle of the version that answered.",
    )


def _is_own(request: SuggestRequest) -> bool:
    return request.production.format is CaptureFormat.RETUNE


def _nothing(request: SuggestRequest) -> JobError:
    return JobError(
        Reason.DATA_NOT_FOUND,
        request.captured,
        "there are no captured rows that can be read.",
        "It is a folder with date=YYYY-MM-DD/hour=HH below it, and in these Parquet files with columns request_id, "
        "row, time, model, and input.NAME for every input.",
    )


def _serving(request: SuggestRequest, told: Told | None) -> str:
    """Return the digest of the bundle that serves, as far as is known; empty where nothing tells it."""
    named = next(iter(request.serves), "" if told is None else told.model)
    return named if _DIGEST.fullmatch(named) else ""


def _manifest(request: SuggestRequest, digest: str) -> tuple[Manifest | None, str]:
    """Return the manifest of the bundle that serves, or why the one that is looked for is not read, as a clause."""
    if request.artifacts is None or not digest:
        return None, ""
    path = resolve(bundle_uri(request.artifacts, digest)).local / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_BYTES:
            raise ValueError("it is too large")
        written = path.read_bytes()
        if manifest_digest(written) != digest:
            raise ValueError("it is not the one that was published")
        return Manifest.model_validate_json(written), ""
    except FileNotFoundError:
        return None, f"the store has no bundle {digest[7:19]}"
    except _UNREADABLE as error:
        return None, f"bundle {digest[7:19]}'s manifest cannot be read ({printable(str(error), limit=100)})"


def _signature(
    request: SuggestRequest, digest: str, manifest: Manifest | None, told: Told | None, *, unread: str
) -> Signature:
    if manifest is not None:
        return manifest.signature
    if told is not None:
        return told.signature
    if request.artifacts is None:
        why, then = "and there is none here", "Name a copy of the resource's folder in the store with --store FOLDER."
    elif not digest:
        why = "and nothing here says which version serves"
        then = "Name the resource, or a file with its status: `kubectl get modeloptimization NAME -o yaml`."
    else:
        why = f"and {unread}"
        then = f"Copy the resource's folder with bundles/{digest[7:]} in it, and name it with --store FOLDER."
    words = f"what {request.production.format} logs is read by the bundle's manifest, {why}."
    raise JobError(Reason.DATA_INVALID, request.captured, words, then)


def _labelled(request: SuggestRequest, rows: Captured, scratch: Path) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return which rows (N,) have a label, and how many labels were not used and why."""
    if request.labels is None or request.production.labels is None:
        return np.zeros(len(rows), dtype=np.bool_), ()
    labels = request.production.labels.model_copy(update={"uri": request.labels})
    ids = set(rows.request_ids.tolist())
    known = read_labels(labels, since=0.0, into=scratch / "labels", limit=_LABELS, among=ids)
    keys = zip(rows.request_ids.tolist(), rows.rows.tolist(), strict=True)
    labelled = np.fromiter((key in known.answers for key in keys), np.bool_, len(rows))
    unused = {why: count for why, count in known.set_aside.items() if why != UNKNOWN}
    return labelled, _counted("Of labels were set aside", unused)


def _reference(
    request: SuggestRequest, digest: str, signature: Signature, scratch: Path
) -> tuple[tuple[Captured, ...], tuple[str, ...]]:
    """Return the labelled rows of the reference of the bundle that serves, or why there are none."""
    if request.artifacts is None or not digest:
        return (), ()
    uri = f"{request.artifacts.rstrip('/')}/{key_of(digest)}"
    try:
        reference = read_reference(uri, signature, into=scratch / "reference")
    except JobError as error:
        return (), (f"The reference is left out: {printable(error.message, limit=300)}",)
    return (reference.rows.take(reference.labelled),), ()


def _set_aside(rows: Captured) -> tuple[str, ...]:
    return (*rows.violations[:2], *_counted("Of captured rows and files were set aside", rows.set_aside))


def _counted(begin: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    shown = ", ".join(f"{count} {why}" for why, count in sorted(counts.items(), key=lambda item: -item[1])[:4])
    return (f"{begin}: {shown}.",) if shown else ()
