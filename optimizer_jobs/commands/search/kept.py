"""Finished steps that workers give each other through a bucket, because they share no folder for them.

Only what took long is given: to make anything else again costs less than to send and to bring it. A result is written
files first and its sealed record last, and is believed only where record and files fit, as on a volume.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from optimizer_jobs.seal import study_seal
from optimizer_jobs.stores.base import AbsentError, Kind, Store, StoreError, checked
from optimizer_jobs.techniques.steps import OUTCOME
from retune.contract.paths import SCRATCH_VARIABLE

SHARED_SECONDS = 5.0
"""A result that took less to make is not given to others."""

_RECORD_LIMIT = 1 << 20
_SHARE, _USUAL_SCRATCH = 0.25, 16 << 30
"""Share of the scratch folder that a worker's own results may take, and its size where none is set."""


class KeptInBucket:
    """Finished steps of a run below a prefix of a store, and a worker's own in a folder of this machine."""

    def __init__(self, store: Store, prefix: str, folder: Path) -> None:
        """Ask nothing yet.

        Args:
            store: The store.
            prefix: What the keys of finished steps begin with: a plain path, without a slash at its end.
            folder: Folder of this worker's own finished steps.
        """
        self._store, self._prefix, self._folder = store, prefix, folder
        self._budget = _SHARE * float(os.environ.get(SCRATCH_VARIABLE, _USUAL_SCRATCH))

    def bring(self, entry: Path) -> None:
        """Fill the folder of a result with what another worker has given; it stays absent where none has.

        Raises:
            StoreError: The store cannot be read.
        """
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".brought-") as folder:
            brought = Path(folder) / entry.name
            brought.mkdir()
            if self._fetched(brought):
                brought.rename(entry)

    def _fetched(self, folder: Path) -> bool:
        """Fetch a result of this name into a folder; return False where there is none, or not all of it."""
        prefix = f"{self._prefix}/{folder.name}"
        try:
            written = self._store.read(f"{prefix}/{OUTCOME}", limit=_RECORD_LIMIT)
            record = study_seal().opened(written)
            for name in record["digests"] if record else ():
                limit = shutil.disk_usage(folder).free
                self._store.fetch(f"{prefix}/{checked(name)}", folder / Path(name).name, limit=limit)
        except AbsentError:
            return False
        except StoreError as error:
            if error.kind not in {Kind.TOO_LARGE, Kind.DAMAGED}:
                raise
            return False
        (folder / OUTCOME).write_bytes(written)
        return record is not None

    def give(self, entry: Path, *, seconds: float) -> None:
        """Let other workers have a result that took so long to make; raises StoreError."""
        if seconds < SHARED_SECONDS:
            return
        for path in sorted(entry.iterdir(), key=lambda path: path.name == OUTCOME):
            self._store.replace(f"{self._prefix}/{entry.name}/{path.name}", path)

    def make_room(self) -> None:
        """Remove the oldest of this worker's own results where they take more than a quarter of the scratch folder."""
        ages = sorted(_entries(self._folder), key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in ages}
        over = sum(sizes.values()) - self._budget
        for path in ages:
            if over <= 0:
                return
            shutil.rmtree(path, ignore_errors=True)
            over -= sizes[path]

    def forget(self) -> None:
        """Remove all results of the run, as far as the store lets; whoever finds them absent makes them."""
        with suppress(StoreError):
            keys = [stat.key for stat in self._store.stats(f"{self._prefix}/")]
            if keys:
                self._store.delete(keys)


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
