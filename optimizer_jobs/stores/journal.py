"""A journal of a study in a store of objects: Optuna's journal backend, for workers that share no disk.

The journal is a sequence of numbered objects, each with a batch of logs. A worker appends by creating the object with
the next number, which only one of several can do; the others read what that one wrote, and try the number after it.
So all workers see the same sequence, and nothing is lost or doubled, whoever is killed at whatever moment: an object is
there as a whole or not at all.

Whether a write whose answer was lost has happened is known by the token in its batch. Each batch also has the token of
the one before, so that a reader sees when objects that he knows were deleted and written anew by others.

Optuna's own snapshots are pickles, and a pickle from a store that others can write to runs their code in the Job. So
this backend offers none. Its snapshots are segments: SEGMENT batches together in one object, as JSON, which late
workers read instead of the single objects.
"""

import json
import math
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from optuna.storages.journal import BaseJournalBackend

from optimizer_jobs.stores.base import AbsentError, Store, StoreError, pause
from optimizer_jobs.stores.batches import (
    BATCH_LIMIT,
    SEGMENT,
    SEGMENT_LIMIT,
    Batch,
    Log,
    damaged,
    read,
    read_segment,
    written,
    written_segment,
)

_TRIES = 6
"""How often an append is tried whose fate is unknown, with growing pauses, besides the store's own tries."""
_FRESH_BATCH_SECONDS = 0.1
"""For how long a worker decides on what it has read: that another one writes meanwhile, which costs more than to ask,
must be less likely than one in ten."""
_MOST_AT_ONCE = 16
"""Objects that are read at once by a worker that is behind."""


class ConflictError(Exception):
    """Another worker has appended first, so what this one was about to append may not be true any more."""


class StoreJournal(BaseJournalBackend):
    """A journal below a prefix of a store. Threads may share it."""

    def __init__(self, store: Store, prefix: str, *, fresh_seconds: float = 0.0) -> None:
        """Open the journal, which need not exist.

        Args:
            store: A store that honours conditional creates.
            prefix: What the keys of the journal begin with: a plain path, without a slash at its end.
            fresh_seconds: For how long what was read passes for what is there, so that the store is not asked again;
                at the beginning of `batch` for a moment only. What is appended is never affected.
        """
        self._store, self._prefix, self._fresh = store, prefix, fresh_seconds
        self._asked_at = -math.inf
        """When the store was last seen to have no more than was read, by the clock of this machine that never jumps."""
        self._lock = threading.RLock()
        self._readers = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="journal")
        self._logs: list[Log] = []
        self._recent: list[Batch] = []
        """Batches since the last full segment, of which the next one is made."""
        self._number, self._token = 0, ""
        """Number of the next object, and token of the one before it."""
        self._pending: list[Log] | None = None
        self._opened = self._just_appended = False

    @property
    def exists(self) -> bool:
        """Whether anything was ever appended; asks the store."""
        with self._lock:
            self._pull()
            return self._number > 0

    def read_logs(self, log_number_from: int) -> Sequence[Log]:
        """Return the logs from a number on; within `batch`, with those that are not appended yet.

        The first read after `append_logs`, which Optuna makes at once, does not ask the store: when the object was
        created there was none after it.
        """
        with self._lock:
            if self._pending is not None:
                return self._logs[log_number_from:] + self._pending[max(0, log_number_from - len(self._logs)) :]
            if not self._just_appended or log_number_from >= len(self._logs):
                self._pull_after(self._fresh)
            self._just_appended = False
            return self._logs[log_number_from:]

    def append_logs(self, logs: list[Log]) -> None:
        """Append logs at once; within `batch`, together with all the others at its end.

        Raises:
            StoreError: The store cannot be reached. Whether the logs were appended is seen by the next read.
        """
        as_read = json.loads(json.dumps(logs))
        with self._lock:
            if self._pending is not None:
                self._pending += as_read
                return
            while not self._try(as_read):
                continue
            self._just_appended = True

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Append all that is appended inside at once, and only if nobody else has appended since the block began.

        Inside, reads show the journal as it was at the beginning, with what was appended inside. When the block raises,
        nothing is appended. What others appended in the last moment may be missing there, and then is a conflict.

        Raises:
            ConflictError: Another worker was first. Nothing was appended, and reads show what it wrote.
        """
        with self._lock:
            self._pull_after(min(self._fresh, _FRESH_BATCH_SECONDS))
            self._pending = []
            try:
                yield
                pending = self._pending
            finally:
                self._pending = None
            if pending and not self._try(pending):
                raise ConflictError

    def _try(self, logs: Sequence[Log]) -> bool:
        """Create the next object, or read what another worker wrote there; return whether the logs are appended."""
        batch, asked_at = Batch(uuid.uuid4().hex, self._token, tuple(logs)), time.monotonic()
        key, content = self._key(self._number), written(batch)
        if len(content) > BATCH_LIMIT:
            raise damaged(f"{self._store.uri}/{key}", f"{len(content)} bytes are more than a batch may have")
        if not self._create(key, content):
            there = self._at(self._number)
            if there is None:
                raise damaged(f"{self._store.uri}/{key}", "it is there, and is not")
            self._take(there)
            if there.token != batch.token:
                self._pull()
                return False
        else:
            self._take(batch)
        self._asked_at = asked_at
        if self._number % SEGMENT == 0:
            self._keep_segment()
        return True

    def _create(self, key: str, content: bytes) -> bool:
        """Create an object; False also where an earlier try of this very call did, and its answer was lost."""
        for attempt in range(_TRIES):
            try:
                return self._store.create(key, content)
            except StoreError as error:
                if not error.passing or attempt + 1 == _TRIES:
                    raise
                pause(attempt)
        raise AssertionError

    def _pull_after(self, seconds: float) -> None:
        """Read what others have appended, unless that was done in the last so many seconds."""
        if time.monotonic() - self._asked_at >= seconds:
            self._pull()

    def _pull(self) -> None:
        """Read what others have appended: the more there was, the more objects at once."""
        asked_at = time.monotonic()
        at_once, went_on = 1, True
        while went_on:
            if self._number % SEGMENT == 0 and self._take_segment():
                continue
            went_on = self._take_up_to(at_once)
            at_once = min(2 * at_once, _MOST_AT_ONCE)
        if not self._opened:
            self._require_end()
            self._opened = True
        self._asked_at = asked_at

    def _take_up_to(self, count: int) -> bool:
        """Read the next objects at once, to the end of the segment at most; return False where the journal ends."""
        end = min(self._number + count, (self._number // SEGMENT + 1) * SEGMENT)
        numbers = range(self._number, end)
        for there in self._readers.map(self._at, numbers) if len(numbers) > 1 else map(self._at, numbers):
            if there is None:
                return False
            self._take(there)
        if not self._opened and self._number % SEGMENT == 0:
            self._keep_segment()  # its writer was killed before he made it
        return True

    def _require_end(self) -> None:
        """Refuse a journal with a hole: what was deleted there is unknown, and others have seen it."""
        later = next(self._store.stats(f"{self._prefix}/log/", after=self._key(self._number)), None)
        if later is None:
            return
        there = self._at(self._number)
        if there is None:
            raise damaged(f"{self._store.uri}/{self._key(self._number)}", f"it is gone, but {later.key} is there")
        self._take(there)
        self._pull()

    def _take(self, batch: Batch) -> None:
        if batch.after != self._token:
            raise damaged(
                f"{self._store.uri}/{self._key(self._number)}", "it does not follow what this worker has read before it"
            )
        self._number, self._token = self._number + 1, batch.token
        self._logs += batch.logs
        self._recent = [*self._recent, batch] if self._number % SEGMENT != 1 else [batch]

    def _take_segment(self) -> bool:
        key = self._segment_key(self._number // SEGMENT)
        try:
            content = self._store.read(key, limit=SEGMENT_LIMIT)
        except AbsentError:
            return False
        for batch in read_segment(content, uri=f"{self._store.uri}/{key}"):
            self._take(batch)
        return True

    def _keep_segment(self) -> None:
        """Put the last batches together for late workers, who can read single objects where that does not work."""
        key, content = self._segment_key(self._number // SEGMENT - 1), written_segment(self._recent)
        if content is not None:
            with suppress(StoreError):
                self._store.create(key, content)

    def _at(self, number: int) -> Batch | None:
        key = self._key(number)
        try:
            return read(self._store.read(key, limit=BATCH_LIMIT), uri=f"{self._store.uri}/{key}")
        except AbsentError:
            return None

    def _key(self, number: int) -> str:
        return f"{self._prefix}/log/{number:010d}"

    def _segment_key(self, number: int) -> str:
        return f"{self._prefix}/segments/{number:010d}"
