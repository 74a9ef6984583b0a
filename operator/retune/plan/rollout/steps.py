"""From a proven candidate to the champion, and back when it does not hold up.

The owned field is changed once; readiness, golden requests and the bake decide; any failure puts the previous value
back. A version is champion only after all of it. Strategies with traffic shares take the place of `_observe`.
"""

from retune.api import FIELD_MANAGER
from retune.api.base import seconds
from retune.api.spec import Mode
from retune.api.status import ActiveRollout, ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.contract.requests import BundleRef, VerifyRequest
from retune.contract.results import Reason, VerifyResult
from retune.plan import names
from retune.plan.actions import AcquireLease, CreateJob, InjectModel, SetFinalizer
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.guards.deletion import FINALIZER
from retune.plan.guards.ownership import may_force, reject
from retune.plan.hashing import snapshot_hash
from retune.plan.jobs import JobFailure, failure_of, progress_of, starting
from retune.plan.observed import JobPhase, Verb
from retune.plan.run.reasons import MODE_CHANGED, nonce_is_new
from retune.plan.run.stages import conclude

_LOOK_SECONDS = 5.0
_REFUSAL_RETRY_SECONDS = 30.0
_INJECTION_RETRY_SECONDS = 60.0
_VERIFY_ATTEMPTS = 3
_SCALED_TO_ZERO = "ScaledToZero"


def begin(draft: Draft) -> Hold | None:
    """Start rolling out a candidate that passed the gate, if the mode allows it and the field is free."""
    candidate = draft.status.candidate
    if candidate is None or draft.spec.mode is not Mode.AUTOMATIC:
        return None
    if candidate.spec_hash != snapshot_hash(draft.spec):
        draft.update(candidate=None)
        return None
    conflict = _conflict(draft)
    if conflict:
        return _blocked(draft, "FieldConflict", conflict)
    draft.update(rollout=ActiveRollout(version=candidate.version, start_time=draft.now))
    return carry_on(draft)


def _conflict(draft: Draft) -> str | None:
    """Return why the owned field may not be changed: another manager has set it and takeover is Refuse."""
    container = draft.container
    if container is None or container.value is None or container.manager in {None, FIELD_MANAGER} or may_force(draft):
        return None
    return (
        f"{draft.spec.target.injection.name} of Deployment {draft.spec.target.ref.name} is owned by "
        f"{container.manager}: remove it from that manifest, or set spec.target.injection.takeover to Force"
    )


def _blocked(draft: Draft, reason: str, message: str) -> Hold:
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)


def carry_on(draft: Draft) -> Hold | None:
    """Carry the rollout under way, or its undoing, one step further."""
    rollout, candidate = draft.status.rollout, draft.status.candidate
    if rollout is None:
        return None
    if candidate is None or draft.status.champion is None:
        draft.update(rollout=None)
        return None
    if not rollout.injected and not rollout.rollback_reason and _unwanted(draft, candidate):
        _withdraw(draft, candidate)
        return None
    if FINALIZER not in draft.resource.metadata.finalizers:
        draft.do(SetFinalizer(present=True))
    if rollout.rollback_reason:
        return _roll_back(draft, rollout, candidate)
    return _roll_out(draft, rollout, candidate)


def _unwanted(draft: Draft, candidate: Version) -> bool:
    value = draft.container.value if draft.container else None
    return value != candidate.injected_value and (_outdated(draft, candidate) or draft.spec.mode is not Mode.AUTOMATIC)


def _outdated(draft: Draft, candidate: Version) -> bool:
    return candidate.spec_hash != snapshot_hash(draft.spec) or nonce_is_new(draft)


def _withdraw(draft: Draft, candidate: Version) -> None:
    """Give up a rollout that has not touched the target; a candidate that is still wanted is kept as recommended."""
    draft.update(rollout=None)
    if draft.spec.mode is Mode.RECOMMEND_ONLY and not _outdated(draft, candidate):
        return
    reason = MODE_CHANGED if draft.spec.mode is Mode.OBSERVE_ONLY else "SpecChanged"
    conclude(draft, Outcome.CANCELLED, reason, "the spec changed before the candidate was given to the target")
    draft.update(candidate=None)


def _roll_out(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    value = draft.container.value if draft.container else None
    if value != candidate.injected_value:
        if rollout.injected:
            return _abandon(
                draft, "FieldChanged", f"{draft.spec.target.injection.name} was changed by others meanwhile"
            )
        return _inject(draft, candidate)
    if not rollout.injected:
        rollout = rollout.model_copy(update={"injected": True, "start_time": draft.now})
        draft.update(rollout=rollout)
        message = f"{draft.spec.target.injection.name} names version {candidate.version} and is owned by Retune"
        draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "FieldOwned", message)
    if rollout.bake_start_time is None:
        return _observe(draft, rollout, candidate)
    return _bake(draft, rollout, candidate)


def _inject(draft: Draft, candidate: Version) -> Hold:
    target, container = draft.observed.target, draft.container
    refused = draft.refusal(Verb.INJECT_MODEL)
    if refused:
        draft.wake(after=_INJECTION_RETRY_SECONDS)
        return _blocked(draft, refused.reason, refused.message)
    if target and container:
        variable = draft.spec.target.injection.name
        inject = InjectModel(container.name, variable, candidate.injected_value, force=may_force(draft))
        draft.do(AcquireLease(target.uid), inject)
    before = draft.refused_before(ConditionType.TARGET_OWNED)
    if before:
        return _blocked(draft, *before)
    return _progress(draft, Stage.ROLLING_OUT, "Injecting", f"version {candidate.version} is given to the target")


def _observe(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Wait for every pod of the new version, then for its golden requests."""
    target = draft.observed.target
    if target is not None and target.wanted == 0:
        message = (
            f"Deployment {target.name} is scaled to zero: version {candidate.version} is proven once a pod runs it"
        )
        return _progress(draft, Stage.ROLLING_OUT, _SCALED_TO_ZERO, message)
    rollout = _started_anew(draft, rollout)
    if target is not None and target.settled:
        return _verify(draft, rollout, candidate)
    left = draft.remaining(rollout.start_time, seconds(draft.spec.rollout.progress_deadline))
    if left <= 0:
        limit_words = draft.spec.rollout.progress_deadline
        message = f"version {candidate.version} was not ready within {limit_words}: {_words(draft)}"
        return _turn_back(draft, "ProgressDeadlineExceeded", message)
    draft.wake(after=min(_LOOK_SECONDS, left))
    return _progress(draft, Stage.ROLLING_OUT, "Progressing", f"version {candidate.version}: {_words(draft)}")


def _started_anew(draft: Draft, rollout: ActiveRollout) -> ActiveRollout:
    """Give pods their whole time once there are any again."""
    told = condition_of(draft.status, ConditionType.ROLLED_OUT)
    if told is None or told.reason != _SCALED_TO_ZERO:
        return rollout
    rollout = rollout.model_copy(update={"start_time": draft.now})
    draft.update(rollout=rollout)
    return rollout


def _verify(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    if draft.spec.target.inference is None:
        return _start_bake(draft, rollout, "ready; golden requests are not asked: set spec.target.inference")
    attempt = max(1, rollout.verify_attempt)
    if rollout.verify_attempt == 0:
        draft.update(rollout=rollout.model_copy(update={"verify_attempt": attempt}))
    name = names.verify_job(candidate.run_name or "", attempt)
    job = draft.observed.jobs.get(name)
    if job is None:
        return _ask(draft, name, candidate)
    if job.phase is JobPhase.SUCCEEDED and isinstance(job.result, VerifyResult):
        words = f"{job.result.pods} pods answered {job.result.requests} golden requests right"
        return _start_bake(draft, rollout, words)
    failure = failure_of(job, now=draft.now, pull_seconds=draft.observed.defaults.image_pull_seconds)
    if failure is None and job.phase is JobPhase.SUCCEEDED:
        failure = JobFailure("ResultInvalid", f"Job {name} ended without an answer")
    if failure is None:
        return _progress(draft, Stage.ROLLING_OUT, *progress_of(job))
    if failure.reason == Reason.GOLDEN_MISMATCH or attempt >= _VERIFY_ATTEMPTS:
        return _turn_back(draft, failure.reason, failure.message)
    draft.update(rollout=rollout.model_copy(update={"verify_attempt": attempt + 1}))
    draft.wake(after=_LOOK_SECONDS)
    return _progress(draft, Stage.ROLLING_OUT, "VerifyingAgain", failure.message)


def _ask(draft: Draft, name: str, candidate: Version) -> Hold:
    endpoints, inference = draft.observed.pods.endpoints, draft.spec.target.inference
    refused = draft.refusal(Verb.CREATE_JOB)
    if refused:
        draft.wake(after=_REFUSAL_RETRY_SECONDS)
        return _progress(draft, Stage.ROLLING_OUT, refused.reason, refused.message)
    if not endpoints or inference is None:
        draft.wake(after=_LOOK_SECONDS)
        return _progress(draft, Stage.ROLLING_OUT, "Verifying", "waiting for pod addresses")
    request = VerifyRequest(
        resource=draft.resource.key,
        bundle=BundleRef(uri=candidate.uri, digest=candidate.digest),
        endpoints=endpoints,
        model_name=inference.model_name,
    )
    draft.do(CreateJob(name, request, cpu_limit=None))
    before = draft.refused_before(ConditionType.ROLLED_OUT)
    return _progress(draft, Stage.ROLLING_OUT, *(before or starting(name)))


def _start_bake(draft: Draft, rollout: ActiveRollout, words: str) -> Hold | None:
    baking = rollout.model_copy(update={"bake_start_time": draft.now})
    draft.update(rollout=baking)
    candidate = draft.status.candidate
    if candidate is None:
        return None
    message = f"version {candidate.version}: {words}; watched for {draft.spec.rollout.bake_time}"
    draft.wake(after=min(_LOOK_SECONDS, seconds(draft.spec.rollout.bake_time)))
    return _progress(draft, Stage.BAKING, "Baking", message)


def _bake(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    target, begun = draft.observed.target, rollout.bake_start_time or draft.now
    if target is not None and target.available == 0 and target.wanted > 0:
        trouble = draft.observed.pods.trouble or "no pod is available"
        return _turn_back(draft, "UnhealthyDuringBake", f"version {candidate.version}: {trouble}")
    left = draft.remaining(begun, seconds(draft.spec.rollout.bake_time))
    if left <= 0 and target is not None and target.settled:
        _promote(draft, candidate)
        return None
    if -left > seconds(draft.spec.rollout.progress_deadline):
        message = f"version {candidate.version} did not stay ready: {_words(draft)}"
        return _turn_back(draft, "UnhealthyDuringBake", message)
    draft.wake(after=max(1.0, min(_LOOK_SECONDS, left)))
    bake = draft.spec.rollout.bake_time
    return _progress(draft, Stage.BAKING, "Baking", f"version {candidate.version} serves and is watched for {bake}")


def _words(draft: Draft) -> str:
    target = draft.observed.target
    return draft.observed.pods.trouble or (target.progress if target else "the target is gone")


def _promote(draft: Draft, candidate: Version) -> None:
    champion = candidate.model_copy(update={"promoted_at": draft.now})
    condition = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    message = f"version {champion.version} is champion. {condition.message if condition else ''}".strip()
    conclude(draft, Outcome.PROMOTED, condition.reason if condition else "Promoted", message)
    draft.update(champion=champion, candidate=None, rollout=None)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.TRUE, "Promoted", message)


def _turn_back(draft: Draft, reason: str, message: str) -> Hold | None:
    rollout, candidate = draft.status.rollout, draft.status.candidate
    if rollout is None or candidate is None:
        return None
    undoing = rollout.model_copy(update={"rollback_reason": reason, "rollback_message": message[:1024]})
    draft.update(rollout=undoing)
    _progress(draft, Stage.ROLLING_BACK, reason, message)
    reject(draft, candidate.digest, reason)
    return _roll_back(draft, undoing, candidate)


def _roll_back(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    champion, container, target = draft.status.champion, draft.container, draft.observed.target
    if champion is None or container is None or target is None:
        return _progress(draft, Stage.ROLLING_BACK, "TargetMissing", "the target is gone: nothing to put back")
    words = rollout.rollback_message or ""
    if container.value == champion.injected_value and target.settled:
        _rolled_back(draft, rollout, candidate, words)
        return None
    if container.value != champion.injected_value:
        refused = draft.refusal(Verb.INJECT_MODEL)
        if refused and refused.reason == "FieldConflict":
            return _abandon(draft, refused.reason, refused.message)
        if refused:
            return _stuck(draft, refused.reason, refused.message)
        variable = draft.spec.target.injection.name
        draft.do(InjectModel(container.name, variable, champion.injected_value))
        before = draft.refused_before(ConditionType.ROLLED_OUT)
        if before:
            return _stuck(draft, *before)
    draft.wake(after=_LOOK_SECONDS)
    reason = rollout.rollback_reason or "RollingBack"
    return _progress(draft, Stage.ROLLING_BACK, reason, f"version {champion.version} returns, because {words}")


def _stuck(draft: Draft, reason: str, message: str) -> Hold:
    """The API server refuses to put the champion back: it is tried until it may, and told until then."""
    draft.wake(after=_INJECTION_RETRY_SECONDS)
    return _progress(draft, Stage.ROLLING_BACK, reason, message)


def _rolled_back(draft: Draft, rollout: ActiveRollout, candidate: Version, words: str) -> None:
    reason = rollout.rollback_reason or "RolledBack"
    champion = draft.status.champion
    message = f"version {candidate.version} was rolled back: {words}"
    conclude(draft, Outcome.ROLLED_BACK, reason, message)
    draft.update(candidate=None, rollout=None)
    kept = f"{message}. Version {champion.version if champion else 1} serves again."
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, "RolledBack", kept)


def _abandon(draft: Draft, reason: str, message: str) -> Hold:
    """Others took the field: what they want counts, the candidate is dropped, and nothing is fought over."""
    conclude(draft, Outcome.CANCELLED, reason, message)
    draft.update(candidate=None, rollout=None)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, reason, message)
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)


def _progress(draft: Draft, stage: Stage, reason: str, message: str) -> Hold:
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.UNKNOWN, reason, message)
    return Hold(stage, reason, message)
