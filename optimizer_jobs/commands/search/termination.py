"""Signals that raise in the main thread, and when they may.

SIGTERM stops a worker. SIGALRM gives a trial up when a budget is spent, wherever it is in Python, so that no library
has to ask for the time. Both are held back while the study is being read or written, so that every trial is either
recorded or handed back, no lock stays locked, and no worker remembers half of what it was reading. A single call into a
library's compiled code is never interrupted.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from optimizer_jobs.commands.search.budget import BudgetSpentError
from optimizer_jobs.stores.base import StoreError
from optimizer_jobs.technique import StoppedEarlyError

LOOK_SECONDS = 0.5
_AGAIN_SECONDS = 1.0
"""A trial that goes on, because some library caught the exception, is interrupted again after this time."""


@contextmanager
def termination_held_back() -> Iterator[None]:
    """Deliver signals that arrive during the block only at its end. Has no effect outside the main thread."""
    if not _in_main_thread():
        yield
        return
    held_back: list[int] = []
    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGALRM)
    handlers = {number: signal.signal(number, lambda arrived, _: held_back.append(arrived)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrived in dict.fromkeys(held_back):
            signal.raise_signal(arrived)


@contextmanager
def given_up_when(spent: Callable[[], str | None]) -> Iterator[None]:
    """Raise BudgetSpentError in the block when a budget is spent. Has no effect outside the main thread.

    Args:
        spent: Returns which budget is spent, in words, or None; a thread calls it twice a second.
    """
    if not _in_main_thread():
        yield
        return
    overseer = _Overseer(spent)
    overseer.begin()
    try:
        yield
    except StoppedEarlyError:
        raise
    except Exception as error:
        if overseer.reason is not None:  # a library made an error of its own of the interruption
            raise overseer.interruption() from error
        raise
    finally:
        overseer.end()


class _Overseer:
    """A thread that looks at the budgets, and the handler in the main thread that it wakes."""

    def __init__(self, spent: Callable[[], str | None]) -> None:
        self._spent = spent
        self.reason: str | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="budget", daemon=True)

    def begin(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._interrupt)
        self._thread.start()

    def interruption(self) -> BudgetSpentError:
        return BudgetSpentError(f"given up: {self.reason}")

    def end(self) -> None:
        """Stop looking; a signal that is under way does nothing any more."""
        while not self._done.is_set():
            with suppress(BudgetSpentError):
                self._done.set()
        signal.signal(signal.SIGALRM, lambda *_: None)
        self._thread.join()
        signal.signal(signal.SIGALRM, self._before)

    def _look(self) -> None:
        main = threading.main_thread().ident
        wait = LOOK_SECONDS
        while main is not None and not self._done.wait(wait):
            with suppress(OSError, StoreError):  # the store may be full or away for a while; the next may succeed
                self.reason = self.reason or self._spent()
            if self.reason is not None:
                signal.pthread_kill(main, signal.SIGALRM)
                wait = _AGAIN_SECONDS

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._done.is_set():
            raise self.interruption()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
