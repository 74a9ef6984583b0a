"""Golden requests: a Job asks every new pod what the bundle's own answers are known to, before the bake begins."""

from retune.api.status import ActiveRollout, ConditionType, Stage, Version
from retune.contract.requests import VerifyRequest
from retune.contract.results import Reason, VerifyResult
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.draft import Draft, Hold, bundle_of
from retune.plan.jobs import JobFailure, progress_of, starting
from retune.plan.observed import Job, JobPhase, Verb
from retune.plan.rollout.baking import start_bake
from retune.plan.rollout.progress import LOOK_SECONDS, show
from retune.plan.rollout.rollback import turn_back

_REFUSAL_RETRY_SECONDS = 30.0
_ATTEMPTS = 3


def verify(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Have the new pods asked; a wrong answer turns the rollout back, a Job that failed otherwise is repeated."""
    if draft.spec.target.inference is None:
        proof = "ready; golden requests are not asked: set spec.target.inference"
        return start_bake(draft, rollout, candidate, proof)
    if rollout.verify_attempt == 0:
        rollout = _at_attempt(draft, rollout, 1)
    name = names.verify_job(candidate.run_name or "", rollout.verify_attempt)
    job = draft.observed.jobs.get(name)
    if job is None:
        return _ask(draft, name, candidate)
    if job.phase is JobPhase.SUCCEEDED and isinstance(job.result, VerifyResult):
        proof = f"{job.result.pods} pods answered {job.result.requests} golden requests right"
        return start_bake(draft, rollout, candidate, proof)
    failure = _failure(draft, job)
    if failure is None:
        return show(draft, Stage.ROLLING_OUT, *progress_of(job))
    return _failed(draft, rollout, failure)


def _at_attempt(draft: Draft, rollout: ActiveRollout, attempt: int) -> ActiveRollout:
    rollout = rollout.model_copy(update={"verify_attempt": attempt})
    draft.update(rollout=rollout)
    return rollout


def _ask(draft: Draft, name: str, candidate: Version) -> Hold:
    endpoints, inference = draft.observed.pods.endpoints, draft.spec.target.inference
    refusal = draft.refusal(Verb.CREATE_JOB)
    if refusal:
        draft.wake(after=_REFUSAL_RETRY_SECONDS)
        return show(draft, Stage.ROLLING_OUT, refusal.reason, refusal.message)
    if not endpoints or inference is None:
        draft.wake(after=LOOK_SECONDS)
        return show(draft, Stage.ROLLING_OUT, "Verifying", "waiting for pod addresses")
    request = VerifyRequest(
        resource=draft.resource.key,
        bundle=bundle_of(candidate),
        endpoints=endpoints,
        model_name=inference.model_name,
    )
    draft.do(CreateJob(name, request, cpu_limit=None))
    earlier_refusal = draft.refused_before(ConditionType.ROLLED_OUT)
    return show(draft, Stage.ROLLING_OUT, *(earlier_refusal or starting(name)))


def _failure(draft: Draft, job: Job) -> JobFailure | None:
    failure = draft.failure_of(job)
    if failure is None and job.phase is JobPhase.SUCCEEDED:
        return JobFailure("ResultInvalid", f"Job {job.name} ended without an answer")
    return failure


def _failed(draft: Draft, rollout: ActiveRollout, failure: JobFailure) -> Hold | None:
    if failure.reason == Reason.GOLDEN_MISMATCH or rollout.verify_attempt >= _ATTEMPTS:
        return turn_back(draft, failure.reason, failure.message)
    _at_attempt(draft, rollout, rollout.verify_attempt + 1)
    draft.wake(after=LOOK_SECONDS)
    return show(draft, Stage.ROLLING_OUT, "VerifyingAgain", failure.message)
