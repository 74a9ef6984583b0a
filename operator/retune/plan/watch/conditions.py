"""The conditions of what is watched: DriftDetected, QualityDegraded and PerformanceDegraded."""

from retune.api.monitoring import LiveKind, Monitoring
from retune.api.status import ConditionStatus, ConditionType
from retune.api.watched import Signal
from retune.plan.draft import Draft
from retune.plan.watch import alarms
from retune.plan.watch.state import NOT_SEEN_YET, state_of


def set_conditions(draft: Draft, spec: Monitoring) -> None:
    """Set the condition of everything that the spec watches."""
    signals = {signal.name: signal for signal in state_of(draft).signals}
    live = spec.performance.signals if spec.performance else ()
    drift = [signals.get(alarms.DRIFT)] if spec.drifting else []
    quality = [signals.get(alarms.QUALITY) or signals.get(alarms.ESTIMATE)] if spec.judging else []
    quality += [signals[alarms.SEGMENT]] if spec.segmenting and alarms.SEGMENT in signals else []
    quality += [signals.get(live_signal.name) for live_signal in live if live_signal.kind is LiveKind.QUALITY]
    speed = [signals.get(live_signal.name) for live_signal in live if live_signal.kind is not LiveKind.QUALITY]
    _set(draft, ConditionType.DRIFT_DETECTED, drift, reason_when_fine="NoDrift")
    _set(draft, ConditionType.QUALITY_DEGRADED, quality, reason_when_fine="QualityKept")
    _set(draft, ConditionType.PERFORMANCE_DEGRADED, speed, reason_when_fine="PerformanceKept")


def _set(draft: Draft, kind: ConditionType, watched: list[Signal | None], *, reason_when_fine: str) -> None:
    """Set one condition, unless nothing of its kind is watched; None stands for a signal that no window has judged.

    It is True with the first raised signal, Unknown while nothing has been judged, else False with the last verdicts.
    """
    seen = [signal for signal in watched if signal is not None]
    raised = next((signal for signal in seen if signal.raised), None)
    judged = [signal for signal in seen if signal.verdict not in alarms.NOTHING_SAID]
    if raised is not None:
        draft.condition(kind, ConditionStatus.TRUE, raised.reason, raised.message)
    elif judged:
        message = "; ".join(signal.message for signal in judged)
        draft.condition(kind, ConditionStatus.FALSE, reason_when_fine, message)
    elif seen:
        draft.condition(kind, ConditionStatus.UNKNOWN, seen[0].reason, seen[0].message)
    elif watched:
        draft.condition(kind, ConditionStatus.UNKNOWN, *NOT_SEEN_YET)
