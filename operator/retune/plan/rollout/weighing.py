"""The weights of a canary, one after the other: held for a time, for a number of requests, and under watch.

A weight is left upwards only, and only after its time and its requests, with nothing that speaks against the version.
"""

from dataclasses import replace

from retune.api.base import seconds
from retune.api.execution import CanaryStep
from retune.api.status import ActiveRollout, ConditionType, Stage, Version
from retune.plan.draft import Draft, Hold
from retune.plan.observed import Canary, Verb
from retune.plan.rollout.baking import crashed, unwell
from retune.plan.rollout.blame import EDITED
from retune.plan.rollout.canary import PASSED, canary_in_place, have_pods, pods_for
from retune.plan.rollout.comparing import compare
from retune.plan.rollout.listening import listen
from retune.plan.rollout.progress import LOOK_SECONDS, UNSETTLED, pods_in_words, show, under_way, update
from retune.plan.rollout.routing import present, share
from retune.plan.rollout.steps import Done, TurnBack
from retune.plan.rollout.withdrawing import REFUSAL_RETRY_SECONDS
from retune.traffic import Split, kind_of


def weigh(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Have the canary at the weight whose turn it is, and go on to the next one when it has been seen enough of."""
    steps, index = draft.spec.rollout.canary.steps, rollout.weight_index or 0
    if index >= len(steps):
        update(draft, rollout, **PASSED)
        return Done()
    rollout = _shown(draft, rollout, steps[index])
    with canary_in_place(draft) as canary:
        setback = _set_back(draft, rollout, candidate)
    if setback is not None:
        return setback
    hold = _given(draft, canary, steps[index], candidate) or _unserved(draft, canary, candidate)
    hold = hold or _held(draft, steps[index], candidate)
    if hold is not None:
        return hold
    with canary_in_place(draft):
        setback = _judged(draft, under_way(draft), candidate, last=True)
    return setback or _next(draft, candidate, index)


def _shown(draft: Draft, rollout: ActiveRollout, step: CanaryStep) -> ActiveRollout:
    """Have the status tell the share that is wanted, and the one that there is."""
    target, canary = draft.observed.target, draft.observed.traffic.canary
    ready = Split(canary=canary.workload.available if canary else 0, target=target.available if target else 0)
    effective = kind_of(draft.spec.rollout.canary.traffic).effective(present(draft, step.weight), ready)
    if draft.observed.traffic.unserved:
        effective = 0
    return update(draft, rollout, weight=step.weight, effective_weight=effective)


def _set_back(draft: Draft, rollout: ActiveRollout, candidate: Version) -> TurnBack | None:
    """Return what the canary's pods have done that ends the trial at once."""
    setback = crashed(draft, rollout, candidate) or unwell(draft, rollout, candidate)
    if setback is not None:
        return replace(setback, reason="CanaryUnhealthy")
    return _judged(draft, under_way(draft), candidate, last=False)


def _judged(draft: Draft, rollout: ActiveRollout, candidate: Version, *, last: bool) -> TurnBack | None:
    """Return what the canary's answers show against the version, on their own and beside the champion's."""
    beside = draft.observed.traffic.beside
    judgement = listen(draft, candidate, last=last, beside=beside)
    if judgement.reason is None:
        judgement = compare(draft, candidate, last=last) or judgement
    if judgement.reason is None:
        return None
    excuse = EDITED if rollout.edited else judgement.excuse
    return TurnBack(judgement.reason, f"as a canary, {judgement.message}", excuse)


def _given(draft: Draft, canary: Canary, step: CanaryStep, candidate: Version) -> Hold | TurnBack | None:
    """Have pods and share for a weight: more pods before a larger share, and a smaller share before fewer pods."""
    acts = [_scaled, share]
    if pods_for(draft, step.weight) < canary.workload.wanted:
        acts.reverse()
    answers = (act(draft, canary, step, candidate) for act in acts)
    return next((answer for answer in answers if answer is not None), None)


def _scaled(draft: Draft, canary: Canary, step: CanaryStep, candidate: Version) -> Hold | None:
    """Have as many pods as the weight needs, and wait until all of them are ready."""
    wanted, workload = pods_for(draft, step.weight), canary.workload
    if workload.wanted == wanted and workload.settled:
        return None
    refusal = draft.refusal(Verb.CANARY)
    have_pods(draft, canary, wanted)
    draft.wake(after=REFUSAL_RETRY_SECONDS if refusal else LOOK_SECONDS)
    if refusal:
        return show(draft, Stage.ROLLING_OUT, refusal.reason, refusal.message)
    earlier = draft.refused_before(ConditionType.ROLLED_OUT) if workload.wanted != wanted else None
    with canary_in_place(draft):
        message = f"version {candidate.version} gets pods for {step.weight} % of the requests: {pods_in_words(draft)}"
    return show(draft, Stage.ROLLING_OUT, *(earlier or ("ScalingCanary", message)))


def _unserved(draft: Draft, canary: Canary, candidate: Version) -> Hold | None:
    """Let the time of a weight begin again with a Service that sends the canary requests, while there is none."""
    if not draft.observed.traffic.unserved:
        return None
    update(draft, under_way(draft), weight_start_time=None, requests_before=None)
    draft.wake(after=LOOK_SECONDS)
    message = (
        f"no Service selects the pods of Deployment {canary.workload.name} any more, so that version "
        f"{candidate.version} gets no requests: let one select them, or set spec.rollout.strategy to RollingUpdate"
    )
    return show(draft, Stage.ROLLING_OUT, "CanaryUnserved", message)


def _held(draft: Draft, step: CanaryStep, candidate: Version) -> Hold | None:
    """Hold the weight for its time and until enough requests were answered at it."""
    rollout, heard = under_way(draft), draft.observed.traffic.heard
    counted = heard.requests if heard else None
    if rollout.weight_start_time is None:
        rollout = update(draft, rollout, weight_start_time=draft.now)
    if rollout.requests_before is None and counted is not None:
        rollout = update(draft, rollout, requests_before=f"{counted:.0f}")
    left = draft.remaining(rollout.weight_start_time or draft.now, seconds(step.hold))
    by = "its pods" if draft.status.canary_route is None else "the route"
    has = f"version {candidate.version} has {step.weight} % of the requests ({rollout.effective_weight} % by {by})"
    if left > 0:
        draft.wake(after=max(1.0, min(LOOK_SECONDS, left)))
        return show(draft, Stage.ROLLING_OUT, "HoldingWeight", f"{has} and is watched for {step.hold}")
    if rollout.requests_before is not None and _answered(rollout, counted) < step.min_requests:
        draft.wake(after=LOOK_SECONDS)
        message = f"{has} and is watched until its pods have answered {step.min_requests} of them"
        return show(draft, Stage.ROLLING_OUT, "AwaitingRequests", message)
    return None


def _answered(rollout: ActiveRollout, counted: float | None) -> float:
    """Return the requests that were answered at this weight; after pods were replaced, those of the new ones."""
    before = float(rollout.requests_before or 0)
    return 0.0 if counted is None else counted - before if counted >= before else counted


def _next(draft: Draft, candidate: Version, index: int) -> Hold | Done | TurnBack:
    """Go on to the next weight, or past the last one once the target's own pods are well."""
    rollout, target = under_way(draft), draft.observed.target
    if index + 1 == len(draft.spec.rollout.canary.steps) and (
        target is None or target.hindrance is not None or not target.settled
    ):
        draft.wake(after=LOOK_SECONDS)
        serving = (target.hindrance or target.progress) if target else "the target is gone"
        message = f"version {candidate.version} stays a canary until the target's pods are well: {serving}"
        return show(draft, Stage.ROLLING_OUT, UNSETTLED, message)
    fields = {"weight_index": index + 1, "weight_start_time": None, "requests_before": None}
    return weigh(draft, update(draft, rollout, **fields), candidate)
