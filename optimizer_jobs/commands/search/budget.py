"""What a search may spend besides trials: wall time and CPU time, kept in the study so that no restart extends it.

The study says when it was created and what every life of every worker has used. The first worker that sees a budget
spent writes so, and from then on nobody starts a trial.
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
    """The search may not spend any more; the trial under way is given up."""


class Budget:
    """The budgets of a study as one worker sees them."""

    def __init__(self, study: optuna.Study, search: Search, *, owner: str) -> None:
        self._study, self._search, self._owner = study, search, owner
        self._looked = 0.0
        if _CREATED not in study.user_attrs:
            study.set_user_attr(_CREATED, time.time())

    def spent(self) -> str | None:
        """Return which budget is spent, as words without a full stop; said once, it stays so for all workers."""
        known = self._study.user_attrs
        if ENDED not in known:
            reason = self._over(known)
            if reason is None:
                return None
            self._study.set_user_attr(ENDED, reason)
            return reason
        return str(known[ENDED])

    def left(self) -> float:
        """Return the seconds of wall time that are left; infinite without a limit."""
        duration = self._search.max_duration
        return math.inf if duration is None else max(0.0, seconds(duration) - self._age(self._study.user_attrs))

    def check(self) -> None:
        """Raise BudgetSpentError when a budget is spent; looks at most twice a second, however often it is asked."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        reason = self.spent()
        if reason is not None:
            raise BudgetSpentError(f"given up: {reason}")

    def account(self) -> None:
        """Write down the CPU time that this process has used, itself and its children that ended."""
        if self._search.max_cpu_hours is not None:
            self._study.set_user_attr(f"{_CPU}{self._owner}", round(cpu_seconds(), 3))

    def _over(self, known: dict[str, object]) -> str | None:
        duration, hours = self._search.max_duration, self._search.max_cpu_hours
        if duration is not None and self._age(known) >= seconds(duration):
            return f"search.maxDuration of {duration} is spent"
        if hours is not None and self._used(known) >= 3600 * float(hours):
            return f"search.maxCpuHours of {hours} is spent"
        return None

    @staticmethod
    def _age(known: dict[str, object]) -> float:
        return time.time() - float(str(known[_CREATED]))

    def _used(self, known: dict[str, object]) -> float:
        """Return the CPU seconds of all lives of all workers; this one's as they are now."""
        others = (
            float(str(used)) for name, used in known.items() if name.startswith(_CPU) and name != f"{_CPU}{self._owner}"
        )
        return cpu_seconds() + sum(others)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
