"""Whether there is what every Job needs: a store, and the nodes that the resource names.

Without them, what serves goes on serving and nothing is begun.
"""

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


def require_profile(draft: Draft) -> Hold | None:
    """Hold the pass where the resource names a profile of nodes that the administrator does not offer."""
    name, offered = draft.spec.execution.profile, draft.observed.defaults.profiles
    if name is None or name in offered:
        return None
    known = f"it offers {', '.join(offered)}" if offered else "it offers none"
    cure = "name another, leave it out, or have it added to jobs.profiles of the chart"
    fault = "ProfileUnknown", f"spec.execution.profile names {name}, which this operator lacks ({known}): {cure}"
    if draft.status.original is None:
        draft.condition(ConditionType.BASELINED, ConditionStatus.FALSE, *fault)
    return Hold(Stage.BLOCKED, *fault)
