"""How many workers of one search share it: real processes whose trials are waits, on three kinds of study.

- The journal file on a shared folder, with the leases of a Job; the folder is of this machine, and no network's.
- The journal of objects on a real S3 server, over loopback with TLS, with the same leases.
- Optuna's own storage in a real PostgreSQL server, the way that its documentation has it. `rdb_worker` says what that
  does not promise.

Contestants take turns. Workers begin together, once all are ready. Efficiency is the time of all trials, divided by the
workers and by the time from the beginning until the last one has ended: 100 % is what a search would have that costs
nothing and whose workers all end at once. A trial's overhead is what its taking and its telling take.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from rich.table import Table

from tools.localcluster.settings import REPOSITORY

WRITE_DOLLARS, READ_DOLLARS = 0.005 / 1000, 0.0004 / 1000
"""List prices of S3 Standard in us-east-1: PUT and LIST, and GET."""
PATIENCE_SECONDS = 1800
KINDS = ("PUT", "GET", "LIST", "refused")
"""Kinds of requests, and PUTs that lost a race."""
_COLUMNS = ("workers", "study in", "trials", "a minute", "ideal", "efficiency", "overhead ms", *KINDS, "$ / 1000")


@dataclass(frozen=True)
class Search:
    """What one search has cost."""

    workers: int
    trials: int
    seconds: float
    """From when all workers were ready until the last one ended."""
    slept: float
    """Seconds of all trials together."""
    overhead: float
    """Seconds a trial."""
    requests: Mapping[str, float]
    """By kind, a trial; empty where none were counted."""

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that was spent in trials."""
        return self.slept / self.workers / self.seconds

    @property
    def dollars(self) -> float:
        """Price of the requests of a thousand trials."""
        writes = self.requests["PUT"] + self.requests["LIST"]
        return 1000 * (writes * WRITE_DOLLARS + self.requests["GET"] * READ_DOLLARS)


Contestant = Callable[[str, int], Sequence[str]]
"""Returns the command of a worker of a search: the name of the search, and the budget; the rest is added."""


def in_a_store(uri: str, *, file: bool = False) -> Contestant:
    """Return workers whose study lies in a store; with `file` in a journal file in a folder."""

    def command(name: str, budget: int) -> list[str]:
        words = ["tests.storage.store_worker", f"{uri}/{name}", "--lease", "60", "--gate", "--budget", str(budget)]
        return [*words, *(["--file"] if file else [])]

    return command


def in_a_database(url: str) -> Contestant:
    """Return workers of Optuna's own."""
    return lambda name, budget: ["tests.bench.stores.rdb_worker", url, name, "--budget", str(budget)]


def table_of_searches(contestants: Mapping[str, Contestant], options: argparse.Namespace) -> Table:
    """Let each contestant search with each number of workers, in turns, and return the table."""
    found: dict[tuple[int, str], list[Search]] = {}
    for workers in options.workers:
        for turn in range(options.turns):
            for name in _rotated(list(contestants), turn):
                searched = _search(contestants[name], workers, options)
                found.setdefault((workers, name), []).append(searched)
                print(f"{workers} workers, {name}: {searched.efficiency:.1%}", file=sys.stderr, flush=True)
    title = f"{options.trials} trials of {options.trial_seconds:g} s a worker; medians of {options.turns} turns"
    table = Table(*_COLUMNS, title=title)
    for (workers, name), searches in found.items():
        table.add_row(str(workers), name, *_cells(searches))
    return table


def _rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return names[first:] + names[:first]


def _cells(searches: Sequence[Search]) -> Iterator[str]:
    """Yield the columns after the name."""

    def middle(read: Callable[[Search], float]) -> float:
        return statistics.median(map(read, searches))

    efficiencies = sorted(searched.efficiency for searched in searches)
    spread = f" ({efficiencies[0]:.1%} to {efficiencies[-1]:.1%})" if len(searches) > 1 else ""
    yield str(round(middle(lambda searched: searched.trials)))
    yield f"{middle(lambda searched: 60 * searched.trials / searched.seconds):.1f}"
    yield f"{middle(lambda searched: 60 * searched.trials * searched.workers / searched.slept):.1f}"
    yield f"{statistics.median(efficiencies):.1%}{spread}"
    yield f"{1000 * middle(lambda searched: searched.overhead):.0f}"
    if not all(searched.requests for searched in searches):
        yield from ["-"] * (len(KINDS) + 1)
        return
    for kind in KINDS:
        yield f"{middle(lambda searched, kind=kind: searched.requests[kind]):.1f}"  # type: ignore[misc]
    yield f"{middle(lambda searched: searched.dollars):.4f}"


def _search(contestant: Contestant, workers: int, options: argparse.Namespace) -> Search:
    command = [sys.executable, "-m", *contestant(uuid4().hex, options.trials * workers)]
    command += ["--trial-seconds", str(options.trial_seconds)]
    places = [str(REPOSITORY), str(REPOSITORY / "operator"), *([options.drivers] if options.drivers else [])]
    environment = os.environ | {"PYTHONPATH": ":".join(places)}
    pipe = subprocess.PIPE
    run = partial(subprocess.Popen, cwd=REPOSITORY, env=environment, text=True, stdin=pipe, stdout=pipe)
    with ExitStack() as stack:
        processes: list[subprocess.Popen[str]] = [
            stack.enter_context(run([*command, "--index", str(index)])) for index in range(workers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", f"worker {process.pid} has ended"
        began = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [json.loads(process.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()[-1]) for process in processes]
        seconds = time.monotonic() - began
    return _searched(said, seconds)


def _searched(said: Sequence[Mapping[str, float]], seconds: float) -> Search:
    """Put together what the workers said at their end."""
    trials = round(sum(one["trials"] for one in said))
    counted = any("PUT" in one for one in said)
    requests = {kind: sum(one.get(kind, 0) for one in said) / trials for kind in KINDS} if counted else {}
    overhead = sum(one["overhead"] for one in said) / trials
    return Search(len(said), trials, seconds, sum(one["slept"] for one in said), overhead, requests)
