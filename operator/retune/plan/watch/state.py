"""The watch as the status holds it: begun with each champion, carried on from window to window."""

from retune.api.monitoring import Monitoring
from retune.api.status import ConditionStatus, ConditionType, Version
from retune.api.watched import MonitoringStatus
from retune.plan.draft import Draft, condition_of
from retune.plan.watch import windows

NOT_SEEN_YET = ("NotSeenYet", "no window has ended yet")
"""Reason and sentence of what no window of this watch has judged."""


def begin(draft: Draft, spec: Monitoring, champion: Version) -> None:
    """Begin a new watch when another champion serves, or windows have another length."""
    state, length = draft.status.monitoring, windows.length_of(spec.window)
    if state and (state.champion_digest, state.window_seconds) == (champion.digest, length):
        return
    new = MonitoringStatus(since=draft.now, champion_digest=champion.digest, window_seconds=length)
    draft.update(monitoring=new)
    if condition_of(draft.status, ConditionType.MONITORING_RELIABLE) is not None:
        draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.UNKNOWN, *NOT_SEEN_YET)


def begin_anew(draft: Draft) -> None:
    """Let no window count that began before now: another version served in a part of it."""
    if draft.status.monitoring is not None:
        draft.update(monitoring=draft.status.monitoring.model_copy(update={"since": draft.now}))


def state_of(draft: Draft) -> MonitoringStatus:
    """Return the watch as it stands; raises ValueError where there is none."""
    if draft.status.monitoring is None:
        raise ValueError("nothing is watched")
    return draft.status.monitoring


def moved_to(draft: Draft, index: int) -> MonitoringStatus:
    """Return the watch with this window as its last one, and those between counted as passed over."""
    state = state_of(draft)
    skipped = max(0, index - windows.first_unjudged(state))
    return state.model_copy(
        update={
            "window": index,
            "window_end": windows.end_of(index, state.window_seconds),
            "skipped_windows": state.skipped_windows + skipped,
        }
    )
