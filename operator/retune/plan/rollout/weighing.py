"""The weights of a canary, one after the other: held for a time, for a number of requests, and under watch.

A weight is left upwards only, and only after its time, its requests and the proof that is asked for, with nothing that
speaks against the version. The owner may bound the wait for requests and proof, and says what follows then.
"""

from dataclasses import dataclass, replace

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.rollout import CanaryStep, OnEvidenceTimeout, Requirement
from retune.api.status import ConditionType, Stage, Version
from retune.plan.draft import Draft, Hold
from retune.plan.observed import Canary, Verb
from retune.plan.rollout.baking import crashed, unwell
from retune.plan.rollout.blame import EDITED
from retune.plan.rollout.canary import PASSED, canary_in_place, have_pods, pods_for
from retune.plan.rollout.comparing import Comparison, Verdict, compare, errors, latency
from retune.plan.rollout.listening import Judgement, listen
from retune.plan.rollout.progress import LOOK_SECONDS, UNSETTLED, pods_in_words, show, under_way, update
from retune.plan.rollout.routing import present, share, testers
from retune.plan.rollout.steps import Done, TurnBack
from retune.plan.rollout.withdrawing import REFUSAL_RETRY_SECONDS
from retune.traffic import ALL, Split, kind_of

TOO_LITTLE = "too little was seen of it to say that it is to blame"
_WITH_TESTERS = "requests of testers are among its own, and none among the champion's"


@dataclass(frozen=True)
class _Missing:
    """What a weight still lacks once its time is over."""

    reason: str
    until: str
    """When there is enough, in words."""


def weigh(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Have the canary at the weight whose turn it is, and go on to the next one when it has been seen enough of."""
    steps, index = draft.spec.rollout.trial.steps, rollout.weight_index or 0
    if index >= len(steps):
        update(draft, rollout, **PASSED)
        return Done()
    rollout = _shown(draft, rollout, steps[index])
    with canary_in_place(draft) as canary:
        setback = _set_back(draft, rollout, candidate, steps[index])
    if setback is not None:
        return setback
    hold = _given(draft, canary, steps[index], candidate) or _unserved(draft, canary, candidate)
    ending = (
        hold or _held(draft, steps[index], candidate) or _unready(draft, candidate, is_last=index + 1 == len(steps))
    )
    if ending is not None:
        return ending
    with canary_in_place(draft):
        setback = _judged(draft, under_way(draft), candidate, last=True)
    return setback or _next(draft, candidate, index)


def _shown(draft: Draft, rollout: ActiveRollout, step: CanaryStep) -> ActiveRollout:
    """Have the status tell the share that is wanted, and the one that there is."""
    target, canary = draft.observed.target, draft.observed.traffic.canary
    ready = Split(canary=canary.workload.available if canary else 0, target=target.available if target else 0)
    effective = kind_of(draft.spec.rollout.trial.traffic).effective(present(draft, step.weight), ready)
    if draft.observed.traffic.unserved:
        effective = 0
    return update(draft, rollout, weight=step.weight, effective_weight=effective)


def _set_back(draft: Draft, rollout: ActiveRollout, candidate: Version, step: CanaryStep) -> TurnBack | None:
    """Return what the canary's pods have done that ends the trial at once."""
    setback = crashed(draft, rollout, candidate) or unwell(draft, rollout, candidate)
    if setback is not None:
        return replace(setback, reason="CanaryUnhealthy")
    since = rollout.weight_start_time
    settled = since is not None and draft.remaining(since, seconds(step.hold)) <= 0
    return _judged(draft, under_way(draft), candidate, last=False, settled=settled)


def _judged(
    draft: Draft, rollout: ActiveRollout, candidate: Version, *, last: bool, settled: bool = True
) -> TurnBack | None:
    """Return what the canary's answers show against the version, on their own and beside the champion's."""
    judgement = listen(draft, candidate, last=last, beside=draft.observed.traffic.beside)
    if judgement.reason is None and _is_comparable(rollout):
        judgement = _compared_with_testers(draft, compare(draft, candidate, settled=settled, last=last)) or judgement
    if judgement.reason is None:
        return None
    excuse = EDITED if rollout.edited else judgement.excuse
    return TurnBack(judgement.reason, f"{draft.spec.rollout.on_trial}, {judgement.message}", excuse)


def _is_comparable(rollout: ActiveRollout) -> bool:
    """Whether users ask both sides: testers alone are no sample of them, and all requests leave the champion none."""
    return 0 < (rollout.weight or 0) < ALL


def _compared_with_testers(draft: Draft, judgement: Judgement | None) -> Judgement | None:
    """Return what a comparison shows; where testers ask one side alone, it is not held against the version."""
    if judgement is None or testers(draft) is None:
        return judgement
    return replace(judgement, excuse=judgement.excuse or _WITH_TESTERS)


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
        gets = f"pods for {step.weight} % of the requests" if step.weight else "pods for testers"
        message = f"version {candidate.version} gets {gets}: {pods_in_words(draft)}"
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


def _held(draft: Draft, step: CanaryStep, candidate: Version) -> Hold | TurnBack | None:
    """Hold the weight for its time, and until enough was seen at it."""
    rollout, heard = under_way(draft), draft.observed.traffic.heard
    counted = heard.requests if heard else None
    if rollout.weight_start_time is None:
        rollout = update(draft, rollout, weight_start_time=draft.now)
    if rollout.requests_before is None and counted is not None:
        rollout = update(draft, rollout, requests_before=f"{counted:.0f}")
    left = draft.remaining(rollout.weight_start_time or draft.now, seconds(step.hold))
    if left > 0:
        draft.wake(after=max(1.0, min(LOOK_SECONDS, left)))
        message = f"{_has(draft, step, candidate)} and is watched for {step.hold}"
        return show(draft, Stage.ROLLING_OUT, "HoldingWeight", message)
    missing = _missing(draft, step)
    return _awaited(draft, missing, step, candidate) if missing else None


def _has(draft: Draft, step: CanaryStep, candidate: Version) -> str:
    by = "its pods" if draft.status.canary_route is None else "the route"
    effective, header = under_way(draft).effective_weight, testers(draft)
    share = [f"{step.weight} % of the requests ({effective} % by {by})"] if step.weight else []
    share += [f"those with header {header.name}"] if header else []
    return f"version {candidate.version} has {' and '.join(share)}"


def _missing(draft: Draft, step: CanaryStep) -> _Missing | None:
    """Return what has to be seen before the weight may be left; None where that is enough."""
    if under_way(draft).requests_before is not None and _answered(draft) < step.min_requests:
        return _Missing("AwaitingRequests", f"its pods have answered {step.min_requests} of them")
    if draft.spec.rollout.analysis.require is not Requirement.PROVEN_NOT_WORSE:
        return None
    unproven = [word for word, comparison in _compared(draft).items() if comparison.verdict is not Verdict.NOT_WORSE]
    if not unproven:
        return None
    return _Missing("AwaitingProof", f"it is proved not worse than the champion in {' and '.join(unproven)}")


def _compared(draft: Draft) -> dict[str, Comparison]:
    """Return what is compared with the champion, where anything can be."""
    if not _is_comparable(under_way(draft)):
        return {}
    with canary_in_place(draft):
        return {"errors": errors(draft), "latency": latency(draft)}


def _answered(draft: Draft) -> float:
    """Return the requests that were answered and heard at this weight; after pods were replaced, those of the new."""
    traffic, before = draft.observed.traffic, float(under_way(draft).requests_before or 0)
    counted, held = (side.requests if side else None for side in (traffic.heard, traffic.held))
    if counted is None:
        return 0.0
    answered = counted - before if counted >= before else counted
    return answered if held is None else min(answered, held)


def _awaited(draft: Draft, missing: _Missing, step: CanaryStep, candidate: Version) -> Hold | TurnBack | None:
    """Wait for what is missing, as long as the owner allows; None where he would rather go on without it."""
    rollout, canary = under_way(draft), draft.spec.rollout.trial
    words = f"{_has(draft, step, candidate)} and is watched until {missing.until}"
    if canary.evidence_timeout is None:
        draft.wake(after=LOOK_SECONDS)
        bound = "spec.rollout.canary.evidenceTimeout would bound this wait"
        return show(draft, Stage.ROLLING_OUT, missing.reason, f"{words}; {bound}")
    allowed = seconds(step.hold) + seconds(canary.evidence_timeout)
    left = draft.remaining(rollout.weight_start_time or draft.now, allowed)
    goes_on = canary.on_evidence_timeout is OnEvidenceTimeout.PROCEED
    if left > 0:
        draft.wake(after=max(1.0, min(LOOK_SECONDS, left)))
        bound = f"for {canary.evidence_timeout} at most, and then {'goes on' if goes_on else 'is taken back'}"
        return show(draft, Stage.ROLLING_OUT, missing.reason, f"{words}, {bound}")
    if goes_on:
        return None
    message = f"{draft.spec.rollout.on_trial}, {words}: not within {canary.evidence_timeout} after its hold"
    return TurnBack("EvidenceMissing", message, TOO_LITTLE)


def _unready(draft: Draft, candidate: Version, *, is_last: bool) -> Hold | None:
    """Hold the last weight until the target's own pods are well; what is judged once waits for that."""
    target = draft.observed.target
    if not is_last or (target is not None and target.hindrance is None and target.settled):
        return None
    draft.wake(after=LOOK_SECONDS)
    serving = (target.hindrance or target.progress) if target else "the target is gone"
    message = f"version {candidate.version} stays a canary until the target's pods are well: {serving}"
    return show(draft, Stage.ROLLING_OUT, UNSETTLED, message)


def _next(draft: Draft, candidate: Version, index: int) -> Hold | Done | TurnBack:
    """Go on to the next weight, or past the last one."""
    fields = {"weight_index": index + 1, "weight_start_time": None, "requests_before": None}
    shown = _in_words(draft, draft.spec.rollout.trial.steps[index])
    return weigh(draft, update(draft, under_way(draft), analysis=shown, **fields), candidate)


def _in_words(draft: Draft, step: CanaryStep) -> str:
    """Return what a weight that is left has shown, and what it was left without."""
    missing, traffic = _missing(draft, step), draft.observed.traffic
    parts = [comparison.sentence for comparison in _compared(draft).values()]
    trouble = next((side.trouble for side in (traffic.held, traffic.beside) if side and side.trouble), None)
    parts += ["the champion had none in the same time"] if step.weight == ALL else []
    if testers(draft) is not None:
        parts += ["requests of testers are among them" if step.weight else "testers alone have asked it"]
    parts += [f"not every pod was read: {trouble}"] if trouble else []
    parts += [f"it was left without waiting longer until {missing.until}"] if missing else []
    return f"At {step.weight} % of the requests: {'; '.join(parts)}"[:1024]
