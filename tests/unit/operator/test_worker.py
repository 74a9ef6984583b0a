"""How a pass over one resource ends for the queue: whatever becomes of it, the other resources have their turn."""

import logging
from typing import cast

import pytest

from retune.cluster.errors import Refused, Transient
from retune.metrics import Metrics
from retune.reconcile import Reconciler, Worker
from tests.unit.operator.test_queue import Clock, a_queue, taken

KEY = "ml/digits"


class Passes:
    """A reconciler whose passes end as they were told to, one after the other."""

    def __init__(self, *endings: tuple[bool, float | None] | Exception) -> None:
        self._endings = list(endings)

    async def run(self, key: str) -> tuple[bool, float | None]:
        """Make the next pass."""
        assert key == KEY
        ending = self._endings.pop(0)
        if isinstance(ending, Exception):
            raise ending
        return ending


class Bench:
    """A worker with a queue whose clock stands still."""

    def __init__(self, *endings: tuple[bool, float | None] | Exception) -> None:
        self.queue, self.clock = a_queue()
        self.metrics = Metrics()
        self.worker = Worker(self.queue, cast("Reconciler", Passes(*endings)), self.metrics)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def after(self, seconds: float) -> str | None:
        """Return the key that is due when so many seconds have passed."""
        clock: Clock = self.clock
        clock.now += seconds
        return await taken(self.queue)


async def test_a_pass_is_counted_by_whether_it_changed_anything() -> None:
    """And timed."""
    bench = Bench((True, None), (False, None), (False, None))
    for _ in range(3):
        await bench.worker(KEY)
    assert bench.count("retune_reconcile_total", result="changed") == 1
    assert bench.count("retune_reconcile_total", result="unchanged") == 2
    assert bench.count("retune_reconcile_time_seconds_count") == 3
    assert await bench.after(10_000) is None


async def test_a_pass_that_wants_another_look_gets_it_then() -> None:
    """Not before."""
    bench = Bench((False, 30.0))
    await bench.worker(KEY)
    assert await bench.after(29) is None
    assert await bench.after(1) == KEY


async def test_a_server_that_asks_to_be_left_alone_is_left_alone() -> None:
    """For as long as it said; the pass is repeated then."""
    bench = Bench(Transient("too many requests", retry_after=45))
    await bench.worker(KEY)
    assert bench.count("retune_reconcile_errors_total") == 1
    assert await bench.after(44) is None
    assert await bench.after(1) == KEY


@pytest.mark.parametrize(
    "error", [Transient("the server is away"), Refused("Forbidden", "no"), ValueError("a mistake")]
)
async def test_whatever_a_pass_fails_of_it_is_repeated_later(error: Exception) -> None:
    """A mistake of ours included: it never reaches the other resources, and the wait grows until a pass succeeds."""
    bench = Bench(error, error, (True, None), error)
    await bench.worker(KEY)
    assert await bench.after(0.5) == KEY
    bench.queue.done(KEY)
    await bench.worker(KEY)
    assert await bench.after(0.5) is None
    assert await bench.after(0.5) == KEY
    bench.queue.done(KEY)
    await bench.worker(KEY)
    await bench.worker(KEY)
    assert await bench.after(0.5) == KEY
    assert bench.count("retune_reconcile_total", result="error") == 3


async def test_trouble_of_the_server_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """It would fill the log; a mistake of ours is told every time, with where it was made."""
    trouble, mistake = Transient("the server is away"), ValueError("a mistake")
    bench = Bench(trouble, trouble, (True, None), mistake, mistake)
    with caplog.at_level(logging.DEBUG, logger="retune"):
        for _ in range(5):
            await bench.worker(KEY)
    told = [(record.levelname, bool(record.exc_info)) for record in caplog.records]
    assert told == [("WARNING", False), ("DEBUG", False), ("WARNING", True), ("WARNING", True)]
    assert all(KEY in record.getMessage() for record in caplog.records)
