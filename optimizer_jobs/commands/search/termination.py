"""Hold back SIGTERM while the study is being written, so that every trial is either recorded or handed back."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def termination_held_back() -> Iterator[None]:
    """Deliver a SIGTERM that arrives during the block only at its end. Has no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held_back: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: held_back.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if held_back:
            signal.raise_signal(signal.SIGTERM)
