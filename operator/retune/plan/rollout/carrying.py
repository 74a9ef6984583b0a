"""From a candidate that passed the gate to the champion, and back when it does not hold up.

The strategy's steps are taken in order; any of them may turn the rollout back. A version is champion only after all of
them, and a field or a template that others change meanwhile is theirs.
"""

from datetime import datetime, timedelta

from retune.api import FIELD_MANAGER
from retune.api.rolling import ActiveRollout, RolloutStep
from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.plan.actions import SetFinalizer
from retune.plan.draft import Draft, Hold
from retune.plan.guards.deletion import FINALIZER
from retune.plan.guards.ownership import field_conflict, reject
from retune.plan.hashing import snapshot_hash
from retune.plan.kept import named
from retune.plan.rollout import returned
from retune.plan.rollout.approval import approval, is_approved
from retune.plan.rollout.blame import EDITED, is_innocent
from retune.plan.rollout.canary import stand_still
from retune.plan.rollout.listening import shares_before
from retune.plan.rollout.progress import LOOK_SECONDS, UNSETTLED, blocked, present_value, show, under_way, update
from retune.plan.rollout.promotion import promote
from retune.plan.rollout.proposing import is_for_git, propose
from retune.plan.rollout.removal import lingering, remove
from retune.plan.rollout.steps import TurnBack
from retune.plan.rollout.strategies import STRATEGIES, is_before_target, step_of, strategy_of
from retune.plan.rollout.undo import abandon, undo
from retune.plan.rollout.withdrawing import clear
from retune.plan.run.conclusion import conclude
from retune.plan.run.reasons import MODE_CHANGED, nonce_is_new
from retune.plan.told import Abort
from retune.plan.watch.state import begin_anew

_BEGINNINGS = ("start_time", "step_start_time", "weight_start_time", "bake_start_time", "unwell_since")
_SKEW_SECONDS = 60.0
"""By how much the clock of another operator may be ahead without being taken for one that was set back."""


def begin(draft: Draft) -> Hold | None:
    """Start rolling out a candidate that passed the gate, if the mode allows it and nothing is in the way."""
    candidate, target = draft.status.candidate, draft.observed.target
    if candidate is None or draft.spec.mode not in {Mode.AUTOMATIC, Mode.PROPOSE}:
        return None
    if candidate.spec_hash != snapshot_hash(draft.spec):
        draft.update(candidate=None)
        return None
    if is_for_git(draft):
        return propose(draft, candidate)
    conflict = field_conflict(draft)
    if conflict:
        return blocked(draft, "FieldConflict", conflict)
    rollout = ActiveRollout(
        version=candidate.version,
        start_time=draft.now,
        step=next(iter(STRATEGIES[draft.spec.rollout.strategy])).value,
        step_start_time=draft.now,
        template=(target.template if target else None) or None,
        **shares_before(draft),
    )
    approved = approval(draft, rollout, candidate)
    waiting = approved if isinstance(approved, Hold) else _unfit(draft, candidate)
    if waiting is not None:
        return waiting
    draft.update(rollout=rollout)
    return carry_on(draft)


def _unfit(draft: Draft, candidate: Version) -> Hold | None:
    """Wait while the pods that serve now are not well: what failed then could not be told from the version's doing."""
    target = draft.observed.target
    if target is None or (target.settled and target.hindrance is None):
        return None
    draft.wake(after=LOOK_SECONDS)
    serving = target.hindrance or target.progress
    message = f"version {candidate.version} waits until the pods of {draft.target_name} are well: {serving}"
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.UNKNOWN, UNSETTLED, message)
    return Hold(Stage.GATING, UNSETTLED, message)


def carry_on(draft: Draft) -> Hold | None:
    """Carry the rollout under way, or its undoing, on as far as it goes."""
    rollout, champion = draft.status.rollout, draft.status.champion
    if rollout is None:
        return None
    candidate = _goes_live(draft, rollout)
    if candidate is None or champion is None:
        draft.update(rollout=None)
        return None
    rollout = _begun(draft, rollout)
    if not rollout.injected and not rollout.rollback_reason and _is_unwanted(draft, rollout, candidate):
        _withdraw(draft, candidate)
        return None
    if FINALIZER not in draft.resource.metadata.finalizers:
        draft.do(SetFinalizer(present=True))
    if rollout.rollback_reason:
        return _go_back(draft, rollout, candidate, champion)
    if rollout.injected and present_value(draft) != candidate.injected_value:
        message = f"{draft.spec.target.injection.field} was changed by others meanwhile"
        return abandon(draft, "FieldChanged", message)
    if _names_unknown(draft, rollout):
        message = f"spec.rollout.rollbackTo names version {draft.spec.rollout.rollback_to}, which is not kept"
        excuse = "a person wants another version than this one, and which one cannot be told"
        return _turn_back(draft, TurnBack("RollbackUnknown", message, excuse), candidate, champion)
    if rollout.injected and draft.observed.target is not None and draft.observed.target.aborted is not None:
        return _turn_back(draft, _given_up(draft, candidate, draft.observed.target.aborted), candidate, champion)
    return _without_pods(draft, rollout, candidate) or _take_steps(draft, candidate, champion)


def _given_up(draft: Draft, candidate: Version, aborted: Abort) -> TurnBack:
    """Return that the target's controller or an agent has given up; a version that was seen to fail is to blame."""
    message = f"version {candidate.version}: {draft.target_name}: {aborted.message}"
    if under_way(draft).edited:
        return TurnBack(aborted.reason, message, EDITED)
    is_to_blame = aborted.by_analysis or not is_innocent(draft)
    return TurnBack(aborted.reason, message, None if is_to_blame else "nothing shows that it was the version's doing")


def _goes_live(draft: Draft, rollout: ActiveRollout) -> Version | None:
    """Return the version that a rollout gives to the target: a new one, or an earlier one that a person wants back."""
    return draft.status.candidate if rollout.rollback_number is None else named(draft.status, str(rollout.version))


def _begun(draft: Draft, rollout: ActiveRollout) -> ActiveRollout:
    """Let what is written down as beginning in the future begin now: the clock that wrote it has been set back since.

    Its span would last until the clock has caught up. Begun anew, it is never cut short and lasts no longer than twice.
    """
    latest = draft.now + timedelta(seconds=_SKEW_SECONDS)
    moments = {name: getattr(rollout, name) for name in _BEGINNINGS}
    ahead = {name: draft.now for name, moment in moments.items() if moment is not None and moment > latest}
    return update(draft, rollout, **ahead) if ahead else rollout


def _names_unknown(draft: Draft, rollout: ActiveRollout) -> bool:
    """Whether a person wants a version that is not kept, while another one is on trial."""
    name = draft.spec.rollout.rollback_to
    return rollout.rollback_number is None and name is not None and named(draft.status, name) is None


def _is_unwanted(draft: Draft, rollout: ActiveRollout, candidate: Version) -> bool:
    if rollout.rollback_number is not None:  # what was on trial when it began is taken back with it
        is_wanted = named(draft.status, draft.spec.rollout.rollback_to) == candidate
        return not is_wanted and _needs_nothing_back(draft)
    is_wanted = is_approved(draft.spec, candidate) and not _names_unknown(draft, rollout)
    may_go_live = draft.spec.mode is Mode.AUTOMATIC and is_wanted
    if may_go_live and not _is_outdated(draft, candidate):
        return False
    return present_value(draft) != candidate.injected_value


def _needs_nothing_back(draft: Draft) -> bool:
    """Whether the champion serves, or what others have set, who are not fought over it."""
    champion, container = draft.status.champion, draft.container
    serves = champion is not None and present_value(draft) == champion.injected_value
    return serves or (container is not None and container.manager not in {None, FIELD_MANAGER})


def _is_outdated(draft: Draft, candidate: Version) -> bool:
    return candidate.spec_hash != snapshot_hash(draft.spec) or nonce_is_new(draft)


def _withdraw(draft: Draft, candidate: Version) -> None:
    """Give up a rollout that has not touched the target; a candidate that is still wanted is kept as recommended."""
    if under_way(draft).weight_index is not None:
        begin_anew(draft)
    draft.update(rollout=None)
    if draft.status.candidate is None:
        return
    if draft.spec.mode is not Mode.OBSERVE_ONLY and not _is_outdated(draft, candidate):
        return
    reason = MODE_CHANGED if draft.spec.mode is Mode.OBSERVE_ONLY else "SpecChanged"
    conclude(draft, Outcome.CANCELLED, reason, "the spec changed before the candidate was given to the target")
    draft.update(candidate=None)


def _without_pods(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Let time stand still while the target is scaled to zero, and begin with its first pods again afterwards."""
    target = draft.observed.target
    if target is None or target.wanted > 0:
        return None
    if not rollout.injected:
        is_tried = is_before_target(rollout, strategy_of(draft.spec.rollout, rollout))
        return stand_still(draft, rollout, candidate, target) if is_tried else None
    _anew(draft, rollout, since=None)
    if target.unfit is not None:  # its pods are those of another object
        return show(draft, Stage.ROLLING_OUT, "NotFollowable", f"{draft.target_name}: {target.unfit}")
    message = f"{draft.target_name} is scaled to zero: version {candidate.version} is proven once a pod runs it"
    return show(draft, Stage.ROLLING_OUT, "ScaledToZero", message)


def _anew(draft: Draft, rollout: ActiveRollout, *, since: datetime | None, **fields: object) -> ActiveRollout:
    """Go back to the step in which the first new pods are waited for, as all of them are others now."""
    first = {"step": RolloutStep.FIRST_GOLDEN.value, "step_start_time": since, "step_jobs": 0, "asked": None}
    clocks = {"bake_start_time": None, "unwell_since": None, "shown_by": None}
    return update(draft, rollout, **first, **clocks, **fields)


def _take_steps(draft: Draft, candidate: Version, champion: Version) -> Hold | None:
    """Take step after step until one of them holds the pass or turns the rollout back."""
    rollout = _with_present_template(draft)
    strategy, heard = strategy_of(draft.spec.rollout, rollout), ""
    for step in list(strategy)[list(strategy).index(step_of(rollout, strategy)) :]:
        answer = strategy[step](draft, _entered(draft, step), candidate)
        if isinstance(answer, Hold):
            return answer
        if isinstance(answer, TurnBack):
            return _turn_back(draft, answer, candidate, champion)
        heard = answer.message
    if rollout.rollback_number is not None:
        returned.succeed(draft, under_way(draft), candidate, champion)
    else:
        promote(draft, under_way(draft), candidate, heard)
    return None


def _with_present_template(draft: Draft) -> ActiveRollout:
    """Note when others have changed the pod template: its pods are others then, and get their whole time."""
    rollout, target = under_way(draft), draft.observed.target
    template = target.template if target and target.template else rollout.template
    if rollout.template == template:
        return rollout
    if rollout.template is None or not rollout.injected:
        is_tried = rollout.template is not None and rollout.weight_index is not None
        return update(draft, rollout, template=template, edited=rollout.edited or is_tried)
    return _anew(draft, rollout, since=draft.now, start_time=draft.now, template=template, edited=True)


def _entered(draft: Draft, step: RolloutStep) -> ActiveRollout:
    """Return the rollout in this step, with the time that the step began."""
    rollout, target = under_way(draft), draft.observed.target
    stands_still = target is not None and target.held is not None
    if rollout.step == step and (rollout.step_start_time is not None or stands_still):
        return rollout
    if rollout.step is None:  # begun by a release that knew no steps
        since, jobs = rollout.bake_start_time or rollout.start_time, rollout.verify_attempt
        return update(draft, rollout, step=step.value, step_start_time=since, step_jobs=jobs)
    fields: dict[str, object] = {"step": step.value, "step_start_time": draft.now}
    if rollout.step == step:  # time stood still
        fields["start_time"] = draft.now
    else:
        fields["step_jobs"] = 0
    if step is RolloutStep.BAKE:
        fields["bake_start_time"] = draft.now
    return update(draft, rollout, **fields)


def _turn_back(draft: Draft, answer: TurnBack, candidate: Version, champion: Version) -> Hold | None:
    """Begin to undo the rollout; the version is rejected only for what it did itself."""
    is_new = under_way(draft).rollback_number is None
    is_excused = is_new and answer.excuse is not None
    message = f"{answer.message.rstrip('.')}. Not rejected: {answer.excuse}" if is_excused else answer.message
    rollout = update(draft, under_way(draft), rollback_reason=answer.reason, rollback_message=message[:1024])
    show(draft, Stage.ROLLING_BACK, answer.reason, message)
    if is_new and answer.excuse is None:
        reject(draft, candidate, answer.reason, answer.message)
    return _go_back(draft, rollout, candidate, champion)


def _go_back(draft: Draft, rollout: ActiveRollout, candidate: Version, champion: Version) -> Hold | None:
    """Have the champion serve again: first a canary goes, and nothing is over while it gives the version a share."""
    canary = draft.observed.traffic.canary
    if canary is not None:
        remove(draft, canary)
    else:
        clear(draft)
    linger = lingering(draft) if present_value(draft) == champion.injected_value else None
    return linger or undo(draft, rollout, candidate, destination=champion)
