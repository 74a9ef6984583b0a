"""A clock for many workers in one process, which jumps to the next moment at which one of them goes on.

Each worker is a thread, and only one of them runs at a time: where it waits, for a request or for its trial, the clock
goes on to whoever is next. So hours of many workers take minutes, and what happens is the same in each run. What a
thread computes takes no time.
"""

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import TypeVar
from unittest.mock import patch

from optimizer_jobs.commands.search import budget, leases
from optimizer_jobs.stores import base, journal, studies

_EPOCH = 1_800_000_000.0
"""What `time.time` says when the clock is at 0."""
_READERS_OF_TIME: tuple[ModuleType, ...] = (base, journal, studies, leases, budget)
"""Modules of a search in a bucket that read the time, or wait."""

_T = TypeVar("_T")
_S = TypeVar("_S")


class Clock:
    """Time in seconds from 0, for the threads that `run` starts; no other thread may wait on it."""

    def __init__(self) -> None:
        """Set the clock to 0."""
        self._now, self._order = 0.0, count()
        self._waiting: list[tuple[float, int, threading.Semaphore]] = []
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def now(self) -> float:
        """Return the time."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let the others go on until so many seconds have passed."""
        turn = self._turn_at(self._now + max(0.0, seconds))
        self._go_on()
        turn.acquire()

    def run(self, bodies: Iterable[Callable[[], object]]) -> None:
        """Run each in a thread of its own until all have ended; raises the first error that one raised."""
        for body in bodies:
            self.start(body)
        self._go_on()
        self._ended.wait()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def start(self, body: Callable[[], object]) -> None:
        """Have one more thread go on at the present moment; `run` waits for it too."""
        thread = threading.Thread(target=self._run, args=(body, self._turn_at(self._now)), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, body: Callable[[], object], turn: threading.Semaphore) -> None:
        turn.acquire()
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self._errors.append(error)
        finally:
            self._go_on()

    def _turn_at(self, moment: float) -> threading.Semaphore:
        turn = threading.Semaphore(0)
        heapq.heappush(self._waiting, (moment, next(self._order), turn))
        return turn

    def _go_on(self) -> None:
        if not self._waiting:
            self._ended.set()
            return
        self._now, _, turn = heapq.heappop(self._waiting)
        turn.release()


class _OneAfterAnother:
    """Stands for a pool of threads: what it would do at once is done in a row, and each waits as though alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def map(self, act: Callable[[_S], _T], over: Sequence[_S]) -> list[_T]:
        """Do something with each, which takes as long as the slowest of them."""
        found, waits = [], []
        for one in over:
            waited: list[float] = []
            with patch.object(self._clock, "sleep", waited.append):
                found.append(act(one))
            waits.append(sum(waited))
        self._clock.sleep(max(waits, default=0.0))
        return found


@contextmanager
def told_by(clock: Clock) -> Iterator[None]:
    """Have the modules of a search read this clock, and wait on it, within the block."""
    watch = SimpleNamespace(monotonic=clock.now, sleep=clock.sleep, time=lambda: _EPOCH + clock.now())
    with ExitStack() as stack:
        for module in _READERS_OF_TIME:
            stack.enter_context(patch.object(module, "time", watch))
        stack.enter_context(patch.object(journal, "ThreadPoolExecutor", lambda *_, **__: _OneAfterAnother(clock)))
        yield
