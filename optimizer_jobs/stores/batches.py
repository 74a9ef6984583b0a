"""What the objects of a journal hold: batches of logs, each bound to the one before, and segments of many batches.

What lies in a store may have been written by others, so every reader is bounded and believes only what has the form.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optimizer_jobs.stores.base import Kind, StoreError

SEGMENT = 64
"""Batches in a segment: what a late worker reads in one request."""
BATCH_LIMIT = 16 << 20
"""Most bytes of a batch."""
SEGMENT_LIMIT = 64 << 20
"""Most bytes of a segment, compressed and not compressed."""

Log = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Logs that one worker has written at once."""

    token: str
    """Unlike that of any other batch; by it a writer knows his own again."""
    after: str
    """Token of the batch before; empty for the first. By it a reader sees that history was changed behind him."""
    logs: tuple[Log, ...] = field(repr=False)


def written(batch: Batch) -> bytes:
    """Return a batch as the content of an object."""
    return json.dumps(_plain(batch), separators=(",", ":")).encode()


def read(content: bytes, *, uri: str) -> Batch:
    """Return the batch that an object holds; raises StoreError (DAMAGED) where it holds none."""
    try:
        return _batch(json.loads(content))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise damaged(uri, "it is no batch of a study") from error


def written_segment(batches: Sequence[Batch]) -> bytes | None:
    """Return batches as the content of one object; None where together they are more than a reader takes."""
    plain = json.dumps([_plain(batch) for batch in batches], separators=(",", ":")).encode()
    return zlib.compress(plain) if len(plain) < SEGMENT_LIMIT else None


def read_segment(content: bytes, *, uri: str) -> tuple[Batch, ...]:
    """Return the batches of a segment; raises StoreError (DAMAGED) where it holds anything else."""
    try:
        batches = tuple(map(_batch, json.loads(_unpacked(content))))
    except (ValueError, LookupError, TypeError, RecursionError, zlib.error) as error:
        raise damaged(uri, "it is no segment of a study") from error
    if len(batches) != SEGMENT:
        raise damaged(uri, f"it has {len(batches)} batches instead of {SEGMENT}")
    return batches


def _unpacked(content: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    plain = unpacking.decompress(content, SEGMENT_LIMIT)
    if not unpacking.eof:
        raise ValueError("it is larger than it may be, or cut off")
    return plain


def damaged(uri: str, what: str) -> StoreError:
    """Return the error of a study that cannot be read."""
    return StoreError(
        Kind.DAMAGED,
        uri,
        f"{what}.",
        "Somebody has changed the study. Delete the run's folder in the store and let the run search again.",
    )


def _plain(batch: Batch) -> dict[str, object]:
    return {"after": batch.after, "token": batch.token, "logs": batch.logs}


def _batch(found: Any) -> Batch:
    token, after, logs = found["token"], found["after"], found["logs"]
    if not (isinstance(token, str) and token and isinstance(after, str) and isinstance(logs, list)):
        raise TypeError("tokens are texts, and logs a list")
    if not all(isinstance(log, dict) and "op_code" in log and "worker_id" in log for log in logs):
        raise TypeError("a log says what was done, and who did it")
    return Batch(token, after, tuple(logs))
