"""The work queue: what is handed out, when, and to how many at a time."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from retune.work_queue import FIRST_BACKOFF, LAST_BACKOFF, Queue, work


class Clock:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def a_queue(*, jitter: float = 1.0) -> tuple[Queue, Clock]:
    """A queue on a clock of its own."""
    clock = Clock()
    return Queue(clock=clock, jitter=lambda: jitter), clock


async def taken(queue: Queue) -> str | None:
    """What is due right now, or None."""
    try:
        async with asyncio.timeout(0.02):
            return await queue.take()
    except TimeoutError:
        return None


async def test_a_key_added_many_times_is_handed_out_once() -> None:
    """Events of one resource melt into one pass."""
    queue, _ = a_queue()
    for _ in range(50):
        queue.add("ml/a")
    assert queue.depth == 1
    assert await taken(queue) == "ml/a"
    queue.done("ml/a")
    assert await taken(queue) is None


async def test_a_running_key_is_not_handed_out_again_until_it_is_done() -> None:
    """Two workers never look at the same resource at once, and an event in between is not lost."""
    queue, _ = a_queue()
    queue.add("ml/a")
    assert await taken(queue) == "ml/a"
    queue.add("ml/a")
    assert await taken(queue) is None
    queue.done("ml/a")
    assert await taken(queue) == "ml/a"


async def test_a_delayed_key_comes_when_its_time_has_come() -> None:
    """A look later is not a look now."""
    queue, clock = a_queue()
    queue.add("ml/a", delay=30)
    assert await taken(queue) is None
    clock.now += 30
    assert await taken(queue) == "ml/a"


async def test_the_earlier_of_two_times_counts() -> None:
    """An event does not wait for a later look, and a later look does not put an event off."""
    queue, clock = a_queue()
    queue.add("ml/a", delay=600)
    queue.add("ml/a", delay=1)
    queue.add("ml/a", delay=300)
    clock.now += 1
    assert await taken(queue) == "ml/a"
    queue.done("ml/a")
    clock.now += 1000
    assert await taken(queue) is None


async def test_failures_wait_twice_as_long_each_time_up_to_a_limit() -> None:
    """An ailing API server is asked ever less often, never less than once in five minutes."""
    queue, _ = a_queue()
    waits = [queue.failed("ml/a") for _ in range(20)]
    assert waits[:4] == [FIRST_BACKOFF, 2 * FIRST_BACKOFF, 4 * FIRST_BACKOFF, 8 * FIRST_BACKOFF]
    assert waits[-1] == LAST_BACKOFF


@given(jitter=st.floats(0, 1), failures=st.integers(1, 40))
def test_jitter_spreads_a_wait_between_half_of_it_and_all_of_it(jitter: float, failures: int) -> None:
    """Many resources that failed together do not come back together, nor too early."""
    queue = Queue(clock=Clock(), jitter=lambda: jitter)
    waits = [queue.failed("ml/a") for _ in range(failures)]
    full = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** (failures - 1))
    assert full / 2 <= waits[-1] <= full


async def test_success_forgets_failures() -> None:
    """The next trouble starts from the shortest wait."""
    queue, _ = a_queue()
    for _ in range(5):
        queue.failed("ml/a")
    queue.succeeded("ml/a")
    assert queue.failed("ml/a") == FIRST_BACKOFF


async def test_a_server_that_asks_for_time_gets_it_whatever_happens() -> None:
    """Retry-After holds back events too."""
    queue, clock = a_queue()
    queue.failed("ml/a", retry_after=60)
    queue.add("ml/a")
    clock.now += 59
    assert await taken(queue) is None
    clock.now += 1
    assert await taken(queue) == "ml/a"


async def test_an_event_during_the_pass_that_was_refused_waits_too() -> None:
    """Fault 6: the server asked for time while an event was waiting for the pass to end."""
    queue, clock = a_queue()
    queue.add("ml/a")
    assert await taken(queue) == "ml/a"
    queue.add("ml/a")
    assert await taken(queue) is None
    queue.failed("ml/a", retry_after=60)
    queue.done("ml/a")
    assert await taken(queue) is None
    clock.now += 60
    assert await taken(queue) == "ml/a"
    queue.done("ml/a")
    assert await taken(queue) is None


async def test_an_event_cuts_a_long_wait_short_but_not_to_nothing() -> None:
    """A corrected spec is looked at in seconds, though a storm of events on a failing key stays bounded."""
    queue, clock = a_queue()
    for _ in range(12):
        queue.failed("ml/a")
    queue.add("ml/a")
    assert await taken(queue) is None
    clock.now += 5
    assert await taken(queue) == "ml/a"


async def test_ages_speak_of_what_waits_and_of_what_runs() -> None:
    """Metrics and health can tell a queue that is stuck."""
    queue, clock = a_queue()
    queue.add("ml/a")
    clock.now += 7
    queue.add("ml/b")
    queue.add("ml/later", delay=100)
    assert (queue.depth, queue.oldest_age, queue.active) == (2, 7.0, 0)
    assert await taken(queue) == "ml/a"
    clock.now += 3
    assert (queue.depth, queue.oldest_age, queue.active, queue.longest_pass) == (1, 3.0, 1, 3.0)


async def test_a_storm_of_events_does_not_grow_memory() -> None:
    """A key that keeps being due anew leaves no trail of outdated times."""
    queue, clock = a_queue()
    for _ in range(5000):
        queue.add("ml/a", delay=600)
        queue.add("ml/a")
        assert await queue.take() == "ml/a"
        queue.done("ml/a")
        clock.now += 0.1
    assert len(queue._heap) < 200


async def test_workers_share_the_keys_and_stop_when_the_queue_closes() -> None:
    """No more than the given number of passes run at once, every key gets its pass, and closing waits for them."""
    queue, seen = Queue(), list[str]()
    running, most, finished = 0, 0, asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        seen.append(key)
        if len(seen) == 40:
            finished.set()

    for number in range(40):
        queue.add(f"ml/{number}")
    workers = asyncio.create_task(work(queue, handle, workers=4))
    await finished.wait()
    queue.close()
    await workers
    assert sorted(seen) == sorted(f"ml/{number}" for number in range(40))
    assert most == 4


async def test_one_key_wakes_one_worker() -> None:
    """An event among many idle workers costs one look at the queue, not one a worker."""
    queue = Queue()
    takers = [asyncio.create_task(queue.take()) for _ in range(8)]
    await asyncio.sleep(0)
    idle = set(queue._sleepers)
    queue.add("ml/a")
    assert len(idle) == 8
    assert len([sleeper for sleeper in idle if sleeper.is_set()]) == 1
    queue.close()
    assert set(await asyncio.gather(*takers)) <= {None, "ml/a"}


@settings(deadline=None, max_examples=25)
@given(delays=st.lists(st.sampled_from([0.0, 0.005, 0.01, 0.02]), min_size=1, max_size=12), workers=st.integers(1, 5))
async def test_every_key_finds_a_worker_without_further_events(delays: list[float], workers: int) -> None:
    """However workers sleep and whoever is woken, no key that has become due is left lying."""
    queue, seen, everything = Queue(), set[str](), asyncio.Event()

    async def handle(key: str) -> None:
        seen.add(key)
        if len(seen) == len(delays):
            everything.set()

    running = asyncio.create_task(work(queue, handle, workers=workers))
    while len(queue._sleepers) < workers:  # noqa: ASYNC110 - turns of the loop, not time
        await asyncio.sleep(0)
    for number, delay in enumerate(delays):
        queue.add(f"ml/{number}", delay=delay)
    async with asyncio.timeout(10):
        await everything.wait()
    queue.close()
    await running
