"""What live traffic says of a version in its bake: its own pods' errors and latency, and what queries answer.

A verdict rests on counts with a binomial interval, so that one error among three requests condemns nothing. What nobody
asked or nobody could read is no evidence, and is told as that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from retune.api.monitoring import DEFAULT_LIVE, LiveKind, LiveSignal, Performance
from retune.api.status import Version
from retune.api.watched import Signal, Verdict
from retune.plan.draft import Draft
from retune.plan.observed import Heard
from retune.plan.watch.live_verdicts import LEARNING_WINDOWS, SATURATED

ERRORS = Performance(signals=tuple(signal for signal in DEFAULT_LIVE if signal.kind is LiveKind.ERROR_RATE))
"""What is listened to where the spec names no signals: errors, where the pods count them as MLServer does."""
_SIGMAS = 3.0
"""Width of the interval: a bake is looked at often, and must not condemn by chance."""
_PLENTY = 10
"""Bad answers that are evidence although fewer requests came than a verdict needs."""
_REASONS = {LiveKind.ERROR_RATE: "LiveErrors", LiveKind.LATENCY: "LiveLatency", LiveKind.QUALITY: "LiveQuality"}


@dataclass(frozen=True)
class Judgement:
    """What was heard, and whether it turns the rollout back."""

    message: str
    reason: str | None = None
    """Why the rollout is to be turned back, as one word; None where nothing speaks against the version."""
    excuse: str | None = None
    """Why that is not held against the version, which is then not rejected; None where it is."""


@dataclass(frozen=True)
class _Finding:
    """What one signal shows."""

    message: str
    bad: bool = False
    doubt: str | None = None
    """Why what is bad is no proof against the version; it counts only once the bake is over."""
    is_evidence: bool = True


def listen(draft: Draft, candidate: Version, *, last: bool, beside: Heard | None = None) -> Judgement:
    """Return what live traffic has shown of the version so far; doubts count once nothing more is waited for.

    Args:
        draft: The plan in the making.
        candidate: The version that is listened to.
        last: Whether nothing more is waited for.
        beside: What the champion's pods have answered in the same time, where they are asked: what they fail is
            nothing that the version does.
    """
    spec = draft.spec.monitoring.performance if draft.spec.monitoring else None
    heard = draft.observed.heard or Heard()
    watched = [signal for signal in (spec or ERRORS).signals if signal.kind in _REASONS]
    least = (spec or ERRORS).min_requests
    findings = [(signal, _finding(draft, signal, heard, least, beside)) for signal in watched]
    for signal, finding in findings:
        if finding.bad and (finding.doubt is None or last):
            message = f"version {candidate.version}: {finding.message}"
            return Judgement(message, _REASONS[signal.kind], finding.doubt)
    return Judgement(_in_words([finding for _, finding in findings], heard, is_asked=spec is not None))


def errors_before(draft: Draft) -> str | None:
    """Return the share of requests that the pods which serve now have failed, as a status has it; None if unknown."""
    heard, spec = draft.observed.heard, draft.spec.monitoring.performance if draft.spec.monitoring else None
    if heard is None or heard.requests is None or heard.errors is None:
        return None
    if heard.requests < (spec or ERRORS).min_requests:
        return None
    return f"{heard.errors / heard.requests:.6f}"


def _in_words(findings: list[_Finding], heard: Heard, *, is_asked: bool) -> str:
    evidence = [finding.message for finding in findings if finding.is_evidence]
    if evidence:
        unread = f"; not every pod was read: {heard.trouble}" if heard.trouble else ""
        return f"In its bake: {'; '.join(evidence)}{unread}"
    if heard.requests is not None:
        reason = "; ".join(finding.message for finding in findings) or "no signal is judged in a bake"
        return f"Baked without {_missing(heard)}: {reason}"
    trouble = heard.trouble or "its pods count no requests that Retune knows"
    hint = "" if is_asked else "; spec.monitoring.performance says where they do"
    return f"Baked without being listened to: {trouble}{hint}"


def _missing(heard: Heard) -> str:
    return "a verdict on live traffic (golden requests count as such)" if heard.requests else "traffic"


def _finding(draft: Draft, signal: LiveSignal, heard: Heard, least: int, beside: Heard | None) -> _Finding:
    before = _of_champion(draft, signal)
    limit = _limit(signal, before)
    if limit is None:
        return _Finding(f"{signal.name}: what is usual is not known yet", is_evidence=False)
    if signal.query:
        return _queried(signal, heard, limit, least)
    if signal.kind is LiveKind.ERROR_RATE:
        rollout = draft.status.rollout
        shared = max(float(rollout.errors_before or 0) if rollout else 0.0, _failed_beside(beside, least))
        return _errors(signal, heard, max(limit, shared), least)
    if signal.kind is LiveKind.LATENCY:
        return _latency(signal, heard, limit, least)
    return _Finding(f"{signal.name}: pods do not tell it", is_evidence=False)


def _failed_beside(beside: Heard | None, least: int) -> float:
    """Return the share of requests that the champion's pods fail meanwhile; 0 where too few were heard to say."""
    if beside is None or beside.errors is None or (beside.requests or 0) < least:
        return 0.0
    return beside.errors / (beside.requests or 1)


def _of_champion(draft: Draft, signal: LiveSignal) -> Signal | None:
    signals = draft.status.monitoring.signals if draft.status.monitoring else ()
    return next((known for known in signals if known.name == signal.name), None)


def _limit(signal: LiveSignal, before: Signal | None) -> float | None:
    """Return the limit that the version is held to: where the champion was beyond it, only what is worse than that."""
    worse = -1.0 if signal.kind.higher_is_better else 1.0
    limits = [float(signal.limit)] if signal.limit is not None else []
    if signal.max_degradation is not None and before and before.reference and before.learned >= LEARNING_WINDOWS:
        usual = float(before.reference)
        limits.append(usual + worse * abs(usual) * float(signal.max_degradation))
    if not limits:
        return None
    strictest = min(limits, key=lambda limit: worse * limit)
    if before is None or before.verdict is not Verdict.BREACH or before.value is None:
        return strictest
    return max(strictest, float(before.value), key=lambda limit: worse * limit)


def _errors(signal: LiveSignal, heard: Heard, limit: float, least: int) -> _Finding:
    if heard.requests is None or heard.errors is None:
        return _Finding(f"{signal.name}: the pods count no requests with a status", is_evidence=False)
    words = f"{heard.errors:.0f} of {heard.requests:.0f} requests failed ({signal.name}, limit {100 * limit:.3g} %)"
    return _share(heard.errors, heard.requests, limit, least=least, words=words)


def _latency(signal: LiveSignal, heard: Heard, limit: float, least: int) -> _Finding:
    """Judge a percentile by the share of requests that took longer than its limit."""
    total = max(heard.buckets.values(), default=0.0)
    slow = total - at_most(limit, heard.buckets)
    words = f"{slow:.0f} of {total:.0f} requests took longer than {limit:.3g} s ({signal.name})"
    if not heard.buckets:
        return _Finding(f"{signal.name}: the pods tell no histogram", is_evidence=False)
    finding = _share(slow, total, 1 - signal.percentile_share, least=least, words=words)
    is_saturated = heard.saturation is not None and heard.saturation >= SATURATED
    if not (finding.bad and is_saturated):
        return finding
    return _Finding(finding.message, bad=True, doubt=f"{heard.saturation:.0%} of the CPU limit is in use")


def at_most(limit: float, buckets: Mapping[float, float]) -> float:
    """Return the requests that took at most so long, interpolated within the bucket that the limit lies in."""
    low, below = 0.0, 0.0
    for bound, count in buckets.items():
        if limit < bound:
            inside = (limit - low) / (bound - low) if math.isfinite(bound) else 0.0
            return below + max(0.0, count - below) * inside
        low, below = bound, max(below, count)
    return below


def _share(bad: float, total: float, allowed: float, *, least: int, words: str) -> _Finding:
    """Judge bad answers among all: against the version only where the whole interval lies above what is allowed."""
    if not total:
        return _Finding("no request was answered", is_evidence=False)
    is_enough = total >= least
    if lower_bound(bad, total) > allowed and (is_enough or bad >= _PLENTY):
        return _Finding(words, bad=True)
    if not is_enough:
        return _Finding(f"{words}; a verdict needs {least} requests", is_evidence=False)
    if bad / total > allowed:
        return _Finding(words, bad=True, doubt="so few requests may show that by chance")
    return _Finding(words)


def lower_bound(bad: float, total: float) -> float:
    """Return the lower end of Wilson's interval for a share, three standard deviations wide.

    Args:
        bad: Answers that count, at least 0.
        total: All answers, above 0.
    """
    share, z = bad / total, _SIGMAS
    spread = z * math.sqrt(max(0.0, share * (1 - share)) / total + z * z / (4 * total * total))
    return max(0.0, (share + z * z / (2 * total) - spread) / (1 + z * z / total))


def _queried(signal: LiveSignal, heard: Heard, limit: float, least: int) -> _Finding:
    number = next((number for number in heard.numbers if number.name == signal.name), None)
    if number is None or number.value is None:
        message = number.message.rstrip(".") if number else "no number was reported"
        return _Finding(f"{signal.name}: {message}", is_evidence=False)
    words = f"{signal.name} {number.value:.4g}, limit {limit:.4g}"
    worse = -1.0 if signal.kind.higher_is_better else 1.0
    is_bad = worse * (number.value - limit) > 0
    if heard.requests is not None and heard.requests < least:
        return _Finding(f"{words}; a verdict needs {least} requests", is_evidence=False)
    if is_bad and heard.requests is None:
        return _Finding(words, bad=True, doubt="how many requests show it is not known")
    return _Finding(words, bad=is_bad)
