"""The end of every canary: whatever becomes of a rollout, none is left that nobody tries.

Looked at before anything else in a pass, so that a new version loses its share before anything else is undone.
"""

from retune.api.status import ConditionType, Stage, Version
from retune.plan import names
from retune.plan.actions import RemoveCanary
from retune.plan.draft import Draft, Hold
from retune.plan.observed import Canary, Verb
from retune.plan.rollout.progress import LOOK_SECONDS, show
from retune.plan.rollout.routing import is_reached
from retune.plan.rollout.withdrawing import (
    REFUSAL_RETRY_SECONDS,
    clear,
    forget_what_goes_with_owner,
    tend,
    withdraw,
)
from retune.plan.watch.state import begin_anew

_NO_TRIAL = {"weight_index", "weight", "effective_weight", "weight_start_time", "requests_before", "analysis"}


def remove_unwanted(draft: Draft) -> None:
    """Remove a canary that no rollout tries any more; nothing is changed while the resource is suspended."""
    if draft.spec.suspend and draft.resource.metadata.deletion_timestamp is None:
        return
    canary, is_over = draft.observed.traffic.canary, _is_over(draft)
    if canary is not None and (is_over or _is_unwanted(draft, canary)):
        remove(draft, canary)
    elif is_over:
        clear(draft)
    else:
        tend(draft)
    if not draft.spec.rollout.is_tried:
        _forget(draft)


def remove(draft: Draft, canary: Canary) -> None:
    """Ask for the removal of a canary, unless it is under way; one that was refused is tried again later.

    A share that a route gives it is taken away first.
    """
    if withdraw(draft):
        forget_what_goes_with_owner(draft)
        if not canary.leaving:
            draft.do(RemoveCanary(canary.workload.uid, routed=canary.service is not None))
    if draft.refusal(Verb.CANARY):
        draft.wake(after=REFUSAL_RETRY_SECONDS)


def is_as_wanted(draft: Draft, canary: Canary | None, candidate: Version) -> bool:
    """Return whether a canary serves the candidate by pods that are the target's in everything else."""
    target, container = draft.observed.target, draft.container
    if canary is None or canary.leaving or not canary.owned or target is None or container is None:
        return False
    is_clone = canary.made_of == target.template and canary.serves(container.name) == candidate.injected_value
    return is_clone and is_reached(draft, canary)


def _is_unwanted(draft: Draft, canary: Canary) -> bool:
    candidate = draft.status.candidate
    return candidate is None or not is_as_wanted(draft, canary, candidate)


def _is_over(draft: Draft) -> bool:
    """Whether nothing is tried, whatever canary there is."""
    rollout, candidate, target = draft.status.rollout, draft.status.candidate, draft.observed.target
    if draft.resource.metadata.deletion_timestamp is not None or draft.refusal(Verb.ACQUIRE_LEASE):
        return True
    if rollout is None or candidate is None or rollout.rollback_reason or target is None or target.wanted == 0:
        return True
    if rollout.rollback_number is not None:  # an earlier version comes back, which is tried on nobody
        return True
    return not draft.spec.rollout.is_tried


def _forget(draft: Draft) -> None:
    """Have the status say nothing of a trial that the spec does not want any more."""
    conditions = tuple(entry for entry in draft.status.conditions if entry.type != ConditionType.CANARY_POSSIBLE)
    if draft.status.canary_route is None and conditions != draft.status.conditions:
        draft.update(conditions=conditions)  # until then it tells what keeps the route from being put back
    rollout = draft.status.rollout
    if rollout is not None and rollout.weight_index is not None:
        draft.update(rollout=rollout.model_copy(update=dict.fromkeys(_NO_TRIAL)))
        begin_anew(draft)


def lingering(draft: Draft) -> Hold | None:
    """Hold a rollout that is undone for as long as the canary gives the new version a share of the requests."""
    canary, rollout, record = draft.observed.traffic.canary, draft.status.rollout, draft.status.canary_route
    if rollout is None or (canary is None and record is None):
        return None
    draft.wake(after=LOOK_SECONDS)
    refusal = draft.refusal(Verb.CANARY)
    earlier = draft.refused_before(ConditionType.ROLLED_OUT)
    reason, because = rollout.rollback_reason or "RollingBack", rollout.rollback_message or ""
    message = f"Deployment {names.canary(draft.spec.target.ref.name)} is removed, because {because}"
    said = (refusal.reason, refusal.message) if refusal else earlier or (reason, message)
    return show(draft, Stage.ROLLING_BACK, *said)
