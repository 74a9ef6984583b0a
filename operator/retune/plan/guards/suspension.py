"""`spec.suspend` freezes everything in place: Jobs are held, a rollout stops moving, what serves goes on serving.

Where a Job has a queue, its own `suspend` belongs to that queue: Kueue would start an admitted Job again at once. So a
queued Job is deleted while suspended and created anew under its name afterwards; a search goes on with its study.
"""

from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.plan.actions import DeleteJob, HoldJob
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.observed import Job, JobPhase

_ACTIVE = {JobPhase.WAITING, JobPhase.RUNNING}


def freeze(draft: Draft) -> Hold | None:
    """Hold everything while suspended; afterwards, let Jobs go on and give a rollout its whole time anew."""
    if draft.spec.suspend:
        draft.do(*(_stop(draft, job) for job in draft.observed.jobs.values() if job.phase in _ACTIVE))
        draft.condition(ConditionType.SUSPENDED, ConditionStatus.TRUE, "Suspended", "suspended by spec.suspend")
        return Hold(Stage.SUSPENDED, "Suspended", "suspended: set spec.suspend to false to go on")
    draft.do(*(HoldJob(job.name, held=False) for job in draft.observed.jobs.values() if job.held))
    suspended = condition_of(draft.status, ConditionType.SUSPENDED)
    if suspended and suspended.status is ConditionStatus.TRUE:
        _restart_clocks(draft)
        draft.condition(ConditionType.SUSPENDED, ConditionStatus.FALSE, "Resumed", "not suspended")
    return None


def _stop(draft: Draft, job: Job) -> DeleteJob | HoldJob:
    queued = job.queue is not None or draft.spec.execution.queue_name is not None
    return DeleteJob(job.name) if queued else HoldJob(job.name, held=True)


def _restart_clocks(draft: Draft) -> None:
    rollout = draft.status.rollout
    if rollout is not None:
        now, unwell = draft.now, draft.now if rollout.unwell_since else None
        bake, step = now if rollout.bake_start_time else None, now if rollout.step_start_time else None
        weight = now if rollout.weight_start_time else None
        clocks = {"start_time": now, "step_start_time": step, "bake_start_time": bake, "unwell_since": unwell}
        draft.update(rollout=rollout.model_copy(update=clocks | {"weight_start_time": weight}))
