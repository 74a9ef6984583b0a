"""Who runs which trial: exactly as many as the budget, across workers that may be killed at any moment.

The budget lies in the study as waiting trials, one per trial to run; a worker only ever takes one of these, and none
once another budget is spent. A trial
whose worker died, handed it back or drew what others already try is marked, does not count, and is replaced by a new
waiting trial. A worker that comes back late from the dead cannot record anything: its trial is finished already.

A worker shows that it lives by a counter in the study that its observers see change; clocks are never compared.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from optimizer_jobs.study.trials import FOUND, KEY, LOST, NUMBER, Found, constrain, counted, record

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
"""A worker whose counter has not moved for this long is taken for dead."""
POLL_SECONDS = 1.0

_OWNER, _TICKET, _REPEATS, _DEATHS = "owner", "ticket", "repeats", "deaths"
MOST_DEATHS = 2
"""A trial that so many workers died of counts as failed: it probably needs more memory than there is."""
_BEAT = "beat:"


class Drawn(Protocol):
    """The combination that a trial stands for."""

    @property
    def key(self) -> str:
        """The same text for the same combination."""

    @property
    def words(self) -> str:
        """The combination in words."""


Draw = Callable[[Trial], Drawn]
"""Samples a trial's parameters."""
Fresh = Callable[[set[str]], Mapping[str, Any] | None]
"""Returns trial parameters for a combination that is not among the keys, or None when there is none left."""


@dataclass(frozen=True)
class Worker:
    """One process of one worker: the index survives a restart, the life does not."""

    index: int
    life: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def owner(self) -> str:
        """`INDEX/LIFE`, as trials name it."""
        return f"{self.index}/{self.life}"


class Leases:
    """Takes trials of a study for one worker and gives them back."""

    def __init__(
        self,
        study: optuna.Study,
        worker: Worker,
        *,
        journal: Path,
        budget: int,
        first: Sequence[Mapping[str, Any]] = (),
        lease_seconds: float = LEASE_SECONDS,
        closed: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`first` are trial parameters to run before anything is sampled; `closed` says why no trial may start."""
        self._study, self._worker, self._budget, self._first = study, worker, budget, first
        self._lock = JournalFileOpenLock(f"{journal}.leases")
        self._lease, self._closed = lease_seconds, closed
        self._seen: dict[str, tuple[Any, float]] = {}

    def take(self, draw: Draw, fresh: Fresh) -> Trial | None:
        """Return a trial with its parameters drawn, or None when none waits; others may still be running."""
        while True:
            with self._locked():
                self._bury()
                if self._closed() is not None:
                    return None
                self._refill()
                if not self._states(TrialState.WAITING):
                    return None
                trial = self._study.ask()
                trial.set_user_attr(_OWNER, self._worker.owner)
                if self._accept(trial, draw, fresh):
                    return trial

    def number(self, trial: Trial) -> int:
        """Return the trial's number for people: 1 to the budget, each once among the trials that count."""
        return int(trial.user_attrs[NUMBER])

    def repeats(self, trial: Trial) -> bool:
        """Return whether the trial's combination was tried before, because no other is left."""
        return bool(trial.user_attrs.get(_REPEATS))

    def finished(self) -> bool:
        """Return whether the whole budget has been spent by whomever, or no trial may start and none is running."""
        if len([trial for trial in counted(self._study) if trial.state.is_finished()]) >= self._budget:
            return True
        return self._closed() is not None and not self._states(TrialState.RUNNING)

    def tell(self, trial: Trial, found: Found, *, state: TrialState) -> bool:
        """Record a trial's end; returns False when it was taken away meanwhile and nothing has been recorded."""
        try:
            trial.set_user_attr(FOUND, record(found))
            constrain(trial, found)
            self._study.tell(trial, found.costs if state is TrialState.COMPLETE else None, state=state)
        except (UpdateFinishedTrialError, ValueError):
            if self._current(trial.number).state.is_finished():
                return False
            raise
        return True

    def hand_back(self, trial: Trial, reason: str) -> None:
        """Return a trial that cannot be finished here, with its parameters, for anyone to run."""
        with self._locked():
            current = self._current(trial.number)
            if not current.state.is_finished():
                self._replace(current, reason, params=trial.params)

    @contextmanager
    def alive(self, *, also: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Show that this worker lives and do what `also` says, from a thread of its own, until the block ends."""
        done = threading.Event()

        def beat() -> None:
            for number in count(1):
                with suppress(OSError):  # the disk may be full for a while; the next beat may be written
                    self._study.set_user_attr(f"{_BEAT}{self._worker.owner}", number)
                    also()
                if done.wait(min(BEAT_SECONDS, self._lease / 4)):
                    return

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _accept(self, trial: Trial, draw: Draw, fresh: Fresh) -> bool:
        """Draw the parameters; a combination that was tried before is replaced by one that was not, if there is any."""
        if not trial.user_attrs.get(_TICKET):
            self._replace(self._current(trial.number), "beyond the budget", params=None)
            return False
        drawn, present = draw(trial), counted(self._study)
        known = {other.user_attrs[KEY] for other in present if KEY in other.user_attrs}
        if drawn.key in known:
            unseen = fresh(known)
            if unseen is not None:
                self._replace(self._current(trial.number), "combination already tried", params=unseen)
                return False
            trial.set_user_attr(_REPEATS, True)  # noqa: FBT003 - the library's own signature
        taken = {other.user_attrs[NUMBER] for other in present if NUMBER in other.user_attrs}
        trial.set_user_attr(NUMBER, next(number for number in count(1) if number not in taken))
        trial.set_user_attr(FOUND, record(Found(plan=drawn.words)))
        trial.set_user_attr(KEY, drawn.key)
        return True

    def _refill(self) -> None:
        """Make up the waiting trials that are missing, those to run first before the others."""
        present = counted(self._study)
        started = {trial.user_attrs[_TICKET] for trial in present if _TICKET in trial.user_attrs}
        for slot in range(1, self._budget + 1):
            if slot not in started:
                self._enqueue(slot, self._first[slot - 1] if slot <= len(self._first) else {})

    def _enqueue(self, slot: int, params: Mapping[str, Any], *, deaths: int = 0) -> None:
        self._study.enqueue_trial(dict(params), user_attrs={_TICKET: slot, _DEATHS: deaths})

    def _bury(self) -> None:
        """Replace the running trials of dead workers, and finish what an interrupted replacement left half done."""
        marked = self._study.user_attrs
        for trial in self._states(TrialState.RUNNING):
            deaths = int(trial.user_attrs.get(_DEATHS, 0)) + 1
            if f"{LOST}{trial.number}" in marked:
                self._replace(trial, marked[f"{LOST}{trial.number}"], params=trial.params)
            elif self._dead(trial, marked) and deaths >= MOST_DEATHS:
                self._fail(trial.number)
            elif self._dead(trial, marked):
                owner = trial.user_attrs.get(_OWNER, "unknown")
                self._replace(trial, f"worker {owner} died", params=trial.params, deaths=deaths)

    def _dead(self, trial: FrozenTrial, attributes: Mapping[str, Any]) -> bool:
        """Return whether a running trial's worker is gone: an earlier life of this one, or silent for a lease."""
        owner = str(trial.user_attrs.get(_OWNER, ""))
        if owner == self._worker.owner:
            return False
        if owner.split("/", maxsplit=1)[0] == str(self._worker.index):
            return True
        subject, beat, now = owner or f"trial {trial.number}", attributes.get(f"{_BEAT}{owner}"), time.monotonic()
        last, since = self._seen.get(subject, (None, now))
        self._seen[subject] = (beat, now if beat != last else since)
        return now - self._seen[subject][1] > self._lease

    def _replace(self, trial: FrozenTrial, reason: str, *, params: Mapping[str, Any] | None, deaths: int = 0) -> None:
        """Mark a trial as not counting and put another with `params` in its place (None: in no place)."""
        self._study.set_user_attr(f"{LOST}{trial.number}", reason)
        if not self._fail(trial.number):
            return
        slot = trial.user_attrs.get(_TICKET)
        if params is not None and slot is not None:
            self._enqueue(slot, params, deaths=deaths)

    def _fail(self, number: int) -> bool:
        """End a trial as failed; returns False when its worker has finished it meanwhile."""
        try:
            self._study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            if not self._current(number).state.is_finished():
                raise
            return False
        return True

    def _states(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _current(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]
