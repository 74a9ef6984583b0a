"""A part that is played in a thread of its own for as long as a block lasts."""

import threading
from typing import Self


class Background:
    """Calls `play_once` again and again until the block ends; what that raises ends the part."""

    pause = 0.1
    """Seconds between two calls."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def play_once(self) -> None:
        """Do what is due now."""
        raise NotImplementedError

    def _play(self) -> None:
        while not self._stop.wait(self.pause):
            self.play_once()
