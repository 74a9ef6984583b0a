"""What many workers of one search ask of a store, and how long they wait for each other, on a clock that jumps.

The latencies are assumed: those of a bucket in the same region, and the upper end of what Amazon calls usual for small
objects. What workers compute takes no time. The objects lie in memory, and once on a real S3 server, which has to
serve every request and is shown to hold every trial once, as each search is.
"""

from collections.abc import Iterator, Sequence
from uuid import uuid4

from rich.table import Table

from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.opening import open_store
from tests.storage.crowd import Latency, Played, Tally, play, require_each_once
from tests.storage.memory import MemoryStore

NEAR, FAR = Latency(read=0.020, write=0.040), Latency(read=0.100, write=0.200)
MOST_WRITES, MOST_READS = 3500, 5500
"""Requests a second that S3 serves below one prefix."""
TRIALS = 10
"""Of each worker."""
APART_SECONDS = 5.0
"""In which the workers begin."""
_COLUMNS = (
    "workers",
    "trial s",
    "requests",
    "trials",
    "decision p50",
    "p99",
    "longest",
    "fewest to most",
    "PUT",
    "GET",
    "LIST",
    "refused",
    "busiest second PUT",
    "GET",
)


def tables_of_crowds(bucket: str, workers: int) -> Iterator[Table]:
    """Play searches of so many workers, and of a quarter of them, and yield the table.

    Args:
        bucket: Address of a real S3 server's bucket.
        workers: The most workers.
    """
    table = Table(*_COLUMNS, title=f"{TRIALS} trials a worker; ms; requests a trial, and in the busiest second")
    few = workers // 4
    for count, trial_seconds, latency, words in (
        (few, 10.0, NEAR, "20 and 40 ms"),
        (workers, 10.0, NEAR, "20 and 40 ms"),
        (workers, 10.0, FAR, "100 and 200 ms"),
        (workers, 5.0, NEAR, "20 and 40 ms"),
        (workers, 1.0, NEAR, "20 and 40 ms"),
    ):
        played = Played(count, TRIALS * count, trial_seconds, APART_SECONDS)
        table.add_row(str(count), f"{trial_seconds:g}", words, *_cells(played, MemoryStore(), latency))
    played = Played(few, TRIALS * few, 10.0, APART_SECONDS)
    store = open_store(f"{bucket}/{uuid4().hex}")
    table.add_row(str(few), "10", "20 and 40 ms, S3 server", *_cells(played, store, NEAR))
    yield table


def _cells(played: Played, store: Store, latency: Latency) -> Iterator[str]:
    """Play a search, and yield its columns."""
    tally = play(played, store, latency)
    require_each_once(store, played.trials)
    shares = [tally.trials[index] for index in range(played.workers)]
    yield str(tally.trials.total())
    for share in (0.5, 0.99, 1.0):
        yield f"{1000 * quantile(tally.decisions, share):.0f}"
    yield f"{min(shares)} to {max(shares)}"
    for kind in ("PUT", "GET", "LIST"):
        yield f"{tally.a_trial(kind):.1f}"
    yield f"{tally.refused / tally.trials.total():.2f}"
    yield from _busiest(tally)


def _busiest(tally: Tally) -> Iterator[str]:
    """Yield the requests of the busiest second with their share of what S3 serves."""
    for kind, most in (("PUT", MOST_WRITES), ("GET", MOST_READS)):
        count = tally.busiest_second(kind)
        yield f"{count} ({count / most:.0%})"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]
