"""The canary: a Deployment of ours beside the target, whose pods serve the new version to a share of the users first.

Nothing of the user's is changed while it is tried. It is a clone of the target's pods, so whatever changes these begins
the trial anew; and whatever ends the trial removes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from retune.api.rolling import ActiveRollout, RolloutStep
from retune.api.rollout import Overlap, Strategy
from retune.api.status import ConditionStatus, ConditionType, Stage, Version
from retune.plan import names
from retune.plan.actions import AcquireLease, CreateCanary, ScaleCanary
from retune.plan.draft import Draft, Hold
from retune.plan.observed import Canary, Target, Verb
from retune.plan.rollout.progress import LOOK_SECONDS, present_value, show, update
from retune.plan.rollout.removal import is_as_wanted, remove
from retune.plan.rollout.routing import obstacle, prepare, unfinished
from retune.plan.rollout.steps import Done, Step, TurnBack, ready
from retune.plan.rollout.undo import abandon
from retune.plan.rollout.verification import golden
from retune.plan.rollout.withdrawing import REFUSAL_RETRY_SECONDS, clear
from retune.traffic import kind_of

AUTOSCALED = "Autoscaled"
"""Reason of a canary that is possible, and whose share changes as the target is scaled."""
_NO_WEIGHT = {"weight": None, "effective_weight": None, "weight_start_time": None, "requests_before": None}
_NOT_ASKED = {"step_jobs": 0, "asked": None, "shown_by": None, "unwell_since": None}
_ANEW = {"step": RolloutStep.CANARY_GIVE.value, "weight_index": 0, "analysis": None, **_NO_WEIGHT, **_NOT_ASKED}
PASSED = _NO_WEIGHT | {"asked": None, "shown_by": None, "unwell_since": None}
"""What is forgotten of a trial that has ended well: the target's own pods have to show everything again."""


def on_trial(step: Step) -> Step:
    """Return a step that is taken only while target and canary are as the trial needs them."""

    def taken(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
        value = present_value(draft)
        if value == candidate.injected_value:
            update(draft, rollout, **PASSED)
            return Done()  # somebody gave it to the target: there is nothing left to try beside it
        if draft.status.champion is not None and value != draft.status.champion.injected_value:
            variable = draft.spec.target.injection.field
            return abandon(draft, "FieldChanged", f"{variable} was changed by others meanwhile")
        return _anew(draft, rollout, candidate) or step(draft, rollout, candidate)

    return taken


def _anew(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Begin the trial again where the canary is not the one that was tried."""
    canary = draft.observed.traffic.canary
    if rollout.step == RolloutStep.CANARY_GIVE or is_as_wanted(draft, canary, candidate):
        return None
    update(draft, rollout, step_start_time=draft.now, **_ANEW)
    name = names.canary(draft.spec.target.ref.name)
    message = f"Deployment {name} is not the one that was tried: the trial begins again"
    return show(draft, Stage.ROLLING_OUT, "CanaryLost", message)


def stand_still(draft: Draft, rollout: ActiveRollout, candidate: Version, target: Target) -> Hold:
    """Let the time of a trial stand still while the target is scaled to zero; with its pods it begins again."""
    update(draft, rollout, step_start_time=None, **_ANEW)
    message = f"Deployment {target.name} is scaled to zero: version {candidate.version} is tried once it has pods again"
    return show(draft, Stage.ROLLING_OUT, "ScaledToZero", message)


@contextmanager
def canary_in_place(draft: Draft) -> Iterator[Canary]:
    """Have a step see the canary where it looks at the target: its pods, and what they have answered at this weight."""
    whole, traffic = draft.observed, draft.observed.traffic
    if traffic.canary is None:
        raise ValueError("there is no canary")
    draft.observed = replace(whole, target=traffic.canary.workload, pods=traffic.pods, heard=traffic.held)
    try:
        yield traffic.canary
    finally:
        draft.observed = whole


def give_canary(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done:
    """Have one pod beside the target that serves the new version, and what lets requests reach it."""
    canary, target = draft.observed.traffic.canary, draft.observed.target
    if target is not None and is_as_wanted(draft, canary, candidate):
        _say_possible(draft, target)
        update(draft, rollout, start_time=draft.now, weight_index=0)
        return Done()
    refusal = draft.refusal(Verb.CANARY)
    if refusal:
        draft.wake(after=REFUSAL_RETRY_SECONDS)
        return _impossible(draft, refusal.reason, refusal.message)
    if canary is not None:
        draft.wake(after=LOOK_SECONDS)
        message = f"Deployment {canary.workload.name} of an earlier trial is removed"
        return _told(draft, "RemovingCanary", message)
    left = unfinished(draft)
    if left is not None:
        return _told(draft, "WithdrawingRoute", left)
    unreached = obstacle(draft)
    if unreached is not None:
        draft.wake(after=REFUSAL_RETRY_SECONDS if draft.observed.traffic.route else LOOK_SECONDS)
        return _impossible(draft, unreached.reason, unreached.message)
    return _create(draft, update(draft, rollout, **_ANEW), candidate)


def _create(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold:
    target, container = draft.observed.target, draft.container
    if target and container:
        draft.do(AcquireLease(target.uid))
        service = prepare(draft)
        draft.do(
            CreateCanary(
                container.name,
                draft.spec.target.injection.field,
                candidate.injected_value,
                template=target.template,
                replicas=first_pods(draft),
                overlaps=draft.spec.rollout.trial.traffic.overlap is Overlap.ALLOW,
                service=service,
            )
        )
    return _told(draft, "CreatingCanary", f"version {rollout.version} gets pods beside the target")


def _told(draft: Draft, reason: str, message: str) -> Hold:
    """Hold with what is being tried, or for as long as that has been refused, with why."""
    earlier_refusal = draft.refused_before(ConditionType.CANARY_POSSIBLE)
    return _impossible(draft, *earlier_refusal) if earlier_refusal else show(draft, Stage.ROLLING_OUT, reason, message)


def _impossible(draft: Draft, reason: str, message: str) -> Hold:
    draft.condition(ConditionType.CANARY_POSSIBLE, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)


def _say_possible(draft: Draft, target: Target) -> None:
    """Say that the trial can be, and warn of who scales the target meanwhile."""
    record = draft.status.canary_route
    way = f" by HTTPRoute {record.name}" if record else ""
    message = f"Deployment {names.canary(target.name)} takes a share of the requests to Deployment {target.name}{way}"
    autoscaler = draft.observed.traffic.autoscaler
    if autoscaler:
        message += f". HorizontalPodAutoscaler {autoscaler} scales the target meanwhile: the canary's pods follow"
        if draft.spec.rollout.trial.traffic.overlap is Overlap.ALLOW:
            message += ", and it may count them as the target's"
    reason = AUTOSCALED if autoscaler else "Possible"
    draft.condition(ConditionType.CANARY_POSSIBLE, ConditionStatus.TRUE, reason, message)


def canary_ready(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Wait until the canary's first pods are ready."""
    with canary_in_place(draft) as canary:
        have_pods(draft, canary, first_pods(draft))
        return ready(draft, rollout, candidate)


def canary_golden(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Have the canary's first pods asked, before they have company."""
    with canary_in_place(draft) as canary:
        have_pods(draft, canary, first_pods(draft))
        return golden(draft, rollout, candidate)


def have_pods(draft: Draft, canary: Canary, number: int) -> None:
    """Have so many pods of the canary, whoever has scaled it meanwhile."""
    if canary.workload.wanted != number:
        draft.do(ScaleCanary(canary.workload.uid, number))


def first_pods(draft: Draft) -> int:
    """Return how many pods a version has before any request: one, or all where requests are switched at once."""
    return _wanted(draft) if draft.spec.rollout.strategy is Strategy.BLUE_GREEN else 1


def pods_for(draft: Draft, weight: int) -> int:
    """Return how many pods the canary is to have at a weight, as many as the target wants at most times the surge."""
    traffic, wanted = draft.spec.rollout.trial.traffic, _wanted(draft)
    most = max(1, wanted * traffic.max_surge // 100)
    return max(first_pods(draft), kind_of(traffic).pods(weight, wanted=wanted, most=most))


def _wanted(draft: Draft) -> int:
    target = draft.observed.target
    return target.wanted if target else 1


def end_canary(draft: Draft, _: ActiveRollout, candidate: Version) -> Hold | Done:
    """Remove the canary once every pod of the target serves the new version, and before it is watched alone."""
    canary = draft.observed.traffic.canary
    if canary is None and clear(draft):
        return Done()
    if canary is not None:
        remove(draft, canary)
    refusal = draft.refusal(Verb.CANARY)
    draft.wake(after=REFUSAL_RETRY_SECONDS if refusal else LOOK_SECONDS)
    name = names.canary(draft.spec.target.ref.name)
    message = f"every pod of the target runs version {candidate.version}: Deployment {name} is removed"
    if refusal:
        return show(draft, Stage.ROLLING_OUT, refusal.reason, refusal.message)
    return show(
        draft, Stage.ROLLING_OUT, *(draft.refused_before(ConditionType.ROLLED_OUT) or ("RemovingCanary", message))
    )
