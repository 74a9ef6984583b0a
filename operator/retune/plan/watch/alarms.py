"""From what single windows say to signals: raised by bad windows in a row, cleared by one good window.

A window without a verdict changes nothing: missing data neither raises a signal nor clears one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from retune.api.watched import Signal, Verdict
from retune.contract.results import SignalVerdict

DRIFT, QUALITY, ESTIMATE = "Drift", "Quality", "EstimatedQuality"
CHECKED = frozenset({DRIFT, QUALITY, ESTIMATE})
"""Names of the signals that checks of captured data judge; the others are live signals, which users name."""


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
    if verdict is Verdict.CLEAR:
        return {"streak": 0, "first_bad": None, "raised": False, "raised_at": None}
    if verdict is Verdict.BETWEEN:
        return {"streak": 0, "first_bad": signal.first_bad if signal.raised else None}
    if verdict is Verdict.UNKNOWN:
        return {}
    streak = signal.streak + 1
    raised = signal.raised or (rule.consecutive is not None and streak >= rule.consecutive)
    first_bad = window if signal.first_bad is None else signal.first_bad
    raised_at = signal.raised_at or (now if raised else None)
    return {"streak": streak, "first_bad": first_bad, "raised": raised, "raised_at": raised_at}


def after_unjudged_window(signal: Signal, *, reason: str, message: str) -> Signal:
    """Return the signal after a window that could not be judged: only the reason why is new."""
    return signal.model_copy(update={"verdict": Verdict.UNKNOWN, "reason": reason, "message": message[:1024]})


def first_bad(signals: Iterable[Signal]) -> int | None:
    """Return the number of the window with which the live data began to raise drift or quality; None if neither is."""
    starts = (signal.first_bad for signal in signals if signal.raised and signal.name in {DRIFT, QUALITY})
    return min((window for window in starts if window is not None), default=None)
