"""The way back from a champion whose bundle is lost: the delivered model serves, before pods restart into nothing.

The version did nothing wrong: it is not rejected, and no run is said to have been rolled back. A field that others have
changed is theirs, and a mode that changes nothing by itself is kept to.
"""

from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, Stage, Version
from retune.plan.actions import InjectModel
from retune.plan.baseline.stored import LOST, STORED, bundle_to_look_for, is_lost
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.guards.delivery import may_go_live
from retune.plan.guards.ownership import field_conflict, may_force
from retune.plan.kept import own
from retune.plan.observed import Verb
from retune.plan.rollout.progress import blocked

FELL_BACK = "FellBack"
_RETRY_SECONDS = 30.0


def fall_back(draft: Draft) -> Hold | None:
    """Give the target the delivered model where the champion's bundle is confirmed to be lost."""
    champion, original, container = draft.status.champion, own(draft.status), draft.container
    if champion is None or original is None or container is None or draft.status.rollout is not None:
        return None
    if not is_lost(draft):
        _clear(draft, champion)
        return None
    if champion == original:
        _give_up_comparing(draft, champion)
        return None
    if container.value == original.injected_value:
        _end(draft, champion, original)
        return None
    if container.value != champion.injected_value or draft.spec.mode is not Mode.AUTOMATIC:
        return None
    return _put_back(draft, container.name, champion, original)


def wait_for_person(draft: Draft) -> Hold | None:
    """Hold an idle pass where the champion's bundle is lost and nothing may be done about it without a person."""
    shown = condition_of(draft.status, ConditionType.BUNDLE_AVAILABLE)
    return Hold(Stage.BLOCKED, LOST, shown.message) if shown is not None and is_lost(draft) else None


def _put_back(draft: Draft, container: str, champion: Version, original: Version) -> Hold:
    conflict, refusal = field_conflict(draft), draft.refusal(Verb.INJECT_MODEL)
    if conflict or refusal:
        draft.wake(after=_RETRY_SECONDS)
        return blocked(draft, *((refusal.reason, refusal.message) if refusal else ("FieldConflict", conflict or "")))
    variable = draft.spec.target.injection.field
    draft.do(InjectModel(container, variable, original.injected_value, force=may_force(draft)))
    earlier_refusal = draft.refused_before(ConditionType.TARGET_OWNED)
    if earlier_refusal:
        draft.wake(after=_RETRY_SECONDS)
        return blocked(draft, *earlier_refusal)
    message = f"the delivered model, version {original.version}, takes the place of version {champion.version}"
    return Hold(Stage.ROLLING_BACK, LOST, f"{message}, whose bundle is lost")


def _give_up_comparing(draft: Draft, champion: Version) -> None:
    """Let the newest delivered model count as what the target serves in its own way, where no other may be it."""
    newest = draft.status.original
    if newest is not None and not may_go_live(draft):
        _end(draft, champion, newest)


def _end(draft: Draft, lost: Version, original: Version) -> None:
    """Make the delivered model champion."""
    message = (
        f"the store has lost the bundle of version {lost.version}: the delivered model, version {original.version}, "
        "serves in its place. Set spec.manualNonce to search for a better one again"
    )
    draft.update(champion=original)
    draft.condition(ConditionType.BUNDLE_AVAILABLE, ConditionStatus.FALSE, FELL_BACK, message)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, FELL_BACK, message)


def _clear(draft: Draft, champion: Version) -> None:
    """Stop telling of a bundle that was missed once another version is champion, or a run has ended since."""
    shown, last = condition_of(draft.status, ConditionType.BUNDLE_AVAILABLE), draft.status.last_run
    if shown is None or shown.status is ConditionStatus.TRUE or bundle_to_look_for(draft) is not None:
        return
    searched = last is not None and last.completion_time > shown.last_transition_time
    if shown.reason != FELL_BACK or champion.run_name is not None or searched:
        message = f"no Job has missed the bundle of version {champion.version}"
        draft.condition(ConditionType.BUNDLE_AVAILABLE, ConditionStatus.TRUE, STORED, message)
