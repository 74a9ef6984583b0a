"""What the live model's own numbers say of a window: against a fixed limit, or against what is usual for this champion.

What is usual is learned from the first windows that a champion serves. Slowness that too little CPU explains is no
reason to look for a faster model.
"""

from collections.abc import Iterable
from datetime import datetime

from retune.api.monitoring import LiveKind, LiveSignal, Performance
from retune.api.quantities import plain
from retune.api.watched import Signal, Verdict
from retune.contract.results import SignalVerdict
from retune.plan.observed import Live, LiveNumber
from retune.plan.watch.alarms import Rule, after_window

SATURATED = 0.9
"""Share of the CPU limit from which on slowness is explained by too little capacity."""
CAPACITY_LIMITED = "CapacityLimited"
LEARNING_WINDOWS = 3
"""Windows after the champion went live whose mean is what is usual."""
_REASONS = {Verdict.BREACH: "AboveLimit", Verdict.BETWEEN: "BetweenLimits", Verdict.CLEAR: "WithinLimit"}


def after_live_window(
    signals: Iterable[Signal], performance: Performance, live: Live, *, now: datetime
) -> tuple[Signal, ...]:
    """Return the live signals after one more window, in the order of the spec."""
    known = {signal.name: signal for signal in signals}
    numbers = {number.name: number for number in live.numbers}
    after = []
    for spec in performance.signals:
        no_number = LiveNumber(spec.name, None, "NoData", f"{spec.name}: no number was reported")
        number = numbers.get(spec.name, no_number)
        signal = known.get(spec.name) or Signal(name=spec.name)
        if live.requests is None or live.requests >= performance.min_requests:
            signal = _learn(signal, spec, number.value)
        judgement = _verdict(spec, number, live, signal, performance.min_requests)
        rule = Rule(None if spec.kind is LiveKind.SATURATION else spec.consecutive)
        after.append(after_window(signal, judgement, window=live.window, rule=rule, now=now))
    return tuple(after)


def _learn(signal: Signal, spec: LiveSignal, value: float | None) -> Signal:
    """Return the signal with the mean of its first windows carried on; after those it learns no more."""
    if value is None or spec.max_degradation is None or signal.learned >= LEARNING_WINDOWS:
        return signal
    mean = float(signal.reference) if signal.reference is not None and signal.learned else 0.0
    mean += (value - mean) / (signal.learned + 1)
    return signal.model_copy(update={"reference": plain(mean), "learned": signal.learned + 1})


def _verdict(spec: LiveSignal, number: LiveNumber, live: Live, signal: Signal, min_requests: int) -> SignalVerdict:
    if number.value is None:
        return _unknown(number.reason, number.message)
    value, requests = plain(number.value), int(live.requests or 0)
    if live.requests is not None and requests < min_requests:
        message = f"{spec.name}: {requests} requests in the window; a verdict needs {min_requests}"
        return _unknown("TooFewRequests", message, value=value, samples=requests)
    verdict, reference, comparison = _compared(spec, number.value, signal)
    message = f"{spec.name} {value}{comparison}"
    if verdict is Verdict.BREACH and _is_saturated(spec, live):
        in_use = f"{live.saturation or 0:.0%} of the CPU limit is in use"
        message = f"{message}; {in_use}: add replicas or CPU; a faster model is not the remedy"
        return _unknown(CAPACITY_LIMITED, message, value=value, samples=requests)
    reason = _REASONS.get(verdict, "LearningUsual")
    return SignalVerdict(
        verdict=verdict, reason=reason, message=message, value=value, samples=requests, reference=reference
    )


def _unknown(reason: str, message: str, *, value: str | None = None, samples: int = 0) -> SignalVerdict:
    return SignalVerdict(verdict=Verdict.UNKNOWN, reason=reason, message=message[:1024], value=value, samples=samples)


def _compared(spec: LiveSignal, value: float, signal: Signal) -> tuple[Verdict, str | None, str]:
    """Return the verdict, what the value is compared with, and the comparison in words."""
    worse = -1.0 if spec.kind.higher_is_better else 1.0
    if spec.limit is not None and worse * (value - float(spec.limit)) > 0:
        return Verdict.BREACH, spec.limit, f" is worse than the limit of {spec.limit}"
    if spec.max_degradation is None:
        return Verdict.CLEAR, spec.limit, " keeps its limit" if spec.limit is not None else ""
    if signal.reference is None or signal.learned < LEARNING_WINDOWS:
        return Verdict.UNKNOWN, signal.reference, "; what is usual is still being learned"
    usual = float(signal.reference)
    degradation = worse * (value - usual) / max(abs(usual), 1e-12)
    verdict = _graded(spec, degradation, float(spec.max_degradation))
    return verdict, signal.reference, f", {degradation:+.0%} against the usual {signal.reference}"


def _graded(spec: LiveSignal, degradation: float, breach_above: float) -> Verdict:
    clear_up_to = float(spec.clear_degradation) if spec.clear_degradation is not None else breach_above / 2
    if degradation > breach_above:
        return Verdict.BREACH
    return Verdict.CLEAR if degradation <= clear_up_to else Verdict.BETWEEN


def _is_saturated(spec: LiveSignal, live: Live) -> bool:
    return spec.kind is LiveKind.LATENCY and live.saturation is not None and live.saturation >= SATURATED
