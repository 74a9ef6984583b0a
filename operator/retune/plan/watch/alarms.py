"""From what single windows say to signals: raised by bad windows in a row, cleared by one good window.

A window without a verdict changes nothing: missing data, and data that is not of a kind to judge by, neither raises a
signal nor clears one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from retune.api.watched import Signal, Verdict, WatchedSegment
from retune.contract.results import SignalVerdict

DRIFT, QUALITY, ESTIMATE, SEGMENT = "Drift", "Quality", "EstimatedQuality", "Segment"
HEADROOM = "Headroom"
NOTHING_SAID = frozenset({Verdict.UNKNOWN, Verdict.UNTRUSTED})
"""Verdicts of windows that say nothing of how the model does."""
CHECKED = frozenset({DRIFT, QUALITY, ESTIMATE, SEGMENT, HEADROOM})
"""Names of the signals that checks of captured data judge; the others are live signals, which users name."""


_OF_DATA = frozenset({DRIFT, QUALITY, SEGMENT})


@dataclass(frozen=True)
class Rule:
    """When a signal is raised."""

    consecutive: int | None
    """Bad windows in a row that raise it; None: it is never raised, it only corroborates others."""


def after_window(signal: Signal, judgement: SignalVerdict, *, window: int, rule: Rule, now: datetime) -> Signal:
    """Return the signal after one more window.

    Args:
        signal: The signal after the windows before.
        judgement: What the window says of it.
        window: The window's number.
        rule: When the signal is raised.
        now: The moment of the pass.
    """
    seen = {
        "verdict": judgement.verdict,
        "value": judgement.value,
        "low": judgement.low,
        "high": judgement.high,
        "outside": judgement.outside,
        "samples": judgement.samples,
        "estimated": judgement.estimated,
        "reason": judgement.reason,
        "message": judgement.message,
        "window": window,
        "reference": signal.reference if judgement.reference is None else judgement.reference,
    }
    return signal.model_copy(update=seen | _alarm(signal, judgement.verdict, window, rule, now))


def _alarm(signal: Signal, verdict: Verdict, window: int, rule: Rule, now: datetime) -> dict[str, object]:
    """Return the fields that say whether the signal is raised, and since when."""
    fields = in_a_row(signal, verdict, window=window, rule=rule)
    if verdict is Verdict.CLEAR:
        return {**fields, "raised_at": None}
    if verdict is Verdict.BREACH:
        return {**fields, "raised_at": signal.raised_at or (now if fields["raised"] else None)}
    return fields


def in_a_row(before: Signal | WatchedSegment, verdict: Verdict, *, window: int, rule: Rule) -> dict[str, object]:
    """Return the fields that say how many windows in a row were bad, and whether that raises what is watched."""
    if verdict is Verdict.CLEAR:
        return {"streak": 0, "first_bad": None, "raised": False}
    if verdict is Verdict.BETWEEN:
        return {"streak": 0, "first_bad": before.first_bad if before.raised else None}
    if verdict in NOTHING_SAID:
        return {}
    streak = before.streak + 1
    raised = before.raised or (rule.consecutive is not None and streak >= rule.consecutive)
    first_bad = window if before.first_bad is None else before.first_bad
    return {"streak": streak, "first_bad": first_bad, "raised": raised}


def after_unjudged_window(signal: Signal, *, reason: str, message: str) -> Signal:
    """Return the signal after a window that could not be judged: only the reason why is new."""
    return signal.model_copy(update={"verdict": Verdict.UNKNOWN, "reason": reason, "message": message[:1024]})


def first_bad(signals: Iterable[Signal], *, of: Collection[str] = _OF_DATA) -> int | None:
    """Return the number of the window with which raised signals of these names began; None if none is raised."""
    starts = (signal.first_bad for signal in signals if signal.raised and signal.name in of)
    return min((window for window in starts if window is not None), default=None)
