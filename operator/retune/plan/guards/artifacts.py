"""Whether there is a store to work with; without one, what serves goes on serving and nothing is begun."""

from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.plan.draft import Draft, Hold
from retune.plan.store import store_fault


def require_store(draft: Draft) -> Hold | None:
    """Hold the pass where the resource has no store that it may use."""
    own, default = draft.spec.execution.artifact_store, draft.observed.defaults.artifact_store
    fault = store_fault(own=own, default=default)
    if fault is None:
        return None
    if draft.status.original is None:
        draft.condition(ConditionType.BASELINED, ConditionStatus.FALSE, *fault)
    return Hold(Stage.BLOCKED, *fault)
