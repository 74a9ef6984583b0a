"""The way back: the owned field gets the value of another version, in most cases the champion's.

A field that others took over in the meantime is theirs: it is left alone.
"""

from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.plan.actions import InjectModel
from retune.plan.draft import Draft, Hold
from retune.plan.kept import is_shown
from retune.plan.observed import Verb
from retune.plan.rollout import late_pods, returned
from retune.plan.rollout.progress import LOOK_SECONDS, pods_in_words, present_value, show
from retune.plan.rollout.proposing import ask_to_revert, is_for_git
from retune.plan.run.conclusion import conclude
from retune.plan.watch.state import begin_anew

INJECTION_RETRY_SECONDS = 60.0


def undo(draft: Draft, rollout: ActiveRollout, candidate: Version, *, destination: Version) -> Hold | None:
    """Carry the undoing of a rollout one step further: `destination` is the version that is to serve after it."""
    target = draft.observed.target
    if target is None or draft.container is None:
        return show(draft, Stage.ROLLING_BACK, "TargetMissing", "the target is gone: nothing to put back")
    if present_value(draft) != destination.injected_value:
        hold = _put_back(draft, draft.container.name, rollout, candidate, destination)
        if hold is not None:
            return hold
    elif target.settled or not rollout.injected:
        _end(draft, rollout, candidate, destination)
        return None
    elif refused := late_pods.replace(draft):
        return _refused(draft, *refused)
    draft.wake(after=LOOK_SECONDS)
    reason = rollout.rollback_reason or "RollingBack"
    returns = f"version {destination.version} returns ({pods_in_words(draft)})"
    return show(draft, Stage.ROLLING_BACK, reason, f"{returns}, because {rollout.rollback_message or ''}")


def _put_back(
    draft: Draft, container: str, rollout: ActiveRollout, candidate: Version, destination: Version
) -> Hold | None:
    """Give the owned field its value; returns a hold when that is refused, was refused before, or is for others."""
    if is_for_git(draft):
        if present_value(draft) != candidate.injected_value:
            return abandon(
                draft, "FieldChanged", f"{draft.spec.target.injection.field} was changed by others meanwhile"
            )
        return ask_to_revert(draft, rollout, candidate, destination)
    refusal = draft.refusal(Verb.INJECT_MODEL)
    if refusal and refusal.reason == "FieldConflict":
        return abandon(draft, refusal.reason, refusal.message)
    if refusal:
        return _refused(draft, refusal.reason, refusal.message)
    draft.do(InjectModel(container, draft.spec.target.injection.field, destination.injected_value))
    earlier_refusal = draft.refused_before(ConditionType.ROLLED_OUT)
    return _refused(draft, *earlier_refusal) if earlier_refusal else None


def _refused(draft: Draft, reason: str, message: str) -> Hold:
    """Hold while the API server refuses to put the version back: it is tried, and shown, until it may."""
    draft.wake(after=INJECTION_RETRY_SECONDS)
    return show(draft, Stage.ROLLING_BACK, reason, message)


def _end(draft: Draft, rollout: ActiveRollout, candidate: Version, destination: Version) -> None:
    if rollout.rollback_number is not None:
        returned.fail(draft, rollout, candidate, destination)
        return
    message = conclude_rolled_back(draft, rollout, candidate)
    draft.update(candidate=None, rollout=None)
    begin_anew(draft)
    returns = "serves again" if is_shown(destination) else "is given to the target again and not shown to serve"
    serving = f"{message.rstrip('.')}. Version {destination.version} {returns}."
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, "RolledBack", serving)


def conclude_rolled_back(draft: Draft, rollout: ActiveRollout, candidate: Version) -> str:
    """End the run by what its version has shown in the rollout; returns that as a sentence."""
    message = f"version {candidate.version} was rolled back: {rollout.rollback_message or ''}"
    conclude(draft, Outcome.ROLLED_BACK, rollout.rollback_reason or "RolledBack", message)
    return message


def abandon(draft: Draft, reason: str, message: str) -> Hold:
    """Drop the candidate because others took the field: what they want counts, and nothing is fought over."""
    conclude(draft, Outcome.CANCELLED, reason, message)
    draft.update(candidate=None, rollout=None)
    begin_anew(draft)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, reason, message)
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)
