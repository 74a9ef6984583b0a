"""A Job that has run for longer than `spec.execution.runTimeout` is ended; what it waited for before does not count.

Kubernetes counts a Job's own deadline from its creation, though its pods may wait for a node or an image for hours. So
that deadline only bounds waiting and running together, and the time of running is looked after here.
"""

from datetime import datetime

from retune.api.base import seconds
from retune.plan.actions import ExpireJob
from retune.plan.draft import Draft
from retune.plan.observed import JobPhase


def end_overtime(draft: Draft) -> None:
    """Have every Job ended that has run for too long, and wake up when the next one will have."""
    for job in draft.observed.jobs.values():
        if job.running_since is not None and job.phase is JobPhase.RUNNING and not job.expired:
            _end(draft, job.name, since=job.running_since)


def _end(draft: Draft, name: str, *, since: datetime) -> None:
    left = draft.remaining(since, seconds(draft.spec.execution.run_timeout))
    if left > 0:
        draft.wake(after=left)
    else:
        draft.do(ExpireJob(name))
