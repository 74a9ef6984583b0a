"""Studies in a store of objects: Optuna's journal storage, with transactions, and the signs of life of its workers.

A transaction takes the place of a lock. What a worker decides in it (whose trial is lost, which one to take, with which
parameters) is written in one object, and only if no other worker has written anything since the decision began;
otherwise it is decided anew on what is there now. So nobody waits for a worker that was killed, nothing is ever half
decided, and a trial that several want goes to exactly one.

Whoever was beaten decides anew at once. It has just read all that there is, and of those who want to write one always
does, so the study goes on as fast as its objects can follow each other. Pauses would only let those pass who came
later: the longer a worker had waited, the longer it would wait.
"""

import copy
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial

from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.journal import ConflictError, StoreJournal

_T = TypeVar("_T")
_SIZES = 997
"""A sign of life has as many bytes as its number, modulo this: its size tells it from the one before."""


class StoreStorage(JournalStorage):
    """Optuna's journal storage on a journal in a store."""

    def __init__(self, journal: StoreJournal) -> None:
        """Read the journal."""
        super().__init__(journal)
        self._journal = journal
        self._thread_lock = threading.RLock()  # type: ignore[assignment]  # held by a transaction while Optuna takes it

    def alone(self, body: Callable[[], _T]) -> _T:
        """Run `body`, and write what it does to studies of this storage at once, or nothing if it raises.

        Args:
            body: Reads and changes the study, and nothing else, because it is run again whenever another worker has
                written first. Other threads of this worker wait meanwhile.

        Raises:
            StoreError: The store cannot be read or written. Whether it was written is seen by the next read.
        """
        while True:
            with self._thread_lock, suppress(ConflictError):
                return self._attempt(body)

    def at_once(self, body: Callable[[], _T]) -> _T:
        """Do what `alone` does: here, what is written at once is also decided alone."""
        return self.alone(body)

    def _attempt(self, body: Callable[[], _T]) -> _T:
        """Run `body` on what there is now. Whatever goes wrong, what it did is forgotten."""
        before = None
        try:
            with self._journal.batch():
                self._sync_with_backend()
                before = _copied(self._replay_result)
                return body()
        except BaseException:
            self._replay_result = before or self._replay_result
            raise


def _copied(state: Any) -> Any:
    """Return a copy of what a journal storage has read, which stays as it is while the storage reads and writes on.

    The storage replaces trials and does not change them, but a running trial's own object changes what it was made of.
    A finished trial is changed by nobody.
    """
    twin = copy.copy(state)
    for name, value in vars(state).items():
        if isinstance(value, dict):
            setattr(twin, name, {key: _copied_entry(entry) for key, entry in value.items()})
    return twin


def _copied_entry(entry: Any) -> Any:
    if isinstance(entry, FrozenTrial) and entry.state.is_finished():
        return entry
    twin = copy.copy(entry)
    for name, value in getattr(twin, "__dict__", {}).items():
        if isinstance(value, dict):
            setattr(twin, name, dict(value))
    return twin


class StorePulse:
    """Signs of life of a study's workers, one object each, which its worker replaces and others only list."""

    def __init__(self, store: Store, prefix: str, *, fresh_seconds: float = 0.0) -> None:
        """Open the signs of life.

        Args:
            store: The store.
            prefix: What their keys begin with: a plain path, without a slash at its end.
            fresh_seconds: For how long a listing passes for the last one, so that none is asked for. Where it is not 0,
                whoever shows that he is alive lists the others at once, so that nobody waits for it later.
        """
        self._store, self._prefix, self._fresh = store, f"{prefix}/alive/", fresh_seconds
        self._listed_at, self._signs = -math.inf, dict[str, object]()

    def show(self, owner: str, number: int) -> None:
        """Show that a worker (`INDEX/LIFE`) is alive; each sign has another number."""
        self._store.replace(f"{self._prefix}{owner}", b"." * (number % _SIZES))
        if self._fresh:
            self._list()

    def seen(self) -> Mapping[str, object]:
        """Return the last sign of every worker, in one request for a thousand of them or none.

        Two signs of a worker differ, and that is all that they say: they are compared with each other, and never with
        a clock.
        """
        if time.monotonic() - self._listed_at >= self._fresh:
            self._list()
        return self._signs

    def _list(self) -> None:
        now, signs = time.monotonic(), self._store.stats(self._prefix)
        self._signs = {sign.key.removeprefix(self._prefix): (sign.size, sign.modified) for sign in signs}
        self._listed_at = now
