"""Golden requests: a Job asks pods what the bundle's own answers are known to, before the version is watched.

The first pods that are ready are asked while others are still being replaced, and then every pod.
"""

import hashlib

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.shown import Shown
from retune.api.status import ConditionType, Stage, Version
from retune.contract.requests import VerifyRequest
from retune.contract.results import Reason, VerifyResult
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.draft import Draft, Hold, bundle_of
from retune.plan.jobs import JobFailure, progress_of, starting, without_result
from retune.plan.observed import Job, JobPhase, Verb
from retune.plan.rollout.blame import EDITED, excuse
from retune.plan.rollout.progress import LOOK_SECONDS, show, update
from retune.plan.rollout.steps import Done, TurnBack, wait_for_pods

_REFUSAL_RETRY_SECONDS = 30.0
_LEAST_SECONDS = 300.0
"""Time that asking has at least, however short the progress deadline is: a Job has to start first."""
_ATTEMPTS = 3
_OF_THE_SERVER = {Reason.VARIABLE_IGNORED, Reason.PROTOCOL_MISMATCH}
"""Reasons that a server gives whatever the version is; asking again would change nothing."""


def first_golden(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Have the first ready pods asked, so that wrong answers are noticed before every pod gives them."""
    target, endpoints = draft.observed.target, draft.observed.pods.endpoints
    if rollout.step_jobs:
        return _follow(draft, rollout, candidate)
    if not can_be_asked(draft, candidate) or (target is not None and target.settled):
        return Done()
    return _ask(draft, rollout, candidate) if endpoints else wait_for_pods(draft, rollout, candidate)


def golden(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Have every pod asked, unless the first ones asked were all of them."""
    if not can_be_asked(draft, candidate):
        update(draft, rollout, shown_by=Shown.NOTHING.value)
        return Done()
    all_asked = rollout.asked in {None, _hash(draft.observed.pods.endpoints)}
    if not rollout.step_jobs:
        return Done() if all_asked and rollout.shown_by else _ask(draft, rollout, candidate)
    answer = _follow(draft, rollout, candidate)
    if isinstance(answer, Done) and not all_asked and rollout.step_jobs < _ATTEMPTS:
        return _ask(draft, rollout, candidate)
    return answer


def can_be_asked(draft: Draft, candidate: Version) -> bool:
    """Whether the version's bundle tells what pods must answer: a model served as delivered answers in its own way."""
    return draft.spec.target.inference is not None and candidate.injected_value == candidate.uri


def _hash(endpoints: tuple[str, ...]) -> str:
    return hashlib.sha256(" ".join(endpoints).encode()).hexdigest()[:16]


def _ask(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | TurnBack:
    """Have the pods asked by one more Job."""
    endpoints = draft.observed.pods.endpoints
    if not endpoints:
        return _waiting(draft, rollout, candidate, "Verifying", "waiting for pod addresses")
    attempt, asked = rollout.verify_attempt + 1, rollout.step_jobs + 1
    rollout = update(draft, rollout, verify_attempt=attempt, step_jobs=asked, shown_by=None)
    return _create(draft, rollout, candidate)


def _create(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | TurnBack:
    endpoints, inference = draft.observed.pods.endpoints, draft.spec.target.inference
    refusal = draft.refusal(Verb.CREATE_JOB)
    if refusal:
        return _waiting(draft, rollout, candidate, refusal.reason, refusal.message, look=_REFUSAL_RETRY_SECONDS)
    if not endpoints or inference is None:
        return _waiting(draft, rollout, candidate, "Verifying", "waiting for pod addresses")
    update(draft, rollout, asked=_hash(endpoints))
    champion, name = draft.status.champion, job_name(draft, rollout)
    request = VerifyRequest(
        resource=draft.resource.key,
        bundle=bundle_of(candidate),
        champion=bundle_of(champion) if champion and champion.digest != candidate.digest else None,
        endpoints=endpoints,
        model_name=inference.model_name,
    )
    draft.do(CreateJob(name, request, cpu_limit=None))
    earlier_refusal = draft.refused_before(ConditionType.ROLLED_OUT)
    return _waiting(draft, rollout, candidate, *(earlier_refusal or starting(name)), look=None)


def job_name(draft: Draft, rollout: ActiveRollout) -> str:
    """Return the name of the last Job that asks."""
    if rollout.rollback_number is not None:
        task = f"verify{rollout.verify_attempt}"
        return names.rollback_job(draft.resource.metadata.name, rollout.rollback_number, task)
    candidate = draft.status.candidate
    return names.verify_job((candidate.run_name if candidate else None) or "", rollout.verify_attempt)


def _follow(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Wait for the Job's word; one that failed for other reasons than an answer is repeated."""
    job = draft.observed.jobs.get(job_name(draft, rollout))
    if job is None:
        return _create(draft, rollout, candidate)
    if job.phase is JobPhase.SUCCEEDED and isinstance(job.result, VerifyResult):
        update(draft, rollout, shown_by=job.result.shown_by or Shown.NOTHING.value)
        return Done(f"{job.result.pods} pods answered {job.result.requests} golden requests right")
    failure = _failure(draft, job)
    if failure is None:
        return _waiting(draft, rollout, candidate, *progress_of(job))
    turn = _judged(draft, rollout, failure)
    if turn is not None:
        return turn
    attempt, asked = rollout.verify_attempt + 1, rollout.step_jobs + 1
    rollout = update(draft, rollout, verify_attempt=attempt, step_jobs=asked)
    return _waiting(draft, rollout, candidate, "VerifyingAgain", failure.message)


def _failure(draft: Draft, job: Job) -> JobFailure | None:
    failure = draft.failure_of(job)
    if failure is None and job.phase is JobPhase.SUCCEEDED:
        return without_result(job, "an answer")
    return failure


def _judged(draft: Draft, rollout: ActiveRollout, failure: JobFailure) -> TurnBack | None:
    """Return that a failure ends the rollout; only a wrong answer is held against the version."""
    if failure.reason == Reason.GOLDEN_MISMATCH:
        return TurnBack(failure.reason, failure.message, EDITED if rollout.edited else None)
    if failure.reason in _OF_THE_SERVER:
        return TurnBack(failure.reason, failure.message, "the server did not answer for it")
    if rollout.step_jobs < _ATTEMPTS:
        return None
    return TurnBack(failure.reason, failure.message, _excuse(draft, rollout))


def _excuse(draft: Draft, rollout: ActiveRollout) -> str | None:
    """Return why the version is not to blame for requests that nobody could ask; None where it is."""
    target, crash = draft.observed.target, draft.observed.pods.crash
    crashed = crash is not None and crash.at >= (rollout.step_start_time or rollout.start_time)
    is_well = target is not None and target.settled and not crashed
    return "golden requests could not be asked, which says nothing of it" if is_well else excuse(draft, rollout)


def _waiting(
    draft: Draft,
    rollout: ActiveRollout,
    candidate: Version,
    reason: str,
    message: str,
    *,
    look: float | None = LOOK_SECONDS,
) -> Hold | TurnBack:
    """Wait for a Job or for a pod to ask, but not for ever: an unproven version serves."""
    limit = max(_LEAST_SECONDS, seconds(draft.spec.rollout.progress_deadline))
    left = draft.remaining(rollout.step_start_time or draft.now, limit)
    if left <= 0:
        sentence = f"version {candidate.version} was not proven within {limit:g} s: {message}"
        return TurnBack("NotVerified", sentence, _excuse(draft, rollout))
    draft.wake(after=left if look is None else min(look, left))
    return show(draft, Stage.ROLLING_OUT, reason, message)
