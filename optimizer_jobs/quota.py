"""Hold a resource's folder of the store to the administrator's quota, so that none fills a store that others share.

What is asked is how much lies there now, so that a Job may go over by what it writes until it asks again: one trial of
each worker. Whoever is over the quota waits as for a full store.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from retune.api.quantities import memory_bytes
from retune.contract.paths import QUOTA_VARIABLE
from retune.contract.results import Reason

_GIB, _MIB = 2**30, 2**20


def require_room(store: str) -> None:
    """Refuse to write more where the resource's folder has reached its quota, if there is one.

    Args:
        store: URI of the resource's folder.

    Raises:
        JobError: StoreFull, with what lies there and what may.
    """
    quota = os.environ.get(QUOTA_VARIABLE)
    if not quota:
        return
    used = sum(_sizes(resolve(store).local))
    if used >= memory_bytes(quota):
        raise JobError(
            Reason.STORE_FULL,
            store,
            f"it holds {_words(used)} of files, and the administrator's quota for one resource is {quota}.",
            "Let spec.history keep less, remove what others have put there, or have storeQuota raised in the chart.",
        )


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
