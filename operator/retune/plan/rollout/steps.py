"""From a candidate that passed the gate to the champion, and back when it does not hold up.

The owned field is changed once; readiness, golden requests and the bake decide; any failure puts the previous value
back. A version is champion only after all of it. Strategies with traffic shares take the place of `_observe`.
"""

from retune.api.base import seconds
from retune.api.spec import Mode
from retune.api.status import ActiveRollout, ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.plan.actions import AcquireLease, InjectModel, SetFinalizer
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.guards.deletion import FINALIZER
from retune.plan.guards.ownership import field_conflict, may_force
from retune.plan.hashing import snapshot_hash
from retune.plan.observed import Verb
from retune.plan.rollout.baking import bake
from retune.plan.rollout.progress import LOOK_SECONDS, blocked, pods_in_words, show
from retune.plan.rollout.rollback import INJECTION_RETRY_SECONDS, abandon, roll_back, turn_back
from retune.plan.rollout.verification import verify
from retune.plan.run.conclusion import conclude
from retune.plan.run.reasons import MODE_CHANGED, nonce_is_new

_SCALED_TO_ZERO = "ScaledToZero"


def begin(draft: Draft) -> Hold | None:
    """Start rolling out a candidate that passed the gate, if the mode allows it and the field is free."""
    candidate = draft.status.candidate
    if candidate is None or draft.spec.mode is not Mode.AUTOMATIC:
        return None
    if candidate.spec_hash != snapshot_hash(draft.spec):
        draft.update(candidate=None)
        return None
    conflict = field_conflict(draft)
    if conflict:
        return blocked(draft, "FieldConflict", conflict)
    draft.update(rollout=ActiveRollout(version=candidate.version, start_time=draft.now))
    return carry_on(draft)


def carry_on(draft: Draft) -> Hold | None:
    """Carry the rollout under way, or its undoing, one step further."""
    rollout, candidate = draft.status.rollout, draft.status.candidate
    if rollout is None:
        return None
    if candidate is None or draft.status.champion is None:
        draft.update(rollout=None)
        return None
    if not rollout.injected and not rollout.rollback_reason and _is_unwanted(draft, candidate):
        _withdraw(draft, candidate)
        return None
    if FINALIZER not in draft.resource.metadata.finalizers:
        draft.do(SetFinalizer(present=True))
    if rollout.rollback_reason:
        return roll_back(draft, rollout, candidate)
    return _roll_out(draft, rollout, candidate)


def _is_unwanted(draft: Draft, candidate: Version) -> bool:
    if draft.spec.mode is Mode.AUTOMATIC and not _is_outdated(draft, candidate):
        return False
    return _present_value(draft) != candidate.injected_value


def _present_value(draft: Draft) -> str | None:
    return draft.container.value if draft.container else None


def _is_outdated(draft: Draft, candidate: Version) -> bool:
    return candidate.spec_hash != snapshot_hash(draft.spec) or nonce_is_new(draft)


def _withdraw(draft: Draft, candidate: Version) -> None:
    """Give up a rollout that has not touched the target; a candidate that is still wanted is kept as recommended."""
    draft.update(rollout=None)
    if draft.spec.mode is Mode.RECOMMEND_ONLY and not _is_outdated(draft, candidate):
        return
    reason = MODE_CHANGED if draft.spec.mode is Mode.OBSERVE_ONLY else "SpecChanged"
    conclude(draft, Outcome.CANCELLED, reason, "the spec changed before the candidate was given to the target")
    draft.update(candidate=None)


def _roll_out(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    variable = draft.spec.target.injection.name
    if _present_value(draft) != candidate.injected_value:
        if rollout.injected:
            return abandon(draft, "FieldChanged", f"{variable} was changed by others meanwhile")
        return _inject(draft, candidate)
    if not rollout.injected:
        rollout = rollout.model_copy(update={"injected": True, "start_time": draft.now})
        draft.update(rollout=rollout)
        message = f"{variable} names version {candidate.version} and is owned by Retune"
        draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "FieldOwned", message)
    if rollout.bake_start_time is None:
        return _observe(draft, rollout, candidate)
    return bake(draft, rollout, candidate)


def _inject(draft: Draft, candidate: Version) -> Hold:
    target, container = draft.observed.target, draft.container
    refusal = draft.refusal(Verb.INJECT_MODEL)
    if refusal:
        draft.wake(after=INJECTION_RETRY_SECONDS)
        return blocked(draft, refusal.reason, refusal.message)
    if target and container:
        variable = draft.spec.target.injection.name
        inject = InjectModel(container.name, variable, candidate.injected_value, force=may_force(draft))
        draft.do(AcquireLease(target.uid), inject)
    earlier_refusal = draft.refused_before(ConditionType.TARGET_OWNED)
    if earlier_refusal:
        return blocked(draft, *earlier_refusal)
    return show(draft, Stage.ROLLING_OUT, "Injecting", f"version {candidate.version} is given to the target")


def _observe(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Wait for every pod of the new version, then for its golden requests."""
    target, version = draft.observed.target, f"version {candidate.version}"
    if target is not None and target.wanted == 0:
        message = f"Deployment {target.name} is scaled to zero: {version} is proven once a pod runs it"
        return show(draft, Stage.ROLLING_OUT, _SCALED_TO_ZERO, message)
    rollout = _restarted(draft, rollout)
    if target is not None and target.settled:
        return verify(draft, rollout, candidate)
    deadline = draft.spec.rollout.progress_deadline
    left = draft.remaining(rollout.start_time, seconds(deadline))
    if left <= 0:
        message = f"{version} was not ready within {deadline}: {pods_in_words(draft)}"
        return turn_back(draft, "ProgressDeadlineExceeded", message)
    draft.wake(after=min(LOOK_SECONDS, left))
    return show(draft, Stage.ROLLING_OUT, "Progressing", f"{version}: {pods_in_words(draft)}")


def _restarted(draft: Draft, rollout: ActiveRollout) -> ActiveRollout:
    """Give pods their whole time once the target is scaled up from zero again."""
    shown = condition_of(draft.status, ConditionType.ROLLED_OUT)
    if shown is None or shown.reason != _SCALED_TO_ZERO:
        return rollout
    rollout = rollout.model_copy(update={"start_time": draft.now})
    draft.update(rollout=rollout)
    return rollout
