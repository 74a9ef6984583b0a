"""The wall time and CPU time that a search may spend, kept in the study so that a restart does not extend them.

The study records when its first worker began, and the CPU time of every process of every worker. Where the spec sets
no budget, the study has a limit of wall time that was estimated from the model, and again after a first trial. It
counts from the end of the first trial, which also loads libraries that later ones find loaded; what the spec sets is
never changed, and counts from the beginning. Time in which no worker runs, as while a queue has taken the Job's pods
back, does not count. The first worker that sees a budget spent records this with the number of trials that were done,
and from then on no worker starts a trial.
"""

import math
import resource
import time

import optuna
from optuna.trial import TrialState

from optimizer_jobs.progress import duration_words
from optimizer_jobs.study.trials import ENDED, counted
from optimizer_jobs.technique import StoppedEarlyError
from retune.api.base import seconds
from retune.api.search import Search

_CREATED, _LIMIT, _LENGTHENED, _CPU = "created", "limit", "lengthened", "cpu:"
_FIRST_ENDED, _PAUSED, _SLOWED = "first_ended", "paused:", "slowed"
_PAUSE_SECONDS = 30.0
"""Shortest time without a worker that is taken for a pause."""
_PATIENCE = 10.0
"""Multiple of an estimated limit after which even a first trial is given up."""
_LOOK_SECONDS = 0.5
_NOTED_SHARE = 0.01
"""Share of the budget of CPU time after which a worker tells the others what it has used."""


class BudgetSpentError(StoppedEarlyError):
    """A budget of the search is spent; the running trial is given up."""


class Budget:
    """The budgets of a study, for one worker."""

    def __init__(
        self,
        study: optuna.Study,
        search: Search,
        *,
        owner: str,
        began: float | None = None,
        estimated: float | None = None,
        trials: int | None = None,
        workers: int = 1,
    ) -> None:
        """Open the budgets of a study; the first worker to do so fixes when they begin.

        Args:
            study: The study.
            search: The search of the spec.
            owner: The worker, as trials name it.
            began: When this worker began, in seconds since 1970; None means now.
            estimated: Limit of wall time in seconds where the spec sets no budget; None sets none.
            trials: Number of trials in all; None means those of the spec.
            workers: Workers that the limit was estimated for. After a pause there may be one alone.
        """
        self._study, self._search, self._owner = study, search, owner
        self._trials = search.max_trials if trials is None else trials
        self._looked, self._noted = 0.0, 0.0
        if _CREATED not in study.user_attrs:
            study.set_user_attr(_CREATED, time.time() if began is None else began)
        unlimited = search.max_duration is None and search.max_cpu_hours is None
        if unlimited and estimated is not None and _LIMIT not in study.user_attrs:
            study.set_user_attr(_LIMIT, estimated)
        if self._note_pause(time.time() if began is None else began) and unlimited:
            study.set_user_attr(_SLOWED, workers)

    def _note_pause(self, began: float) -> bool:
        """Record since when nobody has worked, where this worker ends a pause; return whether it does.

        Workers that begin together record the same pause. One that was killed in a trial has left no sign of when, so
        a pause after that counts.
        """
        trials = self._study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.RUNNING for trial in trials):
            return False
        moments = [moment for trial in trials for moment in (trial.datetime_start, trial.datetime_complete) if moment]
        counted_from = float(str(self._study.user_attrs.get(_FIRST_ENDED, 0)))
        last = max((counted_from, *(moment.timestamp() for moment in moments))) or began
        if began - last < _PAUSE_SECONDS:
            return False
        self._study.set_user_attr(f"{_PAUSED}{last!r}", round(began - last, 3))
        return True

    def spent(self) -> str | None:
        """Return which budget is spent, in words without a full stop, or None; a spent budget is recorded for all."""
        attributes = self._study.user_attrs
        if ENDED not in attributes:
            budget = self._over(attributes)
            if budget is None:
                return None
            done = sum(trial.state.is_finished() for trial in counted(self._study))
            reason = f"the budget of {budget} ended after {done} of {self._trials} trials"
            self._study.set_user_attr(ENDED, reason)
            return reason
        return str(attributes[ENDED])

    def first_ended(self) -> None:
        """Have an estimated limit count from now on; called whenever a trial has ended, it heeds the first."""
        attributes = self._study.user_attrs
        if _LIMIT in attributes and _FIRST_ENDED not in attributes:
            self._study.set_user_attr(_FIRST_ENDED, time.time())

    def lengthen(self, limit: float) -> bool:
        """Raise an estimated limit of wall time to `limit` seconds, once in a study; return whether that is longer."""
        attributes = self._study.user_attrs
        if self._search.max_duration is not None or _LIMIT not in attributes or _LENGTHENED in attributes:
            return False
        longer = limit > float(str(attributes[_LIMIT]))
        self._study.set_user_attr(_LENGTHENED, longer)
        if longer:
            self._study.set_user_attr(_LIMIT, limit)
        return longer

    def left(self) -> float:
        """Return the seconds of wall time that are left; infinite without a limit."""
        attributes = self._study.user_attrs
        return max(0.0, self._limit(attributes) - self._age(attributes))

    def check(self) -> None:
        """Raise BudgetSpentError when a budget is spent; reads the study at most twice a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        reason = self.spent()
        if reason is not None:
            raise BudgetSpentError(f"given up: {reason}")

    def account(self) -> None:
        """Record the CPU time of this process and of its children that ended."""
        if self._search.max_cpu_hours is not None:
            self._noted = cpu_seconds()
            self._study.set_user_attr(f"{_CPU}{self._owner}", round(self._noted, 3))

    def look(self) -> str | None:
        """Return what `spent` does, after telling the other workers of CPU time worth telling."""
        hours = self._search.max_cpu_hours
        if hours is not None and cpu_seconds() - self._noted > _NOTED_SHARE * 3600 * float(hours):
            self.account()
        return self.spent()

    def _over(self, attributes: dict[str, object]) -> str | None:
        """Return the budget that is spent, in words with its field of the spec."""
        hours = self._search.max_cpu_hours
        limit = self._limit(attributes)
        if self._age(attributes) >= limit * (_PATIENCE if self._before_first(attributes) else 1.0):
            named = "search.maxDuration" if self._search.max_duration else "set search.maxDuration for another"
            return f"{duration_words(limit)} ({named})"
        if hours is not None and self._used(attributes) >= 3600 * float(hours):
            return f"{hours} CPU hours (search.maxCpuHours)"
        return None

    def _limit(self, attributes: dict[str, object]) -> float:
        """Return the wall time of the search in seconds; infinite without a limit."""
        duration = self._search.max_duration
        if duration is not None:
            return seconds(duration)
        return float(str(attributes.get(_LIMIT, math.inf))) * float(str(attributes.get(_SLOWED, 1)))

    @staticmethod
    def _before_first(attributes: dict[str, object]) -> bool:
        return _LIMIT in attributes and _FIRST_ENDED not in attributes

    @staticmethod
    def _age(attributes: dict[str, object]) -> float:
        """Return the seconds since the beginning in which somebody has worked."""
        began = float(str(attributes.get(_FIRST_ENDED, attributes[_CREATED])))
        pauses = {name: float(str(length)) for name, length in attributes.items() if name.startswith(_PAUSED)}
        paused = sum(length for name, length in pauses.items() if float(name.removeprefix(_PAUSED)) >= began)
        return time.time() - began - paused

    def _used(self, attributes: dict[str, object]) -> float:
        """Return the CPU seconds of all processes of all workers, this one's up to now."""
        mine = f"{_CPU}{self._owner}"
        others = [used for name, used in attributes.items() if name.startswith(_CPU) and name != mine]
        return cpu_seconds() + sum(float(str(used)) for used in others)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
