"""The signal of segments: raised while one and the same segment was bad in enough windows in a row.

Each segment has a row of bad windows of its own: two segments that are bad in turns raise nothing. A window that says
nothing of a segment changes nothing of it.
"""

from datetime import datetime

from retune.api.monitoring import Segments
from retune.api.watched import MonitoringStatus, Signal, Verdict, WatchedSegment
from retune.contract.results import CheckResult, SegmentVerdict, SignalVerdict
from retune.plan.watch.alarms import SEGMENT, Rule, in_a_row

_LIMIT = 8


def asked_of(state: MonitoringStatus) -> tuple[str, ...]:
    """Return the segments of which the next check must say something: those that are raised, or bad in a row."""
    return tuple(segment.name for segment in state.segments if segment.raised or segment.streak)


def after_check(
    before: tuple[WatchedSegment, ...],
    signals: tuple[Signal, ...],
    result: CheckResult,
    spec: Segments | None,
    *,
    now: datetime,
) -> dict[str, object]:
    """Return the fields `segments` and `signals` of the watch after one more check; labels of a window count once.

    Args:
        before: The segments after the windows before.
        signals: All signals, of which that of segments is not judged yet.
        result: What the check says.
        spec: Settings of segments; None: none are judged any more.
        now: The moment of the pass.
    """
    others = tuple(signal for signal in signals if signal.name != SEGMENT)
    if spec is None:
        return {"segments": (), "signals": others}
    signal = next((signal for signal in signals if signal.name == SEGMENT), None)
    judged, window = result.segment, result.labelled_window
    if judged is None or window is None or (signal is not None and not _is_later(window, signal)):
        return {"segments": _segments(before, result, spec, window=None), "signals": signals}
    segments = _segments(before, result, spec, window=window)
    after = _signal(signal or Signal(name=SEGMENT), segments, judged, window, now)
    return {"segments": segments, "signals": (*others, after)}


def _signal(
    before: Signal, segments: tuple[WatchedSegment, ...], judged: SignalVerdict, window: int, now: datetime
) -> Signal:
    """Return the signal: raised while any segment is, and as many bad windows in a row as the longest row has."""
    raised = [segment for segment in segments if segment.raised]
    bad = raised or [segment for segment in segments if segment.streak]
    starts = [segment.first_bad for segment in bad if segment.first_bad is not None]
    return before.model_copy(
        update={
            "verdict": judged.verdict,
            "value": judged.value,
            "reference": judged.reference,
            "samples": judged.samples,
            "reason": judged.reason,
            "message": _words(raised, judged)[:1024],
            "window": window,
            "streak": max((segment.streak for segment in segments), default=0),
            "first_bad": min(starts, default=None),
            "raised": bool(raised),
            "raised_at": (before.raised_at or now) if raised else None,
        }
    )


def _words(raised: list[WatchedSegment], judged: SignalVerdict) -> str:
    """Return the window's sentence, behind the segment that is still raised where the window names none of these."""
    if not raised or any(judged.message.startswith(f"{segment.name}: ") for segment in raised):
        return judged.message
    first = raised[0]
    return f"{first.name} is still raised ({first.value}, was {first.reference}): {judged.message}"


def _is_later(window: int, signal: Signal) -> bool:
    return signal.window is None or window > signal.window


def _segments(
    before: tuple[WatchedSegment, ...], result: CheckResult, spec: Segments, *, window: int | None
) -> tuple[WatchedSegment, ...]:
    """Return the segments, those first that are raised, then those that are bad in a row; each name once.

    Without a window whose labels are new, only rows and moved answers are new.
    """
    known = {segment.name: segment for segment in before}
    told: dict[str, SegmentVerdict] = {}
    for verdict in result.segments:
        told.setdefault(verdict.name, verdict)
    after = [_after(known.get(name), verdict, spec, window) for name, verdict in told.items()]
    kept = [segment for name, segment in known.items() if name not in told and (segment.raised or segment.streak)]
    return tuple(sorted((*after, *kept), key=lambda segment: (not segment.raised, not segment.streak))[:_LIMIT])


def _after(before: WatchedSegment | None, told: SegmentVerdict, spec: Segments, window: int | None) -> WatchedSegment:
    segment = before or WatchedSegment(name=told.name)
    seen: dict[str, object] = {"rows": told.rows, "drift": told.drift}
    if window is not None:
        seen["verdict"] = told.verdict
        if told.verdict is not Verdict.UNKNOWN:
            seen |= {"value": told.value, "reference": told.reference, "samples": told.samples}
        seen |= in_a_row(segment, told.verdict, window=window, rule=Rule(spec.consecutive))
    return segment.model_copy(update=seen)
