"""Remove captured files after their retention from a bucket. Never touches what Retune's writer has not marked.

Names of hours sort by time, so a listing that ends at the first hour to keep sees nothing younger. What a check lists,
reads and removes is bounded; the next one goes on, at other files, so that no file that must stay holds up the rest.
What is refused is told, and costs no window.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

import pyarrow as pa

from optimizer_jobs.data.faults import remote_fault
from optimizer_jobs.data.uris import Location
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from optimizer_jobs.production import layout
from optimizer_jobs.progress import say
from optimizer_jobs.stores.base import SECRET, Stat, Store
from optimizer_jobs.stores.opening import open_store

LISTED = 20_000
"""Most names that one check lists: 20 requests of S3."""
LIMIT = 5_000
"""Most files that one check looks into, and removes."""

_SECONDS = 120.0
"""How long one check goes on with it."""
_BATCH, _READ_AT_ONCE = 100, 16
_FAULTS = 3
"""After so many, a check asks no more."""
_MAGIC, _ENDING = b"PAR1", 8
"""How a Parquet file begins and ends; before the end, 4 bytes say how long the footer is."""
_TAIL, _FOOTER_LIMIT = 32 << 10, 4 << 20
"""Bytes that are read of a file, and most where its footer is longer."""

Marked = Callable[[IO[bytes] | pa.NativeFile], bool]
"""Whether a Parquet file has the mark of Retune's writer."""


@dataclass
class _Pruning:
    """What one check removes."""

    store: Store
    place: Location
    marked: Marked
    removed: int = 0
    faults: list[JobError] = field(default_factory=list)

    def run(self, stats: Sequence[Stat]) -> bool:
        """Remove those files that are ours, and return whether all were looked into."""
        end = time.monotonic() + _SECONDS
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            for start in range(0, len(stats), _BATCH):
                if len(self.faults) >= _FAULTS or time.monotonic() > end:
                    return False
                self._remove(stats[start : start + _BATCH], pool)
        return True

    def _remove(self, stats: Sequence[Stat], pool: ThreadPoolExecutor) -> None:
        ours = [stat.key for stat, own in zip(stats, pool.map(self._is_ours, stats), strict=True) if own]
        if not ours:
            return
        try:
            self.store.delete(ours)
        except JobError as error:
            self.faults.append(error)
        else:
            self.removed += len(ours)

    def _is_ours(self, stat: Stat) -> bool:
        """Whether our writer has written a file; what cannot be read stays."""
        try:
            footer = self._footer(f"{self.place.path.rstrip('/')}/{stat.key}", stat.size)
            return footer is not None and self.marked(pa.BufferReader(footer))
        except (FileNotFoundError, ValueError, pa.ArrowException):
            return False
        except Exception as error:  # noqa: BLE001 - each file system has errors of its own
            self.faults.append(remote_fault(error, uri=f"{self.place.uri.rstrip('/')}/{stat.key}", what="Data"))
            return False

    def _footer(self, path: str, size: int) -> bytes | None:
        """Return a Parquet file of nothing but the file's footer; None where it has none, or too long a one."""
        tail = self._range(path, max(0, size - _TAIL), size)
        length = int.from_bytes(tail[-_ENDING : -len(_MAGIC)], "little") + _ENDING
        if not tail.endswith(_MAGIC) or length > min(size - len(_MAGIC), _FOOTER_LIMIT):
            return None
        if length > len(tail):
            tail = self._range(path, size - length, size)
        return _MAGIC + tail[-length:]

    def _range(self, path: str, start: int, end: int) -> bytes:
        return bytes(self.place.fs.cat_file(path, start=start, end=end)) if end > start else b""


def prune_bucket(place: Location, marked: Marked, *, before: float, seed: int) -> int:
    """Remove our files of all hours that ended at or before a moment, and say why where files stay.

    Args:
        place: The folder of captured requests.
        marked: Whether a Parquet file has the mark of Retune's writer.
        before: The moment, in seconds since 1970.
        seed: Seed of the choice of files, where there are more than one check removes; another one in each check.

    Returns:
        The number of files that are surely removed.
    """
    try:
        store = open_store(place.uri)
        listed = list(islice(_older(store, before=before), LISTED))
    except JobError as error:
        _tell(place.uri, error)
        return 0
    files = [stat for stat in listed if _in_hour(stat.key)]
    chosen = random.Random(seed).sample(files, min(len(files), LIMIT))
    pruning = _Pruning(store, place, marked)
    through = pruning.run(chosen)
    if pruning.faults:
        _tell(place.uri, pruning.faults[0])
    elif not through or len(listed) == LISTED or len(files) > LIMIT:
        say(f"  {place.uri} has more files of hours past their retention: the next check goes on")
    return pruning.removed


def _older(store: Store, *, before: float) -> Iterator[Stat]:
    """Yield what is listed before the first hour that has not ended, the oldest first."""
    if before <= 0:
        return
    first_kept = layout.folder_of(before)
    for stat in store.stats("date="):
        if stat.key >= first_kept:
            return
        yield stat


def _in_hour(key: str) -> bool:
    """Whether a key is that of a Parquet file in an hour's folder."""
    return key.endswith(layout.SUFFIX) and layout.hour_of(key.rpartition("/")[0]) is not None


def _tell(uri: str, fault: JobError) -> None:
    """Say why files stay, and what to do."""
    cure = (
        "The next check tries again."
        if fault.exit == RETRY_EXIT
        else f"Let {SECRET} list, read and delete objects there, and see that no retention lock holds them; or set "
        "production.retention to 0s, and give the bucket a lifecycle rule."
    )
    say(f"  captured files past their retention stay in {uri}: {printable(fault.message, limit=300)} {cure}")
