"""The way back: the champion's value returns to the owned field, and the candidate is never proposed again.

A field that others took over in the meantime is theirs: it is left alone.
"""

from retune.api.status import ActiveRollout, ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.plan.actions import InjectModel
from retune.plan.draft import Draft, Hold
from retune.plan.guards.ownership import reject
from retune.plan.observed import Verb
from retune.plan.rollout.progress import LOOK_SECONDS, show
from retune.plan.run.conclusion import conclude

INJECTION_RETRY_SECONDS = 60.0


def turn_back(draft: Draft, reason: str, message: str) -> Hold | None:
    """Begin to undo the rollout."""
    rollout, candidate = draft.status.rollout, draft.status.candidate
    if rollout is None or candidate is None:
        return None
    undoing = rollout.model_copy(update={"rollback_reason": reason, "rollback_message": message[:1024]})
    draft.update(rollout=undoing)
    show(draft, Stage.ROLLING_BACK, reason, message)
    reject(draft, candidate.digest, reason)
    return roll_back(draft, undoing, candidate)


def roll_back(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Carry the undoing one step further."""
    champion, container, target = draft.status.champion, draft.container, draft.observed.target
    if champion is None or container is None or target is None:
        return show(draft, Stage.ROLLING_BACK, "TargetMissing", "the target is gone: nothing to put back")
    if container.value != champion.injected_value:
        hold = _put_back(draft, container.name, champion)
        if hold is not None:
            return hold
    elif target.settled:
        _end(draft, rollout, candidate)
        return None
    draft.wake(after=LOOK_SECONDS)
    reason = rollout.rollback_reason or "RollingBack"
    message = f"version {champion.version} returns, because {rollout.rollback_message or ''}"
    return show(draft, Stage.ROLLING_BACK, reason, message)


def _put_back(draft: Draft, container: str, champion: Version) -> Hold | None:
    """Give the owned field the champion's value; returns a hold when that is refused or was refused before."""
    refusal = draft.refusal(Verb.INJECT_MODEL)
    if refusal and refusal.reason == "FieldConflict":
        return abandon(draft, refusal.reason, refusal.message)
    if refusal:
        return _refused(draft, refusal.reason, refusal.message)
    draft.do(InjectModel(container, draft.spec.target.injection.name, champion.injected_value))
    earlier_refusal = draft.refused_before(ConditionType.ROLLED_OUT)
    return _refused(draft, *earlier_refusal) if earlier_refusal else None


def _refused(draft: Draft, reason: str, message: str) -> Hold:
    """Hold while the API server refuses to put the champion back: it is tried, and shown, until it may."""
    draft.wake(after=INJECTION_RETRY_SECONDS)
    return show(draft, Stage.ROLLING_BACK, reason, message)


def _end(draft: Draft, rollout: ActiveRollout, candidate: Version) -> None:
    reason = rollout.rollback_reason or "RolledBack"
    champion = draft.status.champion
    message = f"version {candidate.version} was rolled back: {rollout.rollback_message or ''}"
    conclude(draft, Outcome.ROLLED_BACK, reason, message)
    draft.update(candidate=None, rollout=None)
    serving = f"{message}. Version {champion.version if champion else 1} serves again."
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, "RolledBack", serving)


def abandon(draft: Draft, reason: str, message: str) -> Hold:
    """Drop the candidate because others took the field: what they want counts, and nothing is fought over."""
    conclude(draft, Outcome.CANCELLED, reason, message)
    draft.update(candidate=None, rollout=None)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, reason, message)
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)
