"""A search worker as a process of its own, whose study is in a store of objects; it counts what it asks of the store.

It says `took NUMBER` for every trial, and at its end one line of JSON with requests by kind and seconds by what they
were spent on. With `--hold N` it waits for a line on stdin inside the Nth trial that it takes.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from optimizer_jobs.commands.search.leases import Leases, Shared, Worker
from optimizer_jobs.stores.base import Stat, Store
from optimizer_jobs.stores.journal import StoreJournal
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.studies import StorePulse, StoreStorage
from optimizer_jobs.study.trials import journal_path
from tests.unit.jobs.search_worker import found, open_claims, space

PREFIX = "runs/r1/study"
DIRECTIONS = (StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)


class Counted:
    """A store that counts requests; a page of a listing is one."""

    def __init__(self, store: Store) -> None:
        """Count from now."""
        self._store, self.uri = store, store.uri
        self.requests: Counter[str] = Counter()

    def read(self, key: str, *, limit: int) -> bytes:
        """GET."""
        self.requests["GET"] += 1
        return self._store.read(key, limit=limit)

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """GET, of small objects."""
        self.requests["GET"] += 1
        return self._store.fetch(key, path, limit=limit)

    def create(self, key: str, content: bytes | Path) -> bool:
        """PUT with a condition."""
        self.requests["PUT"] += 1
        made = self._store.create(key, content)
        self.requests["refused"] += not made
        return made

    def replace(self, key: str, content: bytes | Path) -> None:
        """PUT."""
        self.requests["PUT"] += 1
        self._store.replace(key, content)

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """LIST."""
        self.requests["LIST"] += 1
        return self._store.stats(prefix, after=after)

    def delete(self, keys: Iterable[str]) -> None:
        """DELETE."""
        self.requests["DELETE"] += 1
        self._store.delete(keys)


def open_study(store: Store) -> tuple[optuna.Study, StoreStorage]:
    """Open the study of the tests in a store."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = StoreStorage(StoreJournal(store, PREFIX))
    study = optuna.create_study(study_name="r1", storage=storage, directions=DIRECTIONS, load_if_exists=True)
    return study, storage


def open_leases(store: Store, *, index: int, budget: int, lease: float) -> Leases:
    """Open a worker's leases on the study."""
    study, storage = open_study(store)
    study.sampler = RandomSampler(seed=index)
    shared = Shared(storage, StorePulse(store, PREFIX))
    return Leases(study, Worker(index), shared=shared, budget=budget, first=space().first(), lease_seconds=lease)


def work(leases: Leases, *, hold: int, trial_seconds: float) -> dict[str, float]:
    """Run trials until none is left; return how many, and the seconds of taking and telling them."""
    spent = {"trials": 0.0, "overhead": 0.0}
    with leases.alive():
        while not leases.finished():
            began = time.monotonic()
            trial = leases.take(space().draw, space().fresh)
            if trial is None:
                time.sleep(0.2)
                continue
            print(f"took {leases.number(trial)}", flush=True)
            spent["overhead"] += time.monotonic() - began
            spent["trials"] += 1
            if spent["trials"] == hold:
                sys.stdin.readline()
            time.sleep(trial_seconds)
            began = time.monotonic()
            leases.tell(trial, found(space().draw(trial)), state=TrialState.COMPLETE)
            spent["overhead"] += time.monotonic() - began
    return spent


def main() -> None:
    """Work on the study at an address; with `--file`, on the journal of a shared folder instead."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--hold", type=int, default=0)
    parser.add_argument("--trial-seconds", type=float, default=0.0)
    parser.add_argument("--file", action="store_true")
    options = parser.parse_args()
    limits = {"index": options.index, "budget": options.budget, "lease": options.lease}
    requests: Counter[str] = Counter()
    if options.file:
        leases = open_claims(options.uri, "r1", journal=journal_path(options.uri, "r1"), **limits)
    else:
        store = Counted(open_store(options.uri))
        leases, requests = open_leases(store, **limits), store.requests
    print("ready", flush=True)
    spent = work(leases, hold=options.hold, trial_seconds=options.trial_seconds)
    print(json.dumps(spent | requests), flush=True)


if __name__ == "__main__":
    main()
