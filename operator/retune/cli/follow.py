"""Follow one resource until its run has ended: a live view on a terminal, one line for each change everywhere else.

It reads the resource once a second, and so survives a restarted operator and an API server that is away for a while.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Self

from rich.console import Console
from rich.live import Live

from retune.api.objects import ModelOptimization
from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage
from retune.cli import tables
from retune.cli.access import Unreachable

POLL_SECONDS = 1.0
STALLED_SECONDS = 60.0
"""How long a resource may wait for a person before following it ends: a retry may help it sooner."""


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    BAD_OUTCOME = 1
    USAGE = 2
    TIMEOUT = 3
    STALLED = 4
    DECLARED_ELSEWHERE = 5


class Until(StrEnum):
    """What counts as a good end."""

    PROMOTED = "Promoted"
    FINISHED = "Finished"


@dataclass(frozen=True)
class Ending:
    """How following ended."""

    code: Exit
    message: str
    """Why, as a sentence without a full stop."""


def ending(resource: ModelOptimization, *, until: Until, now: datetime) -> Ending | None:
    """Return how the newest run ended, or None while something is under way.

    Args:
        resource: The resource as it is now.
        until: What counts as a good end.
        now: The present time.
    """
    status = resource.status
    if (status.observed_generation or 0) < resource.metadata.generation:
        return None
    if status.stage is Stage.SUSPENDED:
        return Ending(Exit.STALLED, "suspended: set spec.suspend to false to go on")
    if status.stage is Stage.AWAITING_APPROVAL:
        return Ending(Exit.STALLED, status.message or "a version waits for approval")
    stalled = _true_since(resource, ConditionType.STALLED)
    if stalled and (now - stalled).total_seconds() >= STALLED_SECONDS:
        return Ending(Exit.STALLED, f"waits for a person: {status.message}")
    if stalled or _true_since(resource, ConditionType.RECONCILING) or status.stage is None:
        return None
    return _outcome(resource, until)


def _true_since(resource: ModelOptimization, kind: ConditionType) -> datetime | None:
    """Return since when a condition is True; None when it is not."""
    for condition in resource.status.conditions:
        if condition.type == kind and condition.status is ConditionStatus.TRUE:
            return condition.last_transition_time
    return None


def _outcome(resource: ModelOptimization, until: Until) -> Ending:
    last = resource.status.last_run
    if last is None:
        return Ending(Exit.DONE, resource.status.message or "the champion is measured")
    good = last.outcome is Outcome.PROMOTED if until is Until.PROMOTED else last.outcome.successful
    return Ending(Exit.DONE if good else Exit.BAD_OUTCOME, f"{last.name} {last.outcome}: {last.message}")


def line(resource: ModelOptimization) -> str:
    """Return where the resource stands, in one line without a time."""
    status, run = resource.status, resource.status.run
    words = [f"{status.stage or Stage.PENDING:<12}"]
    if run and run.trials.total and status.stage is Stage.OPTIMIZING:
        words.append(f"trial {run.trials.done} of {run.trials.total}")
        words += [f"({run.trials.failed} failed)"] if run.trials.failed else []
        words += [f"best: {run.trials.best}"] if run.trials.best else [status.message or ""]
    else:
        words.append(status.message or "waits for the operator's first look")
    return " ".join(words).rstrip()


def follow(read: Callable[[], ModelOptimization], *, until: Until, timeout: float | None, console: Console) -> Ending:
    """Show what changes until the newest run has ended.

    Args:
        read: Reads the resource.
        until: What counts as a good end.
        timeout: Seconds after which following ends anyway; None without a limit.
        console: Where changes are shown.

    Raises:
        AccessError: The resource cannot be read, and not only because the API server does not answer.
    """
    view = _LiveView(console) if console.is_terminal else _Lines(console)
    deadline = time.monotonic() + timeout if timeout else None
    with view:
        while True:
            now = datetime.now(UTC)
            try:
                resource = read()
            except Unreachable as error:
                view.note(str(error))
            else:
                view.show(resource, now)
                ended = ending(resource, until=until, now=now)
                if ended:
                    return ended
            if deadline and time.monotonic() > deadline:
                return Ending(Exit.TIMEOUT, f"not {until} within {timeout:.0f} s; it goes on without this command")
            time.sleep(POLL_SECONDS)


class _Lines:
    """One line for each change, with the time of day, as it reads well in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.file.flush()

    def show(self, resource: ModelOptimization, now: datetime) -> None:
        """Print the resource's line unless it was the last one printed."""
        self.note(line(resource))

    def note(self, text: str) -> None:
        """Print a line unless it was the last one printed."""
        if text != self._last:
            self._last = text
            self._console.print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", soft_wrap=True, markup=False)


class _LiveView:
    """The resource in full, drawn over itself."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(*sys.exc_info())

    def show(self, resource: ModelOptimization, now: datetime) -> None:
        """Draw the resource as it is now."""
        self._live.update(tables.picture(resource, now=now), refresh=True)

    def note(self, text: str) -> None:
        """Print a line above the resource."""
        self._live.console.print(text)
