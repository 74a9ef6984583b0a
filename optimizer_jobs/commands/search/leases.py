"""Which worker runs which trial. Workers may be killed at any moment, and still exactly the budget of trials is run.

The budget is in the study as waiting trials. A worker takes one of them at a time, and none after a budget of time is
spent. A trial is marked, does not count and is replaced by a new waiting trial when its worker died, handed it back, or
drew a combination that was already tried, and when it came out to run what an earlier trial did. A worker that was
taken for dead and returns cannot record anything, because its trial is finished already.

A worker shows that it is alive by increasing a counter. Others only watch the counter change, and never compare clocks.

In what they decide alone, and where they show that they are alive, is what they share (`sharing.py`).
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from optimizer_jobs.commands.search.sharing import Shared, on_folder
from optimizer_jobs.errors import printable
from optimizer_jobs.progress import say
from optimizer_jobs.seal import study_seal
from optimizer_jobs.stores.base import StoreError
from optimizer_jobs.study.trials import (
    KEY,
    LOST,
    NUMBER,
    RESULT,
    SEALED,
    UNCHANGED,
    TrialResult,
    constrain,
    counted,
    known,
    record,
)

LEASE_SECONDS = 60.0
"""A worker whose counter has not changed for this long is taken for dead."""

_OWNER, _TICKET, _REPEATS, _DEATHS = "owner", "ticket", "repeats", "deaths"
MOST_DEATHS = 2
"""A trial counts as failed when this many workers died while they ran it; it probably needs too much memory."""
UNCHANGED_A_TRIAL = 3
"""Trials that need not count, for each trial of the budget; more of them count, so that a search ends."""


class Drawn(Protocol):
    """The combination that a trial stands for."""

    @property
    def key(self) -> str:
        """A text that is the same for all trials of the same combination."""

    @property
    def words(self) -> str:
        """The combination in words."""


Draw = Callable[[Trial], Drawn]
"""Draws the parameters of a trial, and returns its combination."""
Fresh = Callable[[set[str]], Mapping[str, Any] | None]
"""Returns trial parameters for a combination whose key is not in the set, or None when none is left."""


@dataclass(frozen=True)
class Worker:
    """One process of a worker: a restarted worker has the same index and a new life."""

    index: int
    life: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def owner(self) -> str:
        """`INDEX/LIFE`, as trials name it."""
        return f"{self.index}/{self.life}"


class Leases:
    """Takes trials of a study for one worker, records their results and hands them back."""

    def __init__(
        self,
        study: optuna.Study,
        worker: Worker,
        *,
        journal: Path | None = None,
        shared: Shared | None = None,
        budget: int,
        first: Sequence[Mapping[str, Any]] = (),
        lease_seconds: float = LEASE_SECONDS,
        closed: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Open the leases of a study for one worker.

        Args:
            study: The study.
            worker: The worker.
            journal: Path of the study's journal on a shared folder; a lock file lies beside it.
            shared: What workers share that share no folder; then there need be no journal.
            budget: Number of trials to run.
            first: Trial parameters to run before any are sampled.
            lease_seconds: Time without a sign of life after which a worker is taken for dead.
            closed: Returns why no further trial may start, or None.

        Raises:
            ValueError: Neither a journal nor anything shared is given.
        """
        if shared is None and journal is None:
            raise ValueError("workers share a journal on a folder, or something else")
        self._study, self._worker, self._budget, self._first = study, worker, budget, first
        shared = shared or on_folder(study, Path(str(journal)))
        self._section, self._pulse, self._beat = shared.section, shared.pulse, shared.beat_seconds
        self._takes_ahead, self._ahead = shared.takes_ahead, cast("Trial | None", None)
        self._lease, self._closed = lease_seconds, closed
        self._seen: dict[str, tuple[Any, float]] = {}

    def take(self, draw: Draw, fresh: Fresh) -> Trial | None:
        """Return a trial with drawn parameters, or None when no trial is waiting; others may still be running."""
        taken: Trial | Literal[False] | None = self._ahead or False
        self._ahead = None
        while taken is False:
            taken = self._section.alone(partial(self._take, draw, fresh))
        return taken

    def _take(self, draw: Draw, fresh: Fresh) -> Trial | Literal[False] | None:
        """Return a trial, None when none may be taken, or False when the one that was taken had to be replaced."""
        self._bury()
        if self._closed() is not None:
            return None
        self._refill()
        if not self._states(TrialState.WAITING):
            return None
        trial = self._study.ask()
        trial.set_user_attr(_OWNER, self._worker.owner)
        return self._accept(trial, draw, fresh) and trial

    def workers(self) -> int:
        """Return how many workers have taken a trial; one that was restarted counts once."""
        trials = self._study.get_trials(deepcopy=False)
        owners = {str(trial.user_attrs[_OWNER]) for trial in trials if _OWNER in trial.user_attrs}
        return len({owner.split("/", maxsplit=1)[0] for owner in owners})

    def number(self, trial: Trial) -> int:
        """Return the trial's number for people, from 1 to the budget; no two counted trials share a number."""
        return int(trial.user_attrs[NUMBER])

    def repeats(self, trial: Trial) -> bool:
        """Return whether the trial's combination was tried before; this happens only when no other is left."""
        return bool(trial.user_attrs.get(_REPEATS))

    def finished(self) -> bool:
        """Return whether all trials of the budget are finished, or no trial may start and none is running."""
        if sum(trial.state.is_finished() for trial in counted(self._study)) >= self._budget:
            return True
        return self._closed() is not None and not self._states(TrialState.RUNNING)

    def tell(
        self,
        trial: Trial,
        result: TrialResult,
        *,
        state: TrialState,
        counts: bool = True,
        then: tuple[Draw, Fresh] | None = None,
    ) -> bool:
        """Record the end of a trial; return False when another worker took it over and nothing was recorded.

        Args:
            trial: The trial.
            result: Its result.
            state: How it ended.
            counts: Whether it spends the budget. If not, another trial takes its place.
            then: How the next trial is drawn. Where that saves requests it is taken in the same decision, and `take`
                returns it, or `release` hands it back.
        """
        spends = counts or len(self._unchanged()) >= UNCHANGED_A_TRIAL * self._budget
        record = partial(self._tell if spends else self._tell_unchanged, trial, result, state=state)
        if self._takes_ahead and then is not None:
            try:
                recorded, self._ahead = self._section.alone(partial(self._tell_and_take, record, *then))
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - it must not cost the result; `take` meets and raises it again
                say(f"the next trial is not taken at once: {printable(str(error), limit=200)}")
            else:
                return recorded
        return self._section.at_once(record) if spends else self._section.alone(record)

    def _tell_and_take(self, record: Callable[[], bool], draw: Draw, fresh: Fresh) -> tuple[bool, Trial | None]:
        recorded = record()
        return recorded, self._take(draw, fresh) or None

    def release(self, reason: str) -> None:
        """Hand back a trial that was taken ahead, if there is one."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self.hand_back(ahead, reason)

    def _tell_unchanged(self, trial: Trial, result: TrialResult, *, state: TrialState) -> bool:
        self._study.set_user_attr(f"{UNCHANGED}{trial.number}", result.reason)
        recorded = self._tell(trial, result, state=state)
        if recorded:
            self._enqueue(trial.user_attrs[_TICKET], {})
        return recorded

    def _unchanged(self) -> list[str]:
        return [name for name in self._study.user_attrs if name.startswith(UNCHANGED)]

    def _tell(self, trial: Trial, result: TrialResult, *, state: TrialState) -> bool:
        try:
            recorded = record(result)
            trial.set_user_attr(RESULT, recorded)
            trial.set_user_attr(SEALED, study_seal().of(recorded))
            constrain(trial, result)
            self._study.tell(trial, result.costs if state is TrialState.COMPLETE else None, state=state)
        except (UpdateFinishedTrialError, ValueError):
            if self._current(trial.number).state.is_finished():
                return False
            raise
        return True

    def note(self, trial: Trial, attributes: Mapping[str, Any]) -> None:
        """Set user attributes of a trial together."""

        def body() -> None:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)

        self._section.at_once(body)

    def hand_back(self, trial: Trial, reason: str) -> None:
        """Put a trial that cannot be finished here back, with its parameters, for any worker to run."""
        self._section.alone(partial(self._put_back, trial, reason))

    def _put_back(self, trial: Trial, reason: str) -> None:
        current = self._current(trial.number)
        if not current.state.is_finished():
            self._replace(current, reason, params=trial.params)

    @contextmanager
    def alive(self, *, also: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Until the block ends, a thread regularly shows that this worker is alive, and calls `also`."""
        done = threading.Event()

        def beat() -> None:
            for number in count(1):
                with suppress(OSError, StoreError):  # the store may be full or away for a while; the next may succeed
                    self._pulse.show(self._worker.owner, number)
                    also()
                if done.wait(min(self._beat, self._lease / 4)):
                    return

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _accept(self, trial: Trial, draw: Draw, fresh: Fresh) -> bool:
        """Draw a trial's parameters; return False when the trial was replaced.

        It is replaced when it is beyond the budget, or when its combination was tried and an untried one is left.
        """
        if not trial.user_attrs.get(_TICKET):
            self._replace(self._current(trial.number), "beyond the budget", params=None)
            return False
        drawn, present = draw(trial), counted(self._study)
        tried = {other.user_attrs[KEY] for other in known(self._study) if KEY in other.user_attrs}
        if drawn.key in tried:
            untried = fresh(tried)
            if untried is not None:
                self._replace(self._current(trial.number), "combination already tried", params=untried)
                return False
            trial.set_user_attr(_REPEATS, True)  # noqa: FBT003 - the library's own signature
        taken = {other.user_attrs[NUMBER] for other in present if NUMBER in other.user_attrs}
        trial.set_user_attr(NUMBER, next(number for number in count(1) if number not in taken))
        trial.set_user_attr(RESULT, record(TrialResult(plan=drawn.words)))
        trial.set_user_attr(KEY, drawn.key)
        return True

    def _refill(self) -> None:
        """Add the waiting trials that are missing from the budget, those to run first before the others."""
        present = counted(self._study)
        started = {trial.user_attrs[_TICKET] for trial in present if _TICKET in trial.user_attrs}
        for slot in range(1, self._budget + 1):
            if slot not in started:
                self._enqueue(slot, self._first[slot - 1] if slot <= len(self._first) else {})

    def _enqueue(self, slot: int, params: Mapping[str, Any], *, deaths: int = 0) -> None:
        self._study.enqueue_trial(dict(params), user_attrs={_TICKET: slot, _DEATHS: deaths})

    def _bury(self) -> None:
        """Replace the running trials of dead workers, and complete replacements that were interrupted."""
        marked = self._study.user_attrs
        running = self._states(TrialState.RUNNING)
        signs = self._pulse.seen() if running else {}
        for trial in running:
            deaths = int(trial.user_attrs.get(_DEATHS, 0)) + 1
            if f"{LOST}{trial.number}" in marked:
                self._replace(trial, marked[f"{LOST}{trial.number}"], params=trial.params)
            elif self._dead(trial, signs) and deaths >= MOST_DEATHS:
                self._fail(trial.number)
            elif self._dead(trial, signs):
                owner = trial.user_attrs.get(_OWNER, "unknown")
                self._replace(trial, f"worker {owner} died", params=trial.params, deaths=deaths)

    def _dead(self, trial: FrozenTrial, signs: Mapping[str, object]) -> bool:
        """Return whether a running trial's worker is dead: an earlier life of this worker, or silent for too long."""
        owner = str(trial.user_attrs.get(_OWNER, ""))
        if owner == self._worker.owner:
            return False
        if owner.split("/", maxsplit=1)[0] == str(self._worker.index):
            return True
        subject, beat, now = owner or f"trial {trial.number}", signs.get(owner), time.monotonic()
        last, since = self._seen.get(subject, (None, now))
        self._seen[subject] = (beat, now if beat != last else since)
        return now - self._seen[subject][1] > self._lease

    def _replace(self, trial: FrozenTrial, reason: str, *, params: Mapping[str, Any] | None, deaths: int = 0) -> None:
        """Mark a trial as not counting, and add a waiting trial with `params` in its place; None adds none."""
        self._study.set_user_attr(f"{LOST}{trial.number}", reason)
        if not self._fail(trial.number):
            return
        slot = trial.user_attrs.get(_TICKET)
        if params is not None and slot is not None:
            self._enqueue(slot, params, deaths=deaths)

    def _fail(self, number: int) -> bool:
        """End a trial as failed; return False when its worker has finished it in the meantime."""
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
