"""How many requests a second one serving process answers in time, before and after, from call times already measured.

No server is loaded for this, and nothing is measured. The calls of the judge's rounds are replayed as a queue: requests
arrive at random (Poisson), one process answers them one after the other, and each takes as long as one of the calls
took. How long a request waits follows from Lindley's recursion, which is computed as a running sum minus its running
minimum. Both models meet the same requests at the same moments, and the calls of one request are those of one round.

Both are held to the same limit, and neither may be busier than the same share of the time. Without that share, a faster
model would be credited with the spare time that lets a server get over a burst.

Sources: D. V. Lindley, Proceedings of the Cambridge Philosophical Society 48 (1952), 277-289; D. Gross, J. Shortle,
J. Thompson and C. Harris, Fundamentals of Queueing Theory, Wiley 2008.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from optimizer_jobs.measure.latency import Timings
from optimizer_jobs.measure.mix import Floats, Integers, weights
from optimizer_jobs.measure.stats import Interval

LEAST_ROUNDS = 20
"""Fewest rounds that say anything about a queue."""
MOST_LOAD = 0.8
"""Largest share of the time that a process may be busy under a limit of the owner's: real requests come in bursts, and
nearly without spare time a queue only grows."""
HALF_LOAD = 0.5
"""The share for both where the limit is the champion's own time, at which the champion is asked for it."""
LEAST_LOAD = 0.1
"""A limit that the champion keeps only while it is less busy than this is one that it does not keep."""
REQUESTS = 20_000
"""Requests of each replay behind an interval; the estimate itself has five times as many."""
DRAWS = 200
_P95 = 0.95
_SETTLING = 0.1
"""Share of the requests at the beginning that do not count, because the queue is still empty."""
_FLOOR = 0.01
"""Least load that is looked at."""
_STEPS = 12
_MS_PER_SECOND = 1000.0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Requests a second of one process before and after, while 95 % of them are answered within a limit."""

    limit_ms: float
    """Longest time of waiting and answering together, in milliseconds."""
    is_asked: bool
    """Whether the limit is the owner's; else it is the champion's own time while it is busy half of the time."""
    champion: Interval
    """Requests a second."""
    candidate: Interval
    """Requests a second."""
    ratio: Interval
    """Candidate divided by champion, in the same resamples: narrower than the two intervals apart."""

    def widened(self, factor: float) -> "Capacity":
        """Return the same with the ends of all intervals moved outwards by a factor of at least 1."""
        champion, candidate = self.champion.widened(factor), self.candidate.widened(factor)
        ratio, limit, is_asked = self.ratio.widened(factor), self.limit_ms, self.is_asked
        return Capacity(limit_ms=limit, is_asked=is_asked, champion=champion, candidate=candidate, ratio=ratio)


def capacity(
    champion: Timings,
    candidate: Timings,
    *,
    asked_ms: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int = DRAWS,
) -> Capacity:
    """Return how many requests a second one process answers in time with either model.

    Args:
        champion: Timings of the champion.
        candidate: Timings of the candidate, measured in the same rounds.
        asked_ms: The owner's limit for the 95th percentile, in milliseconds. Where there is none, or the champion does
            not keep it, the limit is the champion's own 95th percentile while it is busy half of the time.
        confidence: Confidence of the intervals, 0..1.
        seed: Seed of arrivals and resampling.
        draws: Number of resamples of whole rounds.

    Raises:
        ValueError: The two were not measured in the same rounds.
    """
    if champion.blocks.shape != candidate.blocks.shape:
        raise ValueError("capacities need two models that were measured in the same rounds")
    generator, rounds = np.random.default_rng(seed), len(champion.blocks)
    whole = _Replay.of(champion, candidate, np.arange(rounds), 5 * REQUESTS, generator)
    is_asked = asked_ms is not None and whole.load_of_champion(asked_ms) >= LEAST_LOAD
    limit = asked_ms if is_asked else None
    limit_ms, *values = whole.rates(limit)
    drawn = np.empty((draws, len(values)))
    for row in drawn:
        resampled = generator.integers(0, rounds, rounds)
        _, *row[:] = _Replay.of(champion, candidate, resampled, REQUESTS, generator).rates(limit)
    intervals = [
        Interval.around(value, column, confidence=confidence, samples=champion.calls)
        for value, column in zip(values, drawn.T, strict=True)
    ]
    before, after, ratio = intervals
    return Capacity(limit_ms=limit_ms, is_asked=is_asked, champion=before, candidate=after, ratio=ratio)


@dataclass(frozen=True)
class _Replay:
    """The same N requests for both models."""

    champion: Floats
    """(N,): how long each takes to answer, in milliseconds."""
    candidate: Floats
    """(N,), of the same rounds and rows."""
    gaps: Floats
    """(N - 1,): times between arrivals, of mean 1."""

    @classmethod
    def of(
        cls, champion: Timings, candidate: Timings, rounds: Integers, requests: int, generator: Generator
    ) -> "_Replay":
        """Return requests that are drawn from these rounds, in which every size of a request has its share."""
        calls = champion.blocks.shape[1]
        of_round = generator.choice(rounds, requests)
        of_call = generator.choice(calls, requests, p=weights(champion.mix, champion.order))
        gaps = generator.exponential(size=requests - 1)
        return cls(champion.blocks[of_round, of_call], candidate.blocks[of_round, of_call], gaps)

    def load_of_champion(self, limit_ms: float) -> float:
        """Return the largest share of the time that the champion may be busy and keep a limit."""
        return _most(self.champion, self.gaps, limit_ms=limit_ms, load=MOST_LOAD) * float(self.champion.mean())

    def rates(self, asked_ms: float | None) -> tuple[float, float, float, float]:
        """Return the limit in milliseconds, the requests a second of champion and candidate, and their ratio."""
        load = HALF_LOAD if asked_ms is None else MOST_LOAD
        half = HALF_LOAD / float(self.champion.mean())
        limit = percentile_95(self.champion, self.gaps, rate=half) if asked_ms is None else asked_ms
        before, after = (
            _most(times, self.gaps, limit_ms=limit, load=load) for times in (self.champion, self.candidate)
        )
        return limit, before * _MS_PER_SECOND, after * _MS_PER_SECOND, after / before


def percentile_95(services: Floats, gaps: Floats, *, rate: float) -> float:
    """Return the 95th percentile of waiting and answering together in a queue with one server, in milliseconds.

    Args:
        services: How long each of N requests takes to answer, in milliseconds (N,).
        gaps: Times between their arrivals, of mean 1 (N - 1,).
        rate: Requests a millisecond.
    """
    walk = np.concatenate(([0.0], np.cumsum(services[:-1] - gaps / rate)))
    waiting = walk - np.minimum.accumulate(walk)
    return float(np.quantile((waiting + services)[int(_SETTLING * len(services)) :], _P95))


def _most(services: Floats, gaps: Floats, *, limit_ms: float, load: float) -> float:
    """Return the most requests a millisecond that keep a limit without being busy more than a share of the time."""
    mean = float(services.mean())
    low, high = _FLOOR / mean, load / mean
    if percentile_95(services, gaps, rate=high) <= limit_ms:
        return high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        is_kept = percentile_95(services, gaps, rate=middle) <= limit_ms
        low, high = (middle, high) if is_kept else (low, middle)
    return low
