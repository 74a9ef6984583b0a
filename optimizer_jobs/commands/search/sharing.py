"""What the workers of a run share: its study, where they decide alone, and their signs of life.

On a volume these are the journal file, a lock beside it, and the study itself; in a bucket they are numbered objects,
transactions, and an object for each worker.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import optuna
from optuna.storages.journal import JournalFileOpenLock

from optimizer_jobs.errors import JobError
from optimizer_jobs.stores.base import Store, require_conditional
from optimizer_jobs.stores.batches import damaged
from optimizer_jobs.stores.opening import is_bucket, open_store
from optimizer_jobs.stores.studies import StorePulse
from optimizer_jobs.study.storage import bucket_storage, journal_path, study_prefix
from optimizer_jobs.study.trials import open_study, study_in
from retune.api.objectives import Objective
from retune.contract.requests import SearchRequest
from retune.contract.results import Reason

BEAT_SECONDS, RARE_BEAT_SECONDS = 10.0, 15.0
"""Seconds between signs of life: on a volume, and in a bucket, where each is a request."""
POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 5.0
"""Seconds after which a worker without a trial looks again; in a bucket it looks less and less often."""

_BEAT = "beat:"
_T = TypeVar("_T")


class Section(Protocol):
    """Where one worker at a time decides."""

    def alone(self, body: Callable[[], _T]) -> _T:
        """Run `body` as though no other worker did anything meanwhile; it may be run again from its beginning."""

    def at_once(self, body: Callable[[], _T]) -> _T:
        """Run `body`, whose writes others may see together; it may be run again from its beginning."""


class Pulse(Protocol):
    """Signs of life of workers."""

    def show(self, owner: str, number: int) -> None:
        """Show that a worker is alive; each sign has another number."""

    def seen(self) -> Mapping[str, object]:
        """Return the last sign of every worker; it differs from the one before."""


@dataclass(frozen=True)
class Shared:
    """What the workers of a study share besides the study."""

    section: Section
    pulse: Pulse
    beat_seconds: float = BEAT_SECONDS
    """Seconds between signs of life, where the lease is long enough."""
    takes_ahead: bool = False
    """Whether a worker that ends a trial takes the next one in the same decision, so that both are one write."""
    longest_poll: float = POLL_SECONDS
    """Seconds to which a worker that has nothing to do lengthens the pauses in which it looks again."""


class _Lock:
    """A section for workers that share a folder."""

    def __init__(self, journal: Path) -> None:
        self._lock = JournalFileOpenLock(f"{journal}.leases")

    def alone(self, body: Callable[[], _T]) -> _T:
        self._lock.acquire()
        try:
            return body()
        finally:
            self._lock.release()

    def at_once(self, body: Callable[[], _T]) -> _T:
        return body()


class _InStudy:
    """Signs of life as attributes of the study."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def show(self, owner: str, number: int) -> None:
        self._study.set_user_attr(f"{_BEAT}{owner}", number)

    def seen(self) -> Mapping[str, object]:
        marked = self._study.user_attrs
        return {name.removeprefix(_BEAT): sign for name, sign in marked.items() if name.startswith(_BEAT)}


def on_folder(study: optuna.Study, journal: Path) -> Shared:
    """Return what workers share whose study has its journal in a shared folder; a lock file lies beside it."""
    return Shared(_Lock(journal), _InStudy(study))


def require_usable(store: str) -> None:
    """Refuse a bucket on which workers would overwrite each other's trials; asked once, at the start of a search.

    Raises:
        StoreError: The bucket does not honour conditional creates (CONDITION), or cannot be written or reached.
    """
    if is_bucket(store):
        require_conditional(open_store(store))


def open_shared(request: SearchRequest, *, lease_seconds: float) -> tuple[optuna.Study, Shared]:
    """Open the study of a run, which is created if there is none, and what its workers share besides.

    Args:
        request: The search.
        lease_seconds: Time without a sign of life after which a worker is taken for dead.

    Raises:
        JobError: The store cannot be used.
    """
    if is_bucket(request.store):
        return share(open_store(request.store), request.run, request.objectives, lease_seconds=lease_seconds)
    study = open_study(request.store, request.run, create=request.objectives)
    return study, on_folder(study, journal_path(request.store, request.run))


def share(
    store: Store, run: str, objectives: Sequence[Objective], *, lease_seconds: float
) -> tuple[optuna.Study, Shared]:
    """Do what `open_shared` does, in an open store of objects, where each look costs a request."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = bucket_storage(store, run, create=True)
    study = study_in(storage, run, create=objectives)
    pulse = StorePulse(store, study_prefix(run), fresh_seconds=2 * min(RARE_BEAT_SECONDS, lease_seconds / 4))
    rare = {"beat_seconds": RARE_BEAT_SECONDS, "longest_poll": LONGEST_POLL_SECONDS}
    return study, Shared(storage, pulse, takes_ahead=True, **rare)


def as_kept(request: SearchRequest, study: optuna.Study) -> optuna.Study:
    """Return a searched study as its judge will find it: read anew where it lies in a bucket.

    Raises:
        StoreError: Somebody has deleted or changed it meanwhile (DAMAGED), which a worker that wrote on did not see.
    """
    if not is_bucket(request.store):
        return study
    uri, known = f"{request.store}/{study_prefix(request.run)}", len(study.get_trials(deepcopy=False))
    try:
        kept = open_study(request.store, request.run)
    except JobError as error:
        if error.reason is not Reason.NO_FEASIBLE_CANDIDATE:
            raise
        raise damaged(uri, "it was deleted during the search") from error
    if len(kept.get_trials(deepcopy=False)) < known:
        raise damaged(uri, "trials of it were deleted during the search")
    return kept
