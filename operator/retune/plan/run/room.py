"""A run whose Job has found the store full: it waits, and its Job is started again from time to time.

The Job goes on where its records in the store end, so nothing is lost by waiting, and no person has to say that there
is room again. Other resources are not touched: each finds out about its own store.
"""

from datetime import datetime, timedelta

from retune.api.status import ActiveRun, ConditionType
from retune.contract.results import Reason
from retune.plan.actions import DeleteJob
from retune.plan.draft import Draft, condition_of
from retune.plan.observed import Job

STORE_FULL = Reason.STORE_FULL.value
_PAUSE_SECONDS = 300.0


def wait(draft: Draft, run: ActiveRun, name: str) -> tuple[str, str] | None:
    """Return reason and sentence while there is no room for a run's Job; have it started again when it is time.

    Args:
        draft: The plan in the making.
        run: The run under way.
        name: Name of its Job.
    """
    job = draft.observed.jobs.get(name)
    failure = draft.failure_of(job) if job else None
    if failure is None or failure.reason != STORE_FULL:
        _note_attempt(draft, run, job)
        return None
    again = run.retry_after or _later(draft)
    draft.update(run=run.model_copy(update={"retry_after": again}))
    left = draft.remaining(again, 0)
    if left > 0:
        draft.wake(after=max(1.0, left))
    else:
        draft.do(DeleteJob(name))
    return STORE_FULL, f"{failure.message} Run {run.name} goes on by itself once there is room."


def _later(draft: Draft) -> datetime:
    return draft.now + timedelta(seconds=_PAUSE_SECONDS)


def _note_attempt(draft: Draft, run: ActiveRun, job: Job | None) -> None:
    """Give a Job that is started again its time to fail again, and forget that the store was full once it has not."""
    if run.retry_after is None:
        return
    left = draft.remaining(run.retry_after, 0)
    if left > 0:
        draft.wake(after=max(1.0, left))
    else:
        draft.update(run=run.model_copy(update={"retry_after": _later(draft) if job is None else None}))


def shown_meanwhile(draft: Draft) -> tuple[str, str] | None:
    """Return what is said while an attempt may still find the store full, so that nothing flaps; None otherwise."""
    run, shown = draft.status.run, condition_of(draft.status, ConditionType.OPTIMIZING)
    if run is None or run.retry_after is None or shown is None or shown.reason != STORE_FULL:
        return None
    return (shown.reason, shown.message) if draft.now < run.retry_after else None
