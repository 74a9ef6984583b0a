"""What live traffic says of a version beside its limits: its own pods' errors and latency, and what queries answer.

A verdict rests on counts by a test that holds however often one looks, so that neither one error among three requests
nor a look every few seconds condemns by chance. What nobody asked or nobody could read is no evidence, and is told so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from retune.api.monitoring import DEFAULT_LIVE, LiveKind, LiveSignal, Performance
from retune.api.status import Version
from retune.api.watched import Signal, Verdict
from retune.plan.draft import Draft
from retune.plan.observed import Heard
from retune.plan.rollout.evidence import Share, above_limit, above_other, chance, proves
from retune.plan.watch.live_verdicts import LEARNING_WINDOWS, SATURATED

ERRORS = Performance(signals=tuple(signal for signal in DEFAULT_LIVE if signal.kind is LiveKind.ERROR_RATE))
"""What is listened to where the spec names no signals: errors, where the pods count them as MLServer does."""
REFUSED = "with a status of 400 to 499"
BY_CLIENT = "one client that sends what no version takes may have been with its pods"
"""Why refusals are not held against a version."""
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


@dataclass(frozen=True)
class _Limit:
    """What a signal is held to."""

    value: float
    was_kept: bool = True
    """Whether the champion kept the limit of the spec. Where it did not, the version is held to what the champion did,
    and only a proof counts: an equal one is beyond it in half of all cases."""


@dataclass(frozen=True)
class _Hearing:
    """What a verdict is made from, whatever the signal."""

    heard: Heard
    beside: Heard | None
    """What the champion's pods have answered in the same time, where they are asked."""
    least: int
    """Requests that a verdict needs."""
    chance: float
    """With which a proof may deceive."""


def listen(draft: Draft, candidate: Version, *, last: bool, beside: Heard | None = None) -> Judgement:
    """Return what live traffic has shown of the version so far; doubts count once nothing more is waited for.

    Args:
        draft: The plan in the making.
        candidate: The version that is listened to.
        last: Whether nothing more is waited for.
        beside: What the champion's pods have answered in the same time, where they are asked: what they do as well is
            nothing that the version does.
    """
    spec = draft.spec.monitoring.performance if draft.spec.monitoring else None
    heard = draft.observed.heard or Heard()
    hearing = _Hearing(heard, beside, (spec or ERRORS).min_requests, chance_of(draft))
    findings = [(signal, _finding(draft, signal, hearing)) for signal in _watched(draft)]
    for signal, finding in findings:
        if finding.bad and (finding.doubt is None or last):
            message = f"version {candidate.version}: {finding.message}"
            return Judgement(message, _REASONS[signal.kind], finding.doubt)
    return _refusing(draft, candidate, hearing) or Judgement(
        _in_words([finding for _, finding in findings], heard, is_asked=spec is not None)
    )


def chance_of(draft: Draft) -> float:
    """Return the chance with which a single test of this rollout may deceive."""
    return chance(draft.spec.rollout, len(_watched(draft)))


def _watched(draft: Draft) -> list[LiveSignal]:
    """Return the signals that can be judged while a version goes live."""
    spec = draft.spec.monitoring.performance if draft.spec.monitoring else None
    return [signal for signal in (spec or ERRORS).signals if signal.kind in _REASONS]


def _refusing(draft: Draft, candidate: Version, hearing: _Hearing) -> Judgement | None:
    """Return that a version refuses what the version before has answered, where that one answers nothing beside it."""
    rollout, refused = draft.status.rollout, share_refused(hearing.heard)
    if rollout is None or rollout.refused_before is None or refused is None or refused.total < hearing.least:
        return None
    if hearing.beside is not None and (hearing.beside.requests or 0) >= hearing.least:
        return None
    known = float(rollout.refused_before)
    allowed = min(1.0, known + float(draft.spec.rollout.analysis.error_margin))
    if not proves(above_limit(refused, allowed), hearing.chance):
        return None
    words = f"{refused.bad:.0f} of {refused.total:.0f} requests were refused ({REFUSED})"
    message = f"version {candidate.version}: {words}, beside {known:.2%} of those before it"
    return Judgement(message, "LiveErrors", BY_CLIENT)


def shares_before(draft: Draft) -> dict[str, str | None]:
    """Return the shares of requests that the pods which serve now have failed and refused, as a status has them.

    Each is None where too few requests tell, or none are counted by status.
    """
    heard, spec = draft.observed.heard or Heard(), draft.spec.monitoring.performance if draft.spec.monitoring else None
    shares = {"errors_before": share_of_errors(heard), "refused_before": share_refused(heard)}
    least = (spec or ERRORS).min_requests
    return {name: f"{share.value:.6f}" if share and share.total >= least else None for name, share in shares.items()}


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


def _finding(draft: Draft, signal: LiveSignal, hearing: _Hearing) -> _Finding:
    limit = _limit(signal, _of_champion(draft, signal))
    if limit is None:
        return _Finding(f"{signal.name}: what is usual is not known yet", is_evidence=False)
    if signal.query:
        return _queried(signal, hearing, limit)
    if signal.kind is LiveKind.ERROR_RATE:
        before = float(draft.status.rollout.errors_before or 0) if draft.status.rollout else 0.0
        return _errors(signal, hearing, limit if before <= limit.value else _Limit(before, was_kept=False))
    if signal.kind is LiveKind.LATENCY:
        return _latency(signal, hearing, limit)
    return _Finding(f"{signal.name}: pods do not tell it", is_evidence=False)


def _of_champion(draft: Draft, signal: LiveSignal) -> Signal | None:
    signals = draft.status.monitoring.signals if draft.status.monitoring else ()
    return next((known for known in signals if known.name == signal.name), None)


def _limit(signal: LiveSignal, before: Signal | None) -> _Limit | None:
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
        return _Limit(strictest)
    was_kept = worse * float(before.value) <= worse * strictest
    return _Limit(strictest) if was_kept else _Limit(float(before.value), was_kept=False)


def _errors(signal: LiveSignal, hearing: _Hearing, limit: _Limit) -> _Finding:
    heard, failed = hearing.heard, share_of_errors(hearing.heard)
    if failed is None:
        return _Finding(f"{signal.name}: the pods count no requests with a status", is_evidence=False)
    allowed = 100 * limit.value
    words = f"{heard.errors:.0f} of {heard.requests:.0f} requests failed ({signal.name}, limit {allowed:.3g} %)"
    beside = share_of_errors(hearing.beside) if hearing.beside else None
    is_proven = _is_proven(hearing, failed, beside, limit.value)
    is_kept = limit.was_kept and _keeps(hearing, beside, limit.value)
    return _judged(hearing, failed, _Limit(limit.value, is_kept), is_proven=is_proven, words=words)


def _is_proven(hearing: _Hearing, share: Share, beside: Share | None, allowed: float) -> bool:
    """Whether a version exceeds what is allowed, and what the champion does in the same time, beyond doubt."""
    if not proves(above_limit(share, allowed), hearing.chance):
        return False
    return beside is None or not beside.total or proves(above_other(share, beside, 0.0), hearing.chance)


def _keeps(hearing: _Hearing, beside: Share | None, allowed: float) -> bool:
    """Whether the champion keeps what is allowed meanwhile, or too little was heard of it to say."""
    return beside is None or beside.total < hearing.least or beside.value <= allowed


def share_of_errors(heard: Heard) -> Share | None:
    """Return the share of requests that failed; None where it is not counted."""
    return _share(heard.errors, heard)


def share_refused(heard: Heard) -> Share | None:
    """Return the share of requests that were refused, with a status of 400 to 499; None where it is not counted."""
    return _share(heard.refused, heard)


def _share(bad: float | None, heard: Heard) -> Share | None:
    return None if bad is None or heard.requests is None else Share(min(bad, heard.requests), heard.requests)


def _latency(signal: LiveSignal, hearing: _Hearing, limit: _Limit) -> _Finding:
    """Judge a percentile by the share of requests that took longer than its limit.

    Proven is only what the buckets' bounds show: where the limit lies between two of them, what is between is a guess.
    """
    heard, allowed = hearing.heard, 1 - signal.percentile_share
    if not heard.buckets:
        return _Finding(f"{signal.name}: the pods tell no histogram", is_evidence=False)
    slow, others = slower_than(limit.value, heard.buckets), hearing.beside.buckets if hearing.beside else {}
    words = f"{slow.bad:.0f} of {slow.total:.0f} requests took longer than {limit.value:.3g} s ({signal.name})"
    sure = min((bound for bound in heard.buckets if bound >= limit.value), default=math.inf)
    is_proven = _is_proven(hearing, slower_than(sure, heard.buckets), slower_than(sure, others), allowed)
    is_kept = limit.was_kept and _keeps(hearing, slower_than(limit.value, others), allowed)
    finding = _judged(hearing, slow, _Limit(allowed, is_kept), is_proven=is_proven, words=words)
    is_saturated = heard.saturation is not None and heard.saturation >= SATURATED
    if not (finding.bad and is_saturated):
        return finding
    return _Finding(finding.message, bad=True, doubt=f"{heard.saturation:.0%} of the CPU limit is in use")


def slower_than(limit: float, buckets: Mapping[float, float]) -> Share:
    """Return the share of requests that took longer than so many seconds."""
    total = max(buckets.values(), default=0.0)
    return Share(max(0.0, total - at_most(limit, buckets)), total)


def at_most(limit: float, buckets: Mapping[float, float]) -> float:
    """Return the requests that took at most so long, interpolated within the bucket that the limit lies in."""
    low, below = 0.0, 0.0
    for bound, count in buckets.items():
        if limit < bound:
            inside = (limit - low) / (bound - low) if math.isfinite(bound) else 0.0
            return below + max(0.0, count - below) * inside
        low, below = bound, max(below, count)
    return below


def _judged(hearing: _Hearing, share: Share, limit: _Limit, *, is_proven: bool, words: str) -> _Finding:
    """Judge bad answers among all: beyond what is allowed they are a proof against the version, or a doubt."""
    if not share.total:
        return _Finding("no request was answered", is_evidence=False)
    is_enough = share.total >= hearing.least
    if is_proven and (is_enough or share.bad >= _PLENTY):
        return _Finding(words, bad=True)
    if not is_enough:
        return _Finding(f"{words}; a verdict needs {hearing.least} requests", is_evidence=False)
    if share.value > limit.value and limit.was_kept:
        return _Finding(words, bad=True, doubt="so few requests may show that by chance")
    return _Finding(words)


def _queried(signal: LiveSignal, hearing: _Hearing, limit: _Limit) -> _Finding:
    """Judge the number that a query answers; of errors, with the requests that the pods count."""
    heard = hearing.heard
    number = next((number for number in heard.numbers if number.name == signal.name), None)
    if number is None or number.value is None:
        message = number.message.rstrip(".") if number else "no number was reported"
        return _Finding(f"{signal.name}: {message}", is_evidence=False)
    words = f"{signal.name} {number.value:.4g}, limit {limit.value:.4g}"
    worse = -1.0 if signal.kind.higher_is_better else 1.0
    is_bad = worse * (number.value - limit.value) > 0
    if heard.requests is not None and heard.requests < hearing.least:
        return _Finding(f"{words}; a verdict needs {hearing.least} requests", is_evidence=False)
    if is_bad and heard.requests is None:
        return _Finding(words, bad=True, doubt="how many requests show it is not known")
    if heard.requests is not None and signal.kind is LiveKind.ERROR_RATE:
        failed = Share(min(1.0, max(0.0, number.value)) * heard.requests, heard.requests)
        is_proven = proves(above_limit(failed, limit.value), hearing.chance)
        return _judged(hearing, failed, limit, is_proven=is_proven, words=words)
    return _Finding(words, bad=is_bad)
