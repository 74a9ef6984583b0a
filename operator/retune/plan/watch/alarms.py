"""From what single windows say to signals: raised by bad windows in a row, cleared by one good window.

Pure. A window that says nothing changes nothing: neither does missing data raise an alarm, nor does it end one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from retune.api.monitoring import LiveKind, LiveSignal, Performance
from retune.api.watched import Signal, Verdict
from retune.contract.results import SignalVerdict
from retune.plan.observed import Live, LiveNumber

DRIFT, QUALITY, ESTIMATE = "Drift", "Quality", "EstimatedQuality"
SATURATED = 0.9
"""Share of the CPU limit from which on slowness is explained by too little capacity."""
CAPACITY_LIMITED = "CapacityLimited"
LEARNING_WINDOWS = 3
"""Windows after the champion went live whose mean is what is usual."""


@dataclass(frozen=True)
class Rule:
    """When a signal is raised. `consecutive`: bad windows in a row; None: never, it only corroborates others."""

    consecutive: int | None


def heard(signal: Signal, told: SignalVerdict, *, window: int, rule: Rule, now: datetime) -> Signal:
    """Return the signal after one more window."""
    shown = {
        "verdict": told.verdict, "value": told.value, "samples": told.samples, "estimated": told.estimated,
        "reason": told.reason, "message": told.message, "window": window,
        "reference": told.reference if told.reference is not None else signal.reference,
    }  # fmt: skip
    return signal.model_copy(update=shown | _state(signal, told.verdict, window, rule, now))


def _state(signal: Signal, verdict: Verdict, window: int, rule: Rule, now: datetime) -> dict[str, object]:
    if verdict is Verdict.CLEAR:
        return {"streak": 0, "first_bad": None, "raised": False, "raised_at": None}
    if verdict is Verdict.BETWEEN:
        return {"streak": 0, "first_bad": signal.first_bad if signal.raised else None}
    if verdict is Verdict.UNKNOWN:
        return {}
    streak = signal.streak + 1
    raised = signal.raised or (rule.consecutive is not None and streak >= rule.consecutive)
    first = window if signal.first_bad is None else signal.first_bad
    raised_at = signal.raised_at or (now if raised else None)
    return {"streak": streak, "first_bad": first, "raised": raised, "raised_at": raised_at}


def first_bad(signals: Iterable[Signal]) -> int | None:
    """Return the window in which what the raised signals of the live data tell of began; None where none is raised."""
    told = (one.first_bad for one in signals if one.raised and one.name in {DRIFT, QUALITY})
    return min((window for window in told if window is not None), default=None)


def unheard(signal: Signal, *, reason: str, message: str) -> Signal:
    """Return the signal after a window that nobody could judge: only why is new."""
    return signal.model_copy(update={"verdict": Verdict.UNKNOWN, "reason": reason, "message": message[:1024]})


def live_verdict(spec: LiveSignal, number: LiveNumber, live: Live, signal: Signal, least: int) -> SignalVerdict:
    """Return what one window's live number says; `least` requests are needed for a verdict."""
    if number.value is None:
        return _unknown(number.reason, number.message)
    value, requests = number.value, int(live.requests or 0)
    shown = {"value": decimal(value), "samples": requests}
    if live.requests is not None and requests < least:
        message = f"{spec.name}: {requests} requests in the window; a verdict needs {least}"
        return _unknown("TooFewRequests", message, **shown)
    verdict, limit, words = _judged(spec, value, signal)
    message = f"{spec.name} {decimal(value)}{words}"
    if verdict is Verdict.BREACH and _is_saturated(spec, live):
        share = f"{live.saturation or 0:.0%} of the CPU limit is in use"
        return _unknown(CAPACITY_LIMITED, f"{message}; {share}: add replicas or CPU, a faster model is not it", **shown)
    reason = {Verdict.BREACH: "AboveLimit", Verdict.BETWEEN: "BetweenLimits", Verdict.CLEAR: "WithinLimit"}.get(
        verdict, "LearningUsual"
    )
    return SignalVerdict(verdict=verdict, reason=reason, message=message, reference=limit, **shown)


def _unknown(reason: str, message: str, **shown: object) -> SignalVerdict:
    return SignalVerdict.model_validate(
        {"verdict": Verdict.UNKNOWN, "reason": reason, "message": message[:1024], **shown}
    )


def _judged(spec: LiveSignal, value: float, signal: Signal) -> tuple[Verdict, str | None, str]:
    """Return verdict, what it is compared with, and the comparison in words."""
    sign = -1.0 if spec.kind.higher_is_better else 1.0
    if spec.limit is not None and sign * (value - float(spec.limit)) > 0:
        return Verdict.BREACH, spec.limit, f" is worse than the limit of {spec.limit}"
    if spec.max_degradation is None:
        return Verdict.CLEAR, spec.limit, " keeps its limit" if spec.limit is not None else ""
    if signal.reference is None or signal.learned < LEARNING_WINDOWS:
        return Verdict.UNKNOWN, signal.reference, "; what is usual is still being learned"
    usual = float(signal.reference)
    change = sign * (value - usual) / max(abs(usual), 1e-12)
    most = float(spec.max_degradation)
    clear = float(spec.clear_degradation) if spec.clear_degradation is not None else most / 2
    verdict = Verdict.BREACH if change > most else Verdict.CLEAR if change <= clear else Verdict.BETWEEN
    return verdict, signal.reference, f", {change:+.0%} against the usual {signal.reference}"


def _is_saturated(spec: LiveSignal, live: Live) -> bool:
    return spec.kind is LiveKind.LATENCY and live.saturation is not None and live.saturation >= SATURATED


def learned(signal: Signal, spec: LiveSignal, value: float | None) -> Signal:
    """Return the signal with what is usual as known after one more window; it stops learning after the first few."""
    if value is None or spec.max_degradation is None or signal.learned >= LEARNING_WINDOWS:
        return signal
    before = float(signal.reference) if signal.reference is not None and signal.learned else 0.0
    mean = before + (value - before) / (signal.learned + 1)
    return signal.model_copy(update={"reference": decimal(mean), "learned": signal.learned + 1})


def after_live(signals: Iterable[Signal], performance: Performance, live: Live, *, now: datetime) -> tuple[Signal, ...]:
    """Return the live signals after one more window, in the order of the spec."""
    before = {signal.name: signal for signal in signals}
    numbers = {number.name: number for number in live.numbers}
    found = []
    for spec in performance.signals:
        number = numbers.get(spec.name) or LiveNumber(spec.name, None, "NoData", f"{spec.name}: nobody told a number")
        signal = before.get(spec.name) or Signal(name=spec.name)
        if live.requests is None or live.requests >= performance.min_requests:
            signal = learned(signal, spec, number.value)
        told = live_verdict(spec, number, live, signal, performance.min_requests)
        rule = Rule(None if spec.kind is LiveKind.SATURATION else spec.consecutive)
        found.append(heard(signal, told, window=live.window, rule=rule, now=now))
    return tuple(found)


def decimal(value: float) -> str:
    """Return a number for a status: plain decimals, four significant digits."""
    return f"{value:.4g}" if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:.9f}".rstrip("0").rstrip(".")
