"""What a person sees while Jobs run here: on a terminal the present step, a bar of trials and the newest lines.

Everywhere else every line is printed, with the time of day.
"""

import re
import sys
import threading
from collections import deque
from datetime import datetime
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_STEP = re.compile(r"\[\d+/\d+\] ")
_TRIAL = re.compile(r"trial (\d+)/(\d+)  ")
_KEPT_LINES = 8


class Progress:
    """Shows the lines of any number of processes together. Its methods may be called from several threads.

    Args:
        console: Where it shows them.
        trials: Trials that the search may spend.
    """

    def __init__(self, console: Console, *, trials: int) -> None:
        self._console, self._total = console, trials
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._lock = threading.Lock()
        self._stage, self._step = "", ""
        self._done: set[int] = set()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.__exit__(*sys.exc_info())

    def stage(self, name: str, *, about: str) -> None:
        """Show what comes next and how long it may take, such as `30 s`."""
        with self._lock:
            self._stage, self._step = f"{name} (about {about})", ""
            self._print(f"==> {self._stage}")

    def heard(self, line: str) -> None:
        """Take a line that a Job printed."""
        with self._lock:
            if _STEP.match(line):
                self._step = line
            elif trial := _TRIAL.match(line):
                self._done.add(int(trial[1]))
            self._lines.append(line)
            self._print(line)

    def _print(self, line: str) -> None:
        if self._live:
            self._live.update(self._picture(), refresh=True)
        else:
            stamped = f"{datetime.now().astimezone():%H:%M:%S}  {line}"
            self._console.print(stamped, soft_wrap=True, markup=False, highlight=False)

    def _picture(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text(self._stage, style="bold"), Text(self._step))
        if self._done:
            bar = ProgressBar(total=self._total, completed=len(self._done), width=30)
            grid.add_row(bar, Text(f"{len(self._done)} of {self._total} trials"))
        return Group(grid, *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self._lines))
