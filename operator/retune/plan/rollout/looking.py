"""A look into the store before an earlier version is given to the target: is its bundle still there, and whole?

It is a short look. Where no Job can be had in time, the version is given all the same: pods that cannot open it do not
get ready, and the champion returns.
"""

from retune.api.rolling import ActiveRollout
from retune.api.status import Stage, Version
from retune.contract.requests import VerifyRequest
from retune.contract.results import Reason
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.draft import Draft, Hold, bundle_of
from retune.plan.jobs import progress_of, starting
from retune.plan.observed import JobPhase, Verb
from retune.plan.rollout.progress import LOOK_SECONDS, show
from retune.plan.rollout.steps import Done, TurnBack

_SECONDS = 120.0
_LOST = {Reason.BUNDLE_NOT_FOUND, Reason.BUNDLE_CORRUPT}


def look(draft: Draft, rollout: ActiveRollout, version: Version) -> Hold | Done | TurnBack:
    """Wait for a Job's word on the bundle, but not for long."""
    left = draft.remaining(rollout.step_start_time or draft.now, _SECONDS)
    if version.injected_value != version.uri or left <= 0 or draft.refusal(Verb.CREATE_JOB):
        return Done()
    job = draft.observed.jobs.get(job_name(draft, rollout))
    if job is None:
        return _ask(draft, rollout, version)
    failure = draft.failure_of(job)
    if failure is not None and failure.reason in _LOST:
        return TurnBack("RollbackBundleLost", failure.message, excuse=None)
    if failure is not None or job.phase is JobPhase.SUCCEEDED:
        return Done()
    draft.wake(after=min(LOOK_SECONDS, left))
    return show(draft, Stage.ROLLING_BACK, *progress_of(job))


def _ask(draft: Draft, rollout: ActiveRollout, version: Version) -> Hold:
    name = job_name(draft, rollout)
    request = VerifyRequest(
        resource=draft.resource.key, bundle=bundle_of(version), endpoints=(), model_name="", bundle_alone=True
    )
    draft.do(CreateJob(name, request, cpu_limit=None))
    draft.wake(after=LOOK_SECONDS)
    return show(draft, Stage.ROLLING_BACK, *starting(name))


def job_name(draft: Draft, rollout: ActiveRollout) -> str:
    """Return the name of the Job that looks."""
    return names.rollback_job(draft.resource.metadata.name, rollout.rollback_number or 0, "look")
