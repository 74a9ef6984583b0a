"""Where the study of a run lies: in one journal file on a volume, or in numbered objects in a bucket."""

import os
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.journal import StoreJournal
from optimizer_jobs.stores.opening import is_bucket, open_store
from optimizer_jobs.stores.studies import StoreStorage
from retune.contract.paths import leftover_run, run_folder
from retune.contract.results import Reason

JOURNAL = "study.journal"
"""Name of the journal file in the folder of a run."""
STUDY = "study"
"""Folder of a run in a bucket that has the objects of its study."""
FRESH_SECONDS = 2.0
"""For how long a worker believes what it has read of a study in a bucket, where it decides nothing."""


def journal_path(store: str, run: str) -> Path:
    """Return the local path of a run's journal; raises JobError when the store is not a shared folder."""
    return resolve(f"{run_folder(store, run)}/{JOURNAL}").local


def study_prefix(run: str) -> str:
    """Return what the keys of a run's study in a bucket begin with."""
    return f"{leftover_run(run)}/{STUDY}"


def open_storage(store: str, run: str, *, create: bool) -> JournalStorage:
    """Open what the study of a run lies in.

    Args:
        store: URI of the store.
        run: Name of the run.
        create: Whether there need be none yet.

    Raises:
        JobError: There is no study, and there must be; or the store cannot be used.
    """
    if is_bucket(store):
        return bucket_storage(open_store(store), run, create=create)
    path = journal_path(store, run)
    if not create and not path.exists():
        raise _absent(f"{run_folder(store, run)}/{JOURNAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_Lock(path)))


def bucket_storage(store: Store, run: str, *, create: bool) -> StoreStorage:
    """Open what `open_storage` does, in an open store; raises JobError and StoreError as it does."""
    journal = StoreJournal(store, study_prefix(run), fresh_seconds=FRESH_SECONDS)
    if not create and not journal.exists:
        raise _absent(f"{store.uri}/{study_prefix(run)}")
    return StoreStorage(journal)


def _absent(uri: str) -> JobError:
    return JobError(Reason.NO_FEASIBLE_CANDIDATE, uri, "the run has no study.", "Run the search before the judge.")


class _Lock(JournalFileOpenLock):
    """The journal's lock, which also removes an incomplete last line that a killed writer left.

    Otherwise the next line would be appended to the incomplete one, and the journal could not be read any more.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal

    def acquire(self) -> bool:
        held = super().acquire()
        if self._journal.exists():
            with self._journal.open("rb+") as file:
                _cut_unfinished_line(file)
        return held


def _cut_unfinished_line(file: Any) -> None:
    """Truncate a file after its last newline."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read(end).rfind(b"\n") + 1)
