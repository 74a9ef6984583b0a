"""Whose doing it is that new pods are not well: a version is rejected only for what it did itself.

A version is to blame where its own container ends with an error, or runs for long without ever getting ready. Pods that
were evicted, drained, lost with their node or never made, and a template that others changed, say nothing of it. Nor do
pods that are slower than others: a busy node does that as well.
"""

from datetime import timedelta

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.plan.draft import Draft

EDITED = "the pod template was changed by others meanwhile"
PLACED = "how fast pods answer depends on the nodes that they run on, too"


def excuse(draft: Draft, rollout: ActiveRollout) -> str | None:
    """Return why the version is not to blame for pods that are not well, as a sentence; None where it is."""
    pods, target = draft.observed.pods, draft.observed.target
    if rollout.edited:
        return EDITED
    if not is_innocent(draft):
        return None
    hindrance = target.hindrance if target else "the target is gone"
    return f"it had no pod that could show it ({hindrance or pods.trouble or (target.progress if target else '')})"


def is_innocent(draft: Draft) -> bool:
    """Return whether no container of the version has ended with an error or run for long without being ready."""
    return draft.observed.pods.crash is None and not _has_run_unready(draft)


def _has_run_unready(draft: Draft) -> bool:
    """Whether a container runs without being ready for half of the time that pods have; a younger one may yet be."""
    unready, enough = draft.observed.pods.unready, seconds(draft.spec.rollout.progress_deadline) / 2
    return unready is not None and draft.now - unready.at >= timedelta(seconds=enough)
