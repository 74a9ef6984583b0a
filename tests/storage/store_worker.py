"""A search worker as a process of its own, whose study is in a store of objects; it counts what it asks of the store.

It says `took NUMBER` for every trial, and at its end one line of JSON with requests by kind and seconds by what they
were spent on. With `--hold N` it waits for a line on stdin inside the Nth trial that it takes, and with `--gate` before
it takes the first.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.leases import Leases, Worker
from optimizer_jobs.commands.search.sharing import POLL_SECONDS, share
from optimizer_jobs.commands.search.termination import given_up_when
from optimizer_jobs.stores.base import Stat, Store
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.study.storage import journal_path
from optimizer_jobs.study.trials import open_study
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.search import Search
from tests.unit.jobs.search_worker import found, open_claims, space

RUN = "r1"


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


def open_leases(store: Store, *, index: int, budget: int, lease: float) -> tuple[Leases, optuna.Study]:
    """Open a worker's leases on the study, and the study."""
    study, shared = share(store, RUN, default_objectives(Task.CLASSIFICATION), lease_seconds=lease)
    study.sampler = RandomSampler(seed=index)
    first = space().first()
    return Leases(study, Worker(index), shared=shared, budget=budget, first=first, lease_seconds=lease), study


def work(leases: Leases, budget: Budget, *, hold: int, trial_seconds: float) -> dict[str, float]:
    """Run trials until none is left, as a Job does; return how many, their seconds, and those of taking and telling."""
    spent, pace = {"trials": 0.0, "overhead": 0.0, "slept": 0.0}, random.Random()
    with leases.alive():
        while not leases.finished():
            began = time.monotonic()
            trial = leases.take(space().draw, space().fresh)
            if trial is None:
                time.sleep(POLL_SECONDS)
                continue
            print(f"took {leases.number(trial)}", flush=True)
            spent["overhead"] += time.monotonic() - began
            spent["trials"] += 1
            if spent["trials"] == hold:
                sys.stdin.readline()
            seconds = trial_seconds * pace.uniform(0.5, 1.5)
            spent["slept"] += seconds
            with given_up_when(budget.look):
                time.sleep(seconds)
            began = time.monotonic()
            then = (space().draw, space().fresh)
            leases.tell(trial, found(space().draw(trial)), state=TrialState.COMPLETE, then=then)
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
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--file", action="store_true")
    options = parser.parse_args()
    limits = {"index": options.index, "budget": options.budget, "lease": options.lease}
    requests: Counter[str] = Counter()
    if options.file:
        leases = open_claims(options.uri, RUN, journal=journal_path(options.uri, RUN), **limits)
        study = open_study(options.uri, RUN)
    else:
        store = Counted(open_store(options.uri))
        (leases, study), requests = open_leases(store, **limits), store.requests
    owner, search = str(options.index), Search(max_trials=options.budget, max_duration="1h")
    budget = Budget(study, search, owner=owner)
    print("ready", flush=True)
    if options.gate:
        sys.stdin.readline()
    spent = work(leases, budget, hold=options.hold, trial_seconds=options.trial_seconds)
    print(json.dumps(spent | requests), flush=True)


if __name__ == "__main__":
    main()
