"""The work queue: keys of resources to look at, no key twice, no key by two workers at a time, some of them later.

It knows nothing of the resources. An event says only that a key is due; what is to be done is read from their state.
"""

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

FIRST_BACKOFF = 0.5
"""Seconds before a failed key is tried again the first time."""
LAST_BACKOFF = 300.0
"""Longest wait between tries."""
_EVENT_BACKOFF = 5.0
"""Longest that a failure keeps new events waiting: a corrected spec is looked at soon, an event storm is not."""


class Queue:
    """Hands out keys when they are due, without duplicates, and one at a time for each key."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._heap: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}
        self._running: dict[str, float] = {}
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._held_until: dict[str, float] = {}
        self._order = itertools.count()
        self._sleepers: deque[asyncio.Event] = deque()
        self._closed = False

    def add(self, key: str, *, delay: float = 0.0) -> None:
        """Make a key due; an earlier time at which it is due already stays.

        Args:
            key: The resource, as `namespace/name`.
            delay: Seconds until it is due.
        """
        due = max(self._clock() + delay, self._held_until.get(key, 0.0))
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._push(key, due)

    def succeeded(self, key: str) -> None:
        """Forget a key's failures."""
        self._failures.pop(key, None)
        self._held_until.pop(key, None)

    def failed(self, key: str, *, retry_after: float | None = None) -> float:
        """Make a key due again after a wait that doubles with each failure in a row; returns the wait in seconds.

        Args:
            key: The resource, as `namespace/name`.
            retry_after: Seconds that the API server asked to be left alone, which the wait is never shorter than.
        """
        count = self._failures[key] = self._failures.get(key, 0) + 1
        wait = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(count - 1, 20))
        wait = max(wait * (0.5 + self._jitter() / 2), retry_after or 0.0)
        held_until = self._held_until[key] = self._clock() + max(min(wait, _EVENT_BACKOFF), retry_after or 0.0)
        if self._due.get(key, held_until) < held_until:  # an event came while the key was looked at
            self._due[key] = held_until
            self._push(key, held_until)
        self.add(key, delay=wait)
        return wait

    def failures(self, key: str) -> int:
        """Return how often a key has failed in a row."""
        return self._failures.get(key, 0)

    def close(self) -> None:
        """Hand out nothing more; what runs may finish."""
        self._closed = True
        for sleeper in self._sleepers:
            sleeper.set()

    async def take(self) -> str | None:
        """Return the next due key and mark it as running; None once the queue is closed."""
        while not self._closed:
            key = self._pop()
            if key is not None:
                self._wake_one()  # for what else is due, or to mind the clock in this taker's place
                return key
            await self._wait()
        return None

    def done(self, key: str) -> None:
        """Let the key be handed out again."""
        del self._running[key]
        if key in self._again:
            self._again.discard(key)
            self._push(key, self._due[key])

    def _push(self, key: str, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._order), key))
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [item for item in self._heap if self._due.get(item[2]) == item[0]]
            heapq.heapify(self._heap)
        self._wake_one()

    def _wake_one(self) -> None:
        """Wake one waiting taker where there is something to wait for; waking all would cost more than most passes."""
        if self._heap and self._sleepers:
            self._sleepers.popleft().set()

    def _pop(self) -> str | None:
        """Return a key that is due, marked as running; one that runs already is set aside until it is done."""
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue  # replaced by an earlier time
            if key in self._running:
                self._again.add(key)
                continue
            del self._due[key]
            self._running[key] = now
            return key
        return None

    async def _wait(self) -> None:
        """Sleep until woken or until the next key is due."""
        timeout = max(0.0, self._heap[0][0] - self._clock()) if self._heap else None
        sleeper = asyncio.Event()
        self._sleepers.append(sleeper)
        try:
            async with asyncio.timeout(timeout):
                await sleeper.wait()
        except TimeoutError:
            return
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    @property
    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        now = self._clock()
        return sum(1 for key, due in self._due.items() if due <= now and key not in self._running)

    @property
    def oldest_age(self) -> float:
        """Seconds that the longest waiting due key has been due."""
        now = self._clock()
        waiting = [due for key, due in self._due.items() if key not in self._running]
        return max(0.0, now - min(waiting, default=now))

    @property
    def longest_pass(self) -> float:
        """Seconds that the longest running key has been running."""
        now = self._clock()
        return now - min(self._running.values(), default=now)

    @property
    def active(self) -> int:
        """Keys that are being worked on."""
        return len(self._running)


async def work(queue: Queue, handle: Callable[[str], Awaitable[None]], *, workers: int) -> None:
    """Hand out keys until the queue is closed.

    Args:
        queue: Where the keys come from.
        handle: Looks at one key, and settles its own errors.
        workers: Keys looked at in parallel.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_worker(queue, handle))


async def _worker(queue: Queue, handle: Callable[[str], Awaitable[None]]) -> None:
    while (key := await queue.take()) is not None:
        try:
            await handle(key)
        finally:
            queue.done(key)
