"""What every step of a rollout shows and writes down: where it stands, why it is blocked, how the new pods are."""

from typing import Any

from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.plan.draft import Draft, Hold

LOOK_SECONDS = 5.0
"""How soon a rollout is looked at again, whether or not the target's controller says anything."""
UNSETTLED = "TargetUnsettled"
"""Reason of a version that waits until the target's own pods are well."""


def show(draft: Draft, stage: Stage, reason: str, message: str) -> Hold:
    """Hold the pass with the rollout where it stands; a version that a person wants back is rolled back to."""
    rollout = draft.status.rollout
    if rollout is not None and rollout.rollback_number is not None:
        stage = Stage.ROLLING_BACK
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.UNKNOWN, reason, message)
    return Hold(stage, reason, message)


def blocked(draft: Draft, reason: str, message: str) -> Hold:
    """Hold the pass because the owned field may not be changed."""
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)


def update(draft: Draft, rollout: ActiveRollout, **fields: Any) -> ActiveRollout:
    """Change fields of the rollout under way; returns it as it is now."""
    changed = rollout.model_copy(update=fields)
    draft.update(rollout=changed)
    return changed


def under_way(draft: Draft) -> ActiveRollout:
    """Return the rollout as the steps before have left it; raises ValueError where there is none."""
    if draft.status.rollout is None:
        raise ValueError("no rollout is under way")
    return draft.status.rollout


def present_value(draft: Draft) -> str | None:
    """Return the value of the owned field."""
    return draft.container.value if draft.container else None


def pods_in_words(draft: Draft) -> str:
    """Return what keeps a new pod from becoming ready, or how far their replacement has come."""
    target = draft.observed.target
    return draft.observed.pods.trouble or (target.progress if target else "the target is gone")
