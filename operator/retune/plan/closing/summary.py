"""What people and their tools read first: Ready, Reconciling and Stalled by kstatus, stage and message, and events."""

from retune.api.status import Condition, ConditionStatus, ConditionType, Stage, Version
from retune.plan.actions import EmitEvent, SetFinalizer
from retune.plan.baseline.stored import LOST
from retune.plan.closing.commands import FOLLOWED, NOT_APPROVED, WITHDRAWN
from retune.plan.closing.curing import CAN_BE_LEARNED, NOTHING_LOST
from retune.plan.closing.delivered import BEFORE, MUST_WIN, WAITS
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.guards.deletion import FINALIZER, needs_finalizer
from retune.plan.guards.ownership import OUTAGE_EXPECTED
from retune.plan.kept import is_shown
from retune.plan.observed import OBJECT_MISSING, REFUSALS
from retune.plan.rollout.proposing import REVERT_PROPOSED
from retune.plan.rollout.returned import BY_PERSON
from retune.plan.run.room import STORE_FULL
from retune.plan.watch.state import NOT_SEEN_YET

_BETWEEN_VERSIONS = {Stage.ROLLING_OUT, Stage.BAKING, Stage.ROLLING_BACK}
_WORKING = {Stage.PENDING, Stage.BASELINING, Stage.OPTIMIZING, Stage.GATING} | _BETWEEN_VERSIONS
_NEEDS_A_PERSON = {
    OBJECT_MISSING,
    "ImagePullFailed",
    "ContainerFailed",
    "SidecarRunsOn",
    STORE_FULL,
    "QuotaExceeded",
    "AdmissionDenied",
    "Forbidden",
    "NameConflict",
    "CanaryImpossible",
    "RequestTooLong",
    "Unreadable",
    "Invalid",
}
"""Reasons of a Hold that no waiting mends; those of stage Blocked need a person in any case."""
_WITH_EVENTS = (
    ConditionType.TARGET_RESOLVED,
    ConditionType.TARGET_OWNED,
    ConditionType.BASELINED,
    ConditionType.OPTIMIZING,
    ConditionType.CANDIDATE_ACCEPTED,
    ConditionType.DELIVERED_LIVE,
    ConditionType.ROLLED_OUT,
    ConditionType.CANARY_POSSIBLE,
    ConditionType.REGISTERED,
    ConditionType.BUNDLE_AVAILABLE,
    ConditionType.DRIFT_DETECTED,
    ConditionType.QUALITY_DEGRADED,
    ConditionType.PERFORMANCE_DEGRADED,
    ConditionType.MONITORING_RELIABLE,
    ConditionType.CURABLE,
    ConditionType.CIRCUIT_OPEN,
    ConditionType.COMMANDS_FOLLOWED,
    ConditionType.SUSPENDED,
)
"""Conditions whose transitions are posted as events, in this order."""
_ABNORMAL = {
    ConditionType.DRIFT_DETECTED,
    ConditionType.QUALITY_DEGRADED,
    ConditionType.PERFORMANCE_DEGRADED,
    ConditionType.CIRCUIT_OPEN,
}
"""Conditions that are True when something is wrong."""
_ROUTINE = {
    "Starting",
    "Running",
    "Queued",
    "Progressing",
    "Injecting",
    "Resolved",
    "LeaseHeld",
    "FieldOwned",
    "Possible",
    CAN_BE_LEARNED,
    NOTHING_LOST,
    FOLLOWED,
}
"""Reasons that make no event."""
_GOOD = {
    "Resumed",
    "NoGain",
    "Recommended",
    "Promoted",
    "CandidateFound",
    "Cancelled",
    "RevertedByOthers",
    NOT_APPROVED,
    WITHDRAWN,
    BY_PERSON,
    "Pinned",
    BEFORE,
    MUST_WIN,
    WAITS,
}
"""Reasons of a condition that is False although nothing is wrong."""


def summarize(draft: Draft, hold: Hold) -> None:
    """Set the summary conditions, the finalizer, stage and message, and post an event for each transition, once."""
    _ready(draft, hold)
    stuck = _what_waits_for_a_person(draft, hold)
    _reconciling(draft, hold, stuck)
    _stalled(draft, stuck)
    draft.update(observed_generation=draft.resource.metadata.generation, stage=hold.stage, message=hold.message[:1024])
    _finalizer(draft)
    _events(draft)


def _ready(draft: Draft, hold: Hold) -> None:
    status, reason, message = _readiness(draft, hold)
    draft.condition(ConditionType.READY, status, reason, message)


def _readiness(draft: Draft, hold: Hold) -> tuple[ConditionStatus, str, str]:
    champion, target = draft.status.champion, draft.observed.target
    if hold.stage is Stage.TERMINATING:
        return ConditionStatus.FALSE, hold.reason, hold.message
    if champion is None:
        blocked = hold.stage is Stage.BLOCKED
        return (ConditionStatus.FALSE if blocked else ConditionStatus.UNKNOWN), hold.reason, hold.message
    if target is None:
        return ConditionStatus.FALSE, hold.reason, hold.message
    if hold.stage in _BETWEEN_VERSIONS:
        return ConditionStatus.UNKNOWN, hold.stage, hold.message
    lost = condition_of(draft.status, ConditionType.BUNDLE_AVAILABLE)
    if lost is not None and lost.reason == LOST:
        return ConditionStatus.FALSE, lost.reason, lost.message
    if not _champion_serves(draft, champion):
        blocked = hold.stage is Stage.BLOCKED
        return (ConditionStatus.FALSE if blocked else ConditionStatus.UNKNOWN), hold.reason, hold.message
    if target.available == 0 and target.wanted > 0:
        return ConditionStatus.FALSE, "TargetUnavailable", f"no pod of {draft.target_name} is available"
    return ConditionStatus.TRUE, "ChampionServing", _serving(champion)


def _serving(champion: Version) -> str:
    if not is_shown(champion):
        return f"version {champion.version} is given to the target, whose pods are ready; it is not shown to serve"
    return f"version {champion.version} serves"


def _champion_serves(draft: Draft, champion: Version) -> bool:
    """Whether the target names the champion; before the first rollout, that is whatever its manifest says."""
    container, candidate = draft.container, draft.status.candidate
    if container is None or container.indirect:
        return False
    if container.value == champion.injected_value:
        return True
    return champion.run_name is None and (candidate is None or container.value != candidate.injected_value)


def _reconciling(draft: Draft, hold: Hold, stuck: tuple[str, str] | None) -> None:
    """True while work goes on by itself: kstatus looks at it before Stalled, so that both must not be True."""
    if stuck:
        draft.condition(ConditionType.RECONCILING, ConditionStatus.FALSE, "Stalled", stuck[1])
    elif hold.stage in _WORKING:
        draft.condition(ConditionType.RECONCILING, ConditionStatus.TRUE, hold.stage.value, hold.message)
    else:
        draft.condition(ConditionType.RECONCILING, ConditionStatus.FALSE, "Settled", "nothing is under way")


def _stalled(draft: Draft, stuck: tuple[str, str] | None) -> None:
    status = ConditionStatus.TRUE if stuck else ConditionStatus.FALSE
    reason, message = stuck or ("Moving", "nothing waits for a person")
    draft.condition(ConditionType.STALLED, status, reason, message)


def _what_waits_for_a_person(draft: Draft, hold: Hold) -> tuple[str, str] | None:
    """Return reason and sentence of what no waiting mends, or None.

    A rollout that turns back shows why it did; that is past, and only a refusal keeps it from going on.
    """
    turning_back = hold.stage is Stage.ROLLING_BACK
    if hold.stage is Stage.BLOCKED or hold.reason in (
        REFUSALS | {REVERT_PROPOSED} if turning_back else _NEEDS_A_PERSON
    ):
        return hold.reason, hold.message
    watched = condition_of(draft.status, ConditionType.MONITORING_RELIABLE)
    if watched and watched.reason == OBJECT_MISSING and hold.stage is Stage.MONITORING:
        return watched.reason, watched.message
    return None


def _finalizer(draft: Draft) -> None:
    if draft.resource.metadata.deletion_timestamp is not None:
        return
    present = FINALIZER in draft.resource.metadata.finalizers
    if needs_finalizer(draft) != present:
        draft.do(SetFinalizer(present=not present))


def _events(draft: Draft) -> None:
    before = draft.resource.status
    for kind in _WITH_EVENTS:
        old, new = condition_of(before, kind), condition_of(draft.status, kind)
        if new is not None and _is_news(kind, old, new):
            draft.do(EmitEvent(new.reason, new.message, warning=_is_bad(kind, new)))


def _is_news(kind: ConditionType, old: Condition | None, new: Condition) -> bool:
    """Whether a condition says something that people should hear of."""
    status_before = old.status if old else None
    if kind in _ABNORMAL:
        return new.status is not status_before and ConditionStatus.TRUE in {new.status, status_before}
    if kind is ConditionType.MONITORING_RELIABLE and (old is None or old.reason == NOT_SEEN_YET[0]):
        return new.status is not ConditionStatus.TRUE
    changed = old is None or (old.status, old.reason) != (new.status, new.reason)
    routine = {NOT_SEEN_YET[0]} if kind is ConditionType.MONITORING_RELIABLE else _ROUTINE
    return changed and new.reason not in routine


def _is_bad(kind: ConditionType, new: Condition) -> bool:
    if kind in _ABNORMAL or new.reason == OUTAGE_EXPECTED:
        return new.status is ConditionStatus.TRUE
    bad = new.status is ConditionStatus.FALSE and new.reason not in _GOOD
    return bad and kind is not ConditionType.CANDIDATE_ACCEPTED
