"""The bake: the new version serves and is watched for a while before it becomes champion."""

from retune.api.base import seconds
from retune.api.status import ActiveRollout, ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.rollout.progress import LOOK_SECONDS, pods_in_words, show
from retune.plan.rollout.rollback import turn_back
from retune.plan.run.conclusion import conclude


def start_bake(draft: Draft, rollout: ActiveRollout, candidate: Version, proof: str) -> Hold:
    """Begin to watch the new version; `proof` says in words what it has shown so far."""
    draft.update(rollout=rollout.model_copy(update={"bake_start_time": draft.now}))
    bake_time = draft.spec.rollout.bake_time
    draft.wake(after=min(LOOK_SECONDS, seconds(bake_time)))
    return show(draft, Stage.BAKING, "Baking", f"version {candidate.version}: {proof}; watched for {bake_time}")


def bake(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | None:
    """Promote the new version when its time is over and it is well, or turn back."""
    target, bake_time = draft.observed.target, draft.spec.rollout.bake_time
    if target is not None and target.available == 0 and target.wanted > 0:
        trouble = draft.observed.pods.trouble or "no pod is available"
        return turn_back(draft, "UnhealthyDuringBake", f"version {candidate.version}: {trouble}")
    left = draft.remaining(rollout.bake_start_time or draft.now, seconds(bake_time))
    if left <= 0 and target is not None and target.settled:
        _promote(draft, candidate)
        return None
    if -left > seconds(draft.spec.rollout.progress_deadline):
        message = f"version {candidate.version} did not stay ready: {pods_in_words(draft)}"
        return turn_back(draft, "UnhealthyDuringBake", message)
    draft.wake(after=max(1.0, min(LOOK_SECONDS, left)))
    message = f"version {candidate.version} serves and is watched for {bake_time}"
    return show(draft, Stage.BAKING, "Baking", message)


def _promote(draft: Draft, candidate: Version) -> None:
    champion = candidate.model_copy(update={"promoted_at": draft.now})
    accepted = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    message = f"version {champion.version} is champion. {accepted.message if accepted else ''}".strip()
    conclude(draft, Outcome.PROMOTED, accepted.reason if accepted else "Promoted", message)
    draft.update(champion=champion, candidate=None, rollout=None)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.TRUE, "Promoted", message)
