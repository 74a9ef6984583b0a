"""The wall time and CPU time that a search may spend, kept in the study so that a restart does not extend them.

The study records when it was created, and the CPU time of every process of every worker. The first worker that sees a
budget spent records this, and from then on no worker starts a trial.
"""

import math
import resource
import time

import optuna

from optimizer_jobs.technique import StoppedEarlyError
from retune.api.base import seconds
from retune.api.search import Search

ENDED = "ended"
"""User attribute of a study that says which budget ended it."""
_CREATED, _CPU = "created", "cpu:"
_LOOK_SECONDS = 0.5


class BudgetSpentError(StoppedEarlyError):
    """A budget of the search is spent; the running trial is given up."""


class Budget:
    """The budgets of a study, for one worker."""

    def __init__(self, study: optuna.Study, search: Search, *, owner: str) -> None:
        self._study, self._search, self._owner = study, search, owner
        self._looked = 0.0
        if _CREATED not in study.user_attrs:
            study.set_user_attr(_CREATED, time.time())

    def spent(self) -> str | None:
        """Return which budget is spent, in words without a full stop, or None; a spent budget is recorded for all."""
        attributes = self._study.user_attrs
        if ENDED not in attributes:
            reason = self._over(attributes)
            if reason is None:
                return None
            self._study.set_user_attr(ENDED, reason)
            return reason
        return str(attributes[ENDED])

    def left(self) -> float:
        """Return the seconds of wall time that are left; infinite without a limit."""
        duration = self._search.max_duration
        return math.inf if duration is None else max(0.0, seconds(duration) - self._age(self._study.user_attrs))

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
            self._study.set_user_attr(f"{_CPU}{self._owner}", round(cpu_seconds(), 3))

    def _over(self, attributes: dict[str, object]) -> str | None:
        duration, hours = self._search.max_duration, self._search.max_cpu_hours
        if duration is not None and self._age(attributes) >= seconds(duration):
            return f"search.maxDuration of {duration} is spent"
        if hours is not None and self._used(attributes) >= 3600 * float(hours):
            return f"search.maxCpuHours of {hours} is spent"
        return None

    @staticmethod
    def _age(attributes: dict[str, object]) -> float:
        return time.time() - float(str(attributes[_CREATED]))

    def _used(self, attributes: dict[str, object]) -> float:
        """Return the CPU seconds of all processes of all workers, this one's up to now."""
        mine = f"{_CPU}{self._owner}"
        others = [used for name, used in attributes.items() if name.startswith(_CPU) and name != mine]
        return cpu_seconds() + sum(float(str(used)) for used in others)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
