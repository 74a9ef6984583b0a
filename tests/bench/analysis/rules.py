"""Rules that judge a canary by its counters: Retune's own code, what it had before, and how others are documented.

Each takes what a whole canary would answer and says what it makes of it. None knows the truth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from retune.api.rollout import Requirement
from retune.api.status import Version
from retune.plan.draft import Draft
from retune.plan.observed import Heard, Observed, Traffic
from retune.plan.rollout.comparing import Verdict, compare, errors, latency
from retune.plan.rollout.listening import listen, slower_than
from retune.signals.live_numbers import quantile
from tests.bench.analysis.streams import CANARY, CHAMPION, HOLD, WAIT, Held, usual_times
from tests.bench.analysis.three_sigma import lower_bound, upper_bound
from tests.unit.plan.world import World, spec

LEAST = 100
"""Requests that a share and a verdict of Retune need."""
ERROR_LIMIT = 0.05
_PERCENTILE = 0.95
_USUAL_SECONDS = 0.1
"""Within which 95 % of the champion's requests are answered, as its pods told before."""
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Outcome:
    """What became of a canary."""

    promoted: bool
    rejected: bool = False
    """Whether it was said to be proved worse."""
    requests: int = 0
    """What the canary had answered when that was decided."""


Rule = Callable[[Sequence[Held]], Outcome]


class Retune:
    """The operator's own code, at every look.

    Args:
        analysis: What spec.rollout.analysis says.
    """

    def __init__(self, **analysis: Any) -> None:
        rollout = {"strategy": "Canary", "analysis": analysis}
        self._resource = World(spec=spec(rollout=rollout)).resource
        self._is_strict = self._resource.spec.rollout.analysis.require is Requirement.PROVEN_NOT_WORSE

    def __call__(self, canary: Sequence[Held]) -> Outcome:
        """Judge a canary; one that proof is awaited of for longer than half an hour is taken back."""
        answered = 0
        for held in canary:
            outcome, looks = self._hold(held)
            answered += int(held.requests[:looks, CANARY].sum())
            if not outcome.promoted:
                return replace(outcome, requests=answered)
        return Outcome(promoted=True, requests=answered)

    def _hold(self, held: Held) -> tuple[Outcome, int]:
        """Return whether a share is left upwards, and after how many looks."""
        for looks in range(1, HOLD + WAIT + 1):
            draft, settled = self._seen(held, looks), looks >= HOLD
            if self._is_bad(draft, last=False, settled=settled):
                return Outcome(promoted=False, rejected=True), looks
            if settled and held.requests[:looks, CANARY].sum() >= LEAST and self._is_enough(draft):
                return Outcome(promoted=not self._is_bad(draft, last=True, settled=True)), looks
        return Outcome(promoted=False), HOLD + WAIT

    def _seen(self, held: Held, looks: int) -> Draft:
        heard, beside = held.heard(CANARY, looks), held.heard(CHAMPION, looks)
        traffic = Traffic(held=heard, beside=beside, usual_seconds=_USUAL_SECONDS)
        return Draft(Observed(self._resource, None, heard=heard, traffic=traffic), _NOW)

    def _is_bad(self, draft: Draft, *, last: bool, settled: bool) -> bool:
        candidate = _CANDIDATE
        judgement = listen(draft, candidate, last=last, beside=draft.observed.traffic.beside)
        return judgement.reason is not None or compare(draft, candidate, settled=settled, last=last) is not None

    def _is_enough(self, draft: Draft) -> bool:
        proofs = (errors, latency) if self._is_strict else ()
        return all(proof(draft).verdict is Verdict.NOT_WORSE for proof in proofs)


_CANDIDATE = Version(version=2, digest="2", uri="pvc://store/2", promoted_at=_NOW)


def three_sigma(canary: Sequence[Held]) -> Outcome:
    """Judge as Retune did before: two intervals for one look, on all that both sides have answered so far."""
    ours, theirs = Heard(requests=0, errors=0), Heard(requests=0, errors=0)
    for held in canary:
        for looks in range(1, HOLD + WAIT + 1):
            own, beside = _joined(ours, held.heard(CANARY, looks)), _joined(theirs, held.heard(CHAMPION, looks))
            last = looks >= HOLD and (own.requests or 0) - (ours.requests or 0) >= LEAST
            if _was_condemned(own, beside, last=last):
                return Outcome(promoted=False, rejected=True, requests=int(own.requests or 0))
            if last:
                ours, theirs = own, beside
                break
        else:
            return Outcome(promoted=False, requests=int(ours.requests or 0))
    return Outcome(promoted=True, requests=int(ours.requests or 0))


def _joined(before: Heard, now: Heard) -> Heard:
    buckets = {bound: count + before.buckets.get(bound, 0.0) for bound, count in now.buckets.items()}
    requests, failed = (before.requests or 0) + (now.requests or 0), (before.errors or 0) + (now.errors or 0)
    return Heard(requests=requests, errors=failed, buckets=buckets)


def _was_condemned(own: Heard, beside: Heard, *, last: bool) -> bool:
    asked, theirs = own.requests or 0, beside.requests or 0
    failed, their_failed = own.errors or 0, beside.errors or 0
    if asked and (asked >= LEAST or failed >= 10):
        allowed = max(ERROR_LIMIT, their_failed / theirs if theirs >= LEAST else 0.0)
        if lower_bound(failed, asked) > allowed:
            return True
    if min(asked, theirs) < LEAST:
        return False
    if lower_bound(failed, asked) > upper_bound(their_failed, theirs) + 0.01:
        return True
    usual = min(bound for bound, count in beside.buckets.items() if count >= _PERCENTILE * theirs)
    if not last or not math.isfinite(usual):
        return False
    slow, their_slow = slower_than(usual, own.buckets), slower_than(usual, beside.buckets)
    return lower_bound(slow.bad, slow.total) > upper_bound(their_slow.bad, their_slow.total) + 0.1


def kayenta(canary: Sequence[Held], *, every: int | None = None) -> Outcome:
    """Judge as Kayenta's default judge is documented, by time series of the share of errors and of p95 latency.

    https://spinnaker.io/docs/guides/user/canary/judge: a Mann-Whitney U test at 98 % confidence; a metric is High where
    the whole interval of the shift lies above a quarter of its Hodges-Lehmann estimate. Here High is bad, both metrics
    have to pass, and there is a point every 12 seconds, so that ten minutes have the 50 points that are recommended.

    Args:
        canary: What was answered.
        every: Points after which the canary is judged in between, as interim judgements do; None: at the end alone.
    """
    points = [point for held in canary for point in _points(held)]
    seen = 0
    for number, (_, _, requests) in enumerate(points, start=1):
        seen += requests
        is_last = number == len(points)
        if (is_last or (every and number % every == 0)) and any(
            _is_high([own[metric] for own, _, _ in points[:number]], [other[metric] for _, other, _ in points[:number]])
            for metric in (0, 1)
        ):
            return Outcome(promoted=False, rejected=True, requests=seen)
    return Outcome(promoted=True, requests=seen)


_LOOKS_A_POINT = 12 / 5
"""Looks of five seconds in a point of twelve."""


def _points(held: Held) -> list[tuple[tuple[float, float], tuple[float, float], int]]:
    """Return the share of errors and the p95 of both sides, and the canary's requests, point by point."""
    edges = [round(_LOOKS_A_POINT * number) for number in range(int(HOLD / _LOOKS_A_POINT) + 1)]
    points = []
    for first, last in pairwise(edges):
        own, other = held.part(CANARY, first, last), held.part(CHAMPION, first, last)
        points.append((_measured(own), _measured(other), int(own.requests or 0)))
    return points


def _measured(heard: Heard) -> tuple[float, float]:
    if not heard.requests:
        return math.nan, math.nan
    p95 = quantile(_PERCENTILE, heard.buckets)
    return (heard.errors or 0) / heard.requests, math.nan if p95 is None else p95


_Z_98 = 2.3263


def _is_high(own: Sequence[float], other: Sequence[float]) -> bool:
    ours, theirs = (np.array([value for value in values if not math.isnan(value)]) for values in (own, other))
    m, n = len(ours), len(theirs)
    if not m or not n:
        return False
    shifts = np.sort((ours[:, np.newaxis] - theirs).ravel())
    rank = math.floor(m * n / 2 - _Z_98 * math.sqrt(m * n * (m + n + 1) / 12))
    lowest = shifts[rank] if rank >= 0 else -math.inf
    return bool(lowest > 0.25 * abs(np.median(shifts)))


ARGO_LOOKS, ARGO_FAILURE_LIMIT = 12, 3


def argo(canary: Sequence[Held]) -> Outcome:
    """Judge as the examples of Argo Rollouts do: each minute against a fixed number, failed after more than 3 failures.

    https://argo-rollouts.readthedocs.io/en/stable/features/analysis: `successCondition: result >= 0.95` for the share
    of requests that succeed, `interval: 60s`, `failureLimit: 3`. Beside it, p95 latency below 1.25 times the usual one.
    """
    failures, seen = [0, 0], 0
    for held in canary:
        for first in range(0, HOLD, ARGO_LOOKS):
            minute = held.part(CANARY, first, first + ARGO_LOOKS)
            seen += int(minute.requests or 0)
            failed, p95 = _measured(minute)
            for metric, succeeds in enumerate((failed <= ERROR_LIMIT, p95 <= _slowest())):
                failures[metric] += not succeeds  # no number is no success either
            if max(failures) > ARGO_FAILURE_LIMIT:
                return Outcome(promoted=False, rejected=True, requests=seen)
    return Outcome(promoted=True, requests=seen)


@lru_cache(maxsize=1)
def _slowest() -> float:
    return 1.25 * (quantile(_PERCENTILE, usual_times()) or math.inf)
