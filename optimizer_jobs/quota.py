"""Hold a resource's folder of the store to the administrator's quota, so that none fills a store that others share.

What is asked is how much lies there now, so that a Job may go over by what it writes until it asks again: on a volume,
one trial of each worker. To list a bucket costs a request for a thousand objects, so a search asks there before every
trial only once nine tenths are used, and every ten minutes before that. Whoever is over the quota waits as for a full
store.
"""

import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.stores.opening import is_bucket, open_store
from retune.api.quantities import memory_bytes
from retune.contract.paths import QUOTA_VARIABLE
from retune.contract.results import Reason

_GIB, _MIB = 2**30, 2**20
_CURE = "Let spec.history keep less, remove what others have put there, or have storeQuota raised in the chart."
_MUCH = 0.9
"""Share of the quota above which a bucket is listed every time."""
_BELIEVED_SECONDS = 600.0


def require_room(store: str) -> None:
    """Refuse to write more where the resource's folder has reached its quota, if there is one.

    Args:
        store: URI of the resource's folder.

    Raises:
        JobError: StoreFull, with what lies there and what may.
    """
    Room(store).require()


class Room:
    """What a resource's folder may still hold, asked about again and again."""

    def __init__(self, store: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet.

        Args:
            store: URI of the resource's folder.
            clock: Returns seconds since some moment.
        """
        self._store, self._clock = store, clock
        self._quota = os.environ.get(QUOTA_VARIABLE)
        self._until = -math.inf
        """When a bucket is listed again."""

    def require(self) -> None:
        """Refuse as `require_room` does; a bucket with much room is believed to have some for ten minutes."""
        if not self._quota or self._clock() < self._until:
            return
        used, most = self._used(), memory_bytes(self._quota)
        if used >= most:
            message = (
                f"it holds {_words(used)} of files, and the administrator's quota for one resource is {self._quota}."
            )
            raise JobError(Reason.STORE_FULL, self._store, message, _CURE)
        if is_bucket(self._store) and used < _MUCH * most:
            self._until = self._clock() + _BELIEVED_SECONDS

    def _used(self) -> int:
        if is_bucket(self._store):
            return sum(stat.size for stat in open_store(self._store).stats(""))
        return sum(_sizes(resolve(self._store).local))


def _sizes(folder: Path) -> Iterator[int]:
    """Yield the bytes of every file below a folder, links not followed; what goes meanwhile takes no room."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                about = (Path(parent) / name).lstat()
                if stat.S_ISREG(about.st_mode):
                    yield about.st_size


def _words(count: int) -> str:
    return f"{count / _GIB:.1f}Gi" if count >= _GIB else f"{count / _MIB:.1f}Mi"
