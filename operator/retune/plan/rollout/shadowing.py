"""The shadow of a canary: before it gets any of the users' requests, it is asked what users have asked before.

A Job asks, beside the champion's pods. Errors that it proves reject the version; slowness only takes it back, because a
pod on a busy node is slow whatever it serves. Where the Job cannot say anything, as without captured requests, the
rollout waits and asks again, and the champion serves alone.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.rollout import OnEvidenceTimeout
from retune.api.status import ConditionType, Stage, Version
from retune.contract.requests import Shadow, VerifyRequest
from retune.contract.results import Reason, Shadowed, VerifyResult
from retune.plan.actions import CreateJob
from retune.plan.draft import Draft, Hold, bundle_of
from retune.plan.jobs import JobFailure, progress_of, starting, without_result
from retune.plan.observed import JobPhase, Verb
from retune.plan.rollout.baking import crashed, unwell
from retune.plan.rollout.blame import EDITED, PLACED
from retune.plan.rollout.canary import canary_in_place, first_pods, have_pods
from retune.plan.rollout.progress import LOOK_SECONDS, show, update
from retune.plan.rollout.steps import Done, TurnBack
from retune.plan.rollout.verification import can_be_asked, job_name
from retune.plan.rollout.weighing import TOO_LITTLE
from retune.plan.rollout.withdrawing import REFUSAL_RETRY_SECONDS

_AGAIN_SECONDS = 600.0
"""Time from one Job to the next, while none can say anything."""
_EXCUSES: dict[str, str | None] = {Reason.SHADOW_ERRORS: None, Reason.SHADOW_SLOW: PLACED}
"""What speaks against a version, and why it is not held against it; None where it is."""


def canary_shadow(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Have the canary's first pods asked captured requests, where the owner wants it."""
    if draft.spec.rollout.trial.shadow is None or not can_be_asked(draft, candidate):
        return Done()
    with canary_in_place(draft) as canary:
        have_pods(draft, canary, first_pods(draft))
        setback = crashed(draft, rollout, candidate) or unwell(draft, rollout, candidate)
    if setback is not None:
        return replace(setback, reason="CanaryUnhealthy")
    return _follow(draft, rollout) if rollout.step_jobs else _ask(draft, rollout)


def _ask(draft: Draft, rollout: ActiveRollout) -> Hold:
    """Have one more Job ask."""
    fields = {"verify_attempt": rollout.verify_attempt + 1, "step_jobs": rollout.step_jobs + 1}
    return _create(draft, update(draft, rollout, **fields))


def _create(draft: Draft, rollout: ActiveRollout) -> Hold:
    refusal, request = draft.refusal(Verb.CREATE_JOB), _request(draft, rollout)
    if refusal:
        draft.wake(after=REFUSAL_RETRY_SECONDS)
        return show(draft, Stage.ROLLING_OUT, refusal.reason, refusal.message)
    if request is None:
        return _waiting(draft, "Verifying", "waiting for the addresses of the canary's and the champion's pods")
    name = job_name(draft, rollout)
    draft.do(CreateJob(name, request, cpu_limit=None))
    return _waiting(draft, *(draft.refused_before(ConditionType.ROLLED_OUT) or starting(name)))


def _request(draft: Draft, rollout: ActiveRollout) -> VerifyRequest | None:
    """Return what the Job is to ask of whom; None while one side has no address."""
    spec, candidate = draft.spec, draft.status.candidate
    pods, champions = draft.observed.traffic.pods.endpoints, draft.observed.pods.endpoints
    shadow, inference = spec.rollout.trial.shadow, spec.target.inference
    production = spec.monitoring.production if spec.monitoring else None
    if not pods or not champions or candidate is None or shadow is None or inference is None or production is None:
        return None
    until = _begun(rollout) + timedelta(seconds=_AGAIN_SECONDS * (rollout.step_jobs - 1))
    return VerifyRequest(
        resource=draft.resource.key,
        bundle=bundle_of(candidate),
        endpoints=pods,
        model_name=inference.model_name,
        shadow=Shadow(
            production=production,
            since=int(until.timestamp() - seconds(shadow.span)),
            until=int(until.timestamp()),
            requests=shadow.requests,
            seed=rollout.verify_attempt,
            champion_endpoints=champions,
            error_margin=float(spec.rollout.analysis.error_margin),
            slow_margin=float(spec.rollout.analysis.slow_margin),
            confidence=float(spec.rollout.analysis.confidence),
        ),
    )


def _begun(rollout: ActiveRollout) -> datetime:
    return rollout.step_start_time or rollout.start_time


def _follow(draft: Draft, rollout: ActiveRollout) -> Hold | Done | TurnBack:
    """Wait for the Job's word, and ask again later where it has none to say."""
    job = draft.observed.jobs.get(job_name(draft, rollout))
    if job is None:
        return _create(draft, rollout)
    if job.phase is JobPhase.SUCCEEDED and isinstance(job.result, VerifyResult) and job.result.shadow is not None:
        sentence = _in_words(job.result.shadow)
        update(draft, rollout, analysis=sentence)
        return Done(sentence)
    failure = draft.failure_of(job)
    if failure is None and job.phase is JobPhase.SUCCEEDED:
        failure = without_result(job, "an answer")
    if failure is None:
        return _waiting(draft, *progress_of(job))
    if failure.reason in _EXCUSES:
        message = f"as a shadow, before it got any request of a user: {failure.message}"
        return TurnBack(failure.reason, message, EDITED if rollout.edited else _EXCUSES[failure.reason])
    return _unsaid(draft, rollout, failure)


def _unsaid(draft: Draft, rollout: ActiveRollout, failure: JobFailure) -> Hold | Done | TurnBack:
    """Wait until more may be said, as long as the owner allows."""
    canary = draft.spec.rollout.trial
    if canary.evidence_timeout is not None and draft.remaining(_begun(rollout), seconds(canary.evidence_timeout)) <= 0:
        words = f"not shadowed within {canary.evidence_timeout}: {failure.message}"
        if canary.on_evidence_timeout is OnEvidenceTimeout.PROCEED:
            update(draft, rollout, analysis=f"It goes on without a shadow, {words}"[:1024])
            return Done(words)
        return TurnBack("EvidenceMissing", f"{draft.spec.rollout.on_trial}, {words}", TOO_LITTLE)
    left = draft.remaining(_begun(rollout), _AGAIN_SECONDS * rollout.step_jobs)
    if left <= 0:
        return _ask(draft, rollout)
    draft.wake(after=max(1.0, left))
    again = f"It is asked again in {left / 60:.0f} min" if left > 60 else "It is asked again soon"
    bound = f", for {canary.evidence_timeout} at most" if canary.evidence_timeout else ""
    return show(draft, Stage.ROLLING_OUT, failure.reason, f"{failure.message} {again}{bound}.")


def _waiting(draft: Draft, reason: str, message: str) -> Hold:
    draft.wake(after=LOOK_SECONDS)
    return show(draft, Stage.ROLLING_OUT, reason, message)


def _in_words(shadow: Shadowed) -> str:
    """Return what a shadow has shown, in a sentence without a full stop."""
    alike = f"; {float(shadow.agreement):.1%} of the answers are as the champion's" if shadow.agreement else ""
    return (
        f"As a shadow: of {shadow.requests} captured requests, {shadow.failed} failed and {shadow.wrong} were answered "
        f"otherwise than the bundle does{alike}; p95 {shadow.p95_ms} ms beside the champion's {shadow.champion_p95_ms}"
    )
