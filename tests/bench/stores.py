"""What stores cost: `python -m tests.bench.stores` prints two tables.

The first is of single objects, in a folder and on a real S3 server over loopback with TLS. The second is of a search:
worker processes take trials of one study that last about a given time (half of it to one and a half), with the file
journal on a shared folder, with the journal of objects in a folder, and with that on the S3 server. A trial's overhead
is what taking and telling it takes; requests are those of all workers while they work, divided by the trials; a
listing's page is one request.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.opening import open_store
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.storage import servers
from tools.localcluster.settings import REPOSITORY

LARGE = 64 << 20
SMALL = 4 << 10
REPEATS, REPEATS_LARGE = 100, 5
WRITE_DOLLARS, READ_DOLLARS = 0.005 / 1000, 0.0004 / 1000
"""List prices of S3 Standard in us-east-1: PUT and LIST, and GET."""
PATIENCE_SECONDS = 1800
KINDS = ("PUT", "GET", "LIST", "refused")
"""Kinds of requests, and PUTs that lost a race."""


@dataclass(frozen=True)
class Searched:
    """What one search has cost."""

    trials: int
    seconds: float
    """From when all workers were ready until the last one ended."""
    overhead: float
    """Seconds a trial."""
    requests: Mapping[str, float]
    """By kind, a trial."""

    @property
    def dollars(self) -> float:
        """Price of the requests of a thousand trials."""
        writes = self.requests.get("PUT", 0) + self.requests.get("LIST", 0)
        return 1000 * (writes * WRITE_DOLLARS + self.requests.get("GET", 0) * READ_DOLLARS)


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--trials", type=int, default=200, help="trials of a search, by all its workers")
    parser.add_argument("--trial-seconds", type=float, default=1.0)
    options = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as bucket:
        addresses = {"folder": f"file://{folder}/store", "S3": bucket}
        console.print(_of_objects({name: open_store(f"{uri}/{uuid4().hex}") for name, uri in addresses.items()}))
        table = _empty_search_table(options.trials, options.trial_seconds)
        for workers in options.workers:
            for name, uri in {"file journal": f"file://{folder}/files", **addresses}.items():
                found = _search(f"{uri}/{uuid4().hex}", workers, options, file=name == "file journal")
                _add(table, name, workers, found, options.trial_seconds)
        console.print(table)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a bucket, and yield its address; the environment has the credentials."""
    with servers.s3(folder / "s3") as server:
        os.environ |= {**server.environment, PRIVATE_ADDRESSES_VARIABLE: "Allow"}
        yield f"s3://{servers.BUCKET}"


def _of_objects(stores: Mapping[str, Store]) -> Table:
    table = Table("object", *stores, title=f"median ms of {REPEATS} small (4 KiB) and {REPEATS_LARGE} large (64 MiB)")
    small, large = random.Random(0).randbytes(SMALL), random.Random(1).randbytes(LARGE)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "large"
        path.write_bytes(large)
        acts: dict[str, tuple[int, Callable[[Store, int], object]]] = {
            "create small": (REPEATS, lambda store, number: store.create(f"small/{number}", small)),
            "create small that exists": (REPEATS, lambda store, number: store.create(f"small/{number}", small)),
            "read small": (REPEATS, lambda store, number: store.read(f"small/{number}", limit=SMALL)),
            "list 100": (REPEATS, lambda store, number: list(store.stats("small/"))),
            "create large": (REPEATS_LARGE, lambda store, number: store.create(f"large/{number}", path)),
            "fetch large": (
                REPEATS_LARGE,
                lambda store, number: store.fetch(f"large/{number}", path.with_name("copy"), limit=LARGE),
            ),
        }
        for name, (count, act) in acts.items():
            table.add_row(name, *(f"{_median_ms(store, count, act):.1f}" for store in stores.values()))
    return table


def _median_ms(store: Store, count: int, act: Callable[[Store, int], object]) -> float:
    spent = []
    for number in range(count):
        began = time.perf_counter()
        act(store, number)
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def _search(uri: str, workers: int, options: argparse.Namespace, *, file: bool) -> Searched:
    command = [sys.executable, "-m", "tests.storage.store_worker", uri, "--budget", str(options.trials)]
    command += ["--trial-seconds", str(options.trial_seconds), "--lease", "60", *(["--file"] if file else [])]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'operator'}"}
    run = partial(subprocess.Popen, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE)
    with ExitStack() as stack:
        processes: list[subprocess.Popen[str]] = [
            stack.enter_context(run([*command, "--index", str(index)])) for index in range(workers)
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        began = time.monotonic()
        said = [json.loads(process.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()[-1]) for process in processes]
        seconds = time.monotonic() - began
    trials = int(sum(one["trials"] for one in said))
    requests = {kind: sum(one.get(kind, 0) for one in said) / trials for kind in KINDS}
    return Searched(trials, seconds, sum(one["overhead"] for one in said) / trials, requests)


def _empty_search_table(trials: int, seconds: float) -> Table:
    columns = ("study in", "workers", "trials", "overhead ms", "of 10 s", "efficiency", *KINDS, "$ / 1000 trials")
    return Table(*columns, title=f"a search of {trials} trials of {seconds:g} s; requests a trial")


def _add(table: Table, name: str, workers: int, found: Searched, trial_seconds: float) -> None:
    ideal = found.trials * trial_seconds / workers
    row = (name, str(workers), str(found.trials), f"{1000 * found.overhead:.0f}", f"{found.overhead / 10:.2%}")
    asked = [f"{found.requests[kind]:.1f}" for kind in KINDS] + [f"{found.dollars:.4f}"]
    table.add_row(*row, f"{ideal / found.seconds:.0%}", *(asked if found.requests["PUT"] else ["-"] * len(asked)))


if __name__ == "__main__":
    main()
