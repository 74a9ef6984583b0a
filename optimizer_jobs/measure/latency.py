"""Latency of several models, measured alternately, so that a disturbance affects all of them alike.

In every round, each model gets one short block of calls, in random order, in one process. Ratios compare blocks of the
same round. Intervals come from resampling whole rounds, because calls within a block are not independent. Numbers that
were measured one after the other, or on different machines, must never be compared.

Where requests differ in size, every block has each size at least once and otherwise in its share, in the same order for
all models; a size that would be rarer counts by its share.
"""

import gc
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.mix import (
    ONE_ROW,
    Floats,
    Mix,
    Pooled,
    quantile_of_each,
    weights,
)
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.measure.stream import Feed, Stream
from optimizer_jobs.models.engine import Session
from optimizer_jobs.progress import say

Milliseconds = Floats
NS_PER_MS = 1e6
WARM_UP_SECONDS = 5.0
"""Longest warm-up of a model."""
LEAST_CALLS = 10
"""Fewest timed calls of a block."""
LEAD_IN_CALLS = 3
LEAD_IN_MS = 2.0
"""Untimed start of a block, in which caches fill and the previous model's worker threads stop spinning."""
STABLE = 0.02
"""A model is warm when two successive medians differ by less than this, relatively."""
TRIM = 0.25
"""Share of rounds that is cut at either end before log-ratios are averaged, against bursts of other processes."""
DRAWS = 2000
DRAWS_PER_LOOK = 300
POOLED_DRAWS = 400
ROUNDS_BETWEEN_LOOKS = 40
LEAST_GROUPS = 10
"""Rounds are joined, for quantiles of a size with few calls in each, as long as so many groups of rounds remain."""


@dataclass(frozen=True)
class Timings:
    """Call times of one model. Row i of all models that were measured together belongs to the same round."""

    blocks: Milliseconds
    """(rounds, calls) in milliseconds."""
    first_call_ms: float
    """Time of the very first call, which may include preparations of the engine."""
    mix: Mix = ONE_ROW
    """Sizes of the requests."""
    order: tuple[int, ...] = ()
    """(calls,): the size of each call of a block; empty where all are alike."""

    @property
    def calls(self) -> int:
        """Number of timed calls."""
        return int(self.blocks.size)

    @property
    def pooled(self) -> Pooled:
        """All calls together, in milliseconds."""
        return Pooled(self.blocks, weights(self.mix, self.order))

    def percentile(self, q: float, *, confidence: float = 0.95, seed: int = 0) -> Interval:
        """Return quantile `q` (0..1) of all calls in milliseconds, with an interval from resampled blocks."""
        generator = np.random.default_rng(seed)
        pooled, rounds = self.pooled, len(self.blocks)
        drawn = [pooled.quantile(q, generator.integers(0, rounds, rounds)) for _ in range(POOLED_DRAWS)]
        return Interval.around(pooled.quantile(q), np.asarray(drawn), confidence=confidence, samples=self.calls)

    def quantile_of_blocks(self, q: float) -> Milliseconds:
        """Return quantile `q` (0..1) of each block in milliseconds, (rounds,)."""
        return quantile_of_each(self.blocks, q, weighing=weights(self.mix, self.order))

    def of_size(self, size: int) -> "Timings":
        """Return the timings of the requests of one size; rounds that have few of them are joined."""
        if len(self.mix) == 1:
            return self
        mine = self.blocks[:, np.asarray(self.order) == size]
        rounds, calls = mine.shape
        joined = max(1, min(math.ceil(LEAST_CALLS / calls), rounds // LEAST_GROUPS))
        kept = rounds - rounds % joined
        return Timings(mine[:kept].reshape(kept // joined, joined * calls), self.first_call_ms)


@dataclass(frozen=True)
class Effort:
    """When to stop measuring."""

    half_width: float = 0.01
    """Stop when the interval of every ratio has at most this relative half width."""
    min_rounds: int = 20
    max_rounds: int = 1000
    max_seconds: float = 40.0
    """Stop after this time, but not before `min_rounds`."""
    calls_per_block: int = 50
    block_ms: float = 200.0
    """Longest block; slow models get fewer calls in a block, but at least LEAST_CALLS."""


def interleave(
    subjects: Mapping[str, Session],
    rows: Rows,
    *,
    mix: Mix = ONE_ROW,
    blocks: int,
    calls_per_block: int,
    block_ms: float = math.inf,
    warmup: int = 20,
    seed: int,
) -> dict[str, Timings]:
    """Time models in a fixed number of rounds, in each of which every model gets one block of calls, in random order.

    Args:
        subjects: The models by name; within a round, all get the same inputs in the same order.
        rows: Real inputs that the calls rotate through.
        mix: Sizes of the requests, in rows, with their shares.
        blocks: Number of rounds, and so of blocks of each model.
        calls_per_block: Timed calls of a block.
        block_ms: Longest block; slow models get fewer calls, but at least LEAST_CALLS.
        warmup: Most warm-up blocks of a model while its median still changes.
        seed: Seed of the order and of the choice of rows.

    Returns:
        Timings by the model's name.
    """
    race = _Race(subjects, rows, mix=mix, calls=calls_per_block, warmup=warmup, seed=seed)
    race.shorten_blocks(block_ms)
    race.run(blocks)
    return race.timings()


def interleave_until(
    subjects: Mapping[str, Session],
    rows: Rows,
    *,
    reference: str,
    quantiles: Sequence[float],
    confidence: float,
    seed: int,
    mix: Mix = ONE_ROW,
    effort: Effort = Effort(),
) -> dict[str, Timings]:
    """Time models as `interleave` does, until all ratios are known closely or the effort is spent.

    Args:
        subjects: The models by name.
        rows: Real inputs that the calls rotate through.
        reference: Name of the model that the others are compared with.
        quantiles: Quantiles (0..1) of the latency whose ratios must be known.
        confidence: Confidence (0..1) of the ratios' intervals.
        seed: Seed of the order and of the choice of rows.
        mix: Sizes of the requests, in rows, with their shares.
        effort: When to stop.

    Returns:
        Timings by the model's name.
    """
    race = _Race(subjects, rows, mix=mix, calls=effort.calls_per_block, warmup=20, seed=seed)
    race.shorten_blocks(effort.block_ms)
    began = monotonic()
    while len(race.rounds) < effort.max_rounds:
        race.run(min(ROUNDS_BETWEEN_LOOKS, effort.max_rounds - len(race.rounds)), until=began + effort.max_seconds)
        if len(race.rounds) < effort.min_rounds:
            race.run(effort.min_rounds - len(race.rounds))
        width = _widest(race.timings(), reference, quantiles, confidence)
        precision = f", ratios known to ±{100 * width:.1f} %" if len(subjects) > 1 else ""
        say(f"  {len(race.rounds)} rounds{precision}")
        if width <= effort.half_width or monotonic() - began > effort.max_seconds:
            break
    return race.timings()


def ratio(a: Timings, b: Timings, q: float, *, confidence: float = 0.95, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Return the latency of `b` divided by that of `a`, at quantile `q`; below 1, `b` is faster.

    Args:
        a: Timings of one model.
        b: Timings of another model, measured in the same rounds.
        q: Quantile of the latency, 0..1.
        confidence: Confidence of the interval, 0..1.
        seed: Seed of the resampling.
        draws: Number of resamples.

    Raises:
        ValueError: The two were not measured in the same rounds.
    """
    if a.blocks.shape != b.blocks.shape:
        raise ValueError("a ratio needs two models that were measured in the same rounds")
    logs = np.log(b.quantile_of_blocks(q)) - np.log(a.quantile_of_blocks(q))
    generator = np.random.default_rng(seed)
    drawn = _trimmed_mean(logs[generator.integers(0, len(logs), (draws, len(logs)))])
    log_ratio = Interval.around(float(_trimmed_mean(logs)), drawn, confidence=confidence, samples=a.calls)
    value, low, high = (math.exp(number) for number in (log_ratio.value, log_ratio.low, log_ratio.high))
    return Interval(value, low=low, high=high, samples=a.calls)


@dataclass(frozen=True)
class Unrest:
    """A finding that the same model does not have the same latency twice on this node."""

    factor: float
    """How far the model's latency is from itself, as a factor above 1."""
    words: str
    """The finding as a sentence without a full stop."""


def aa_check(
    first: Timings, second: Timings, *, quantiles: Sequence[float], band: float, confidence: float = 0.95
) -> Unrest | None:
    """Compare the timings of one model that was measured as two.

    Args:
        first: Timings of the model.
        second: Timings of the same model, measured as if it were another one, in the same rounds.
        quantiles: Quantiles (0..1) of the latency to compare.
        band: Largest relative difference that is accepted, such as 0.05.
        confidence: Confidence of the intervals, 0..1.

    Returns:
        None when all intervals stay within the band; otherwise the largest deviation.
    """
    ratios = {q: ratio(first, second, q, confidence=confidence) for q in quantiles}
    q, worst = max(ratios.items(), key=lambda quantile: deviation(quantile[1]))
    if deviation(worst) <= 1 + band:
        return None
    return Unrest(
        deviation(worst),
        f"the champion measured against itself came out at {worst.low:.3f}..{worst.high:.3f} of its own p{100 * q:g} "
        f"latency, outside {1 / (1 + band):.3f}..{1 + band:.3f}",
    )


def deviation(ratio_to_itself: Interval) -> float:
    """Return how far the worse end of a ratio lies from 1, as a factor."""
    return max(ratio_to_itself.high, 1 / ratio_to_itself.low)


class _Race:
    """Models that are warmed up, and the rounds that were measured so far."""

    def __init__(
        self, subjects: Mapping[str, Session], rows: Rows, *, mix: Mix, calls: int, warmup: int, seed: int
    ) -> None:
        self._random = random.Random(seed)
        self._subjects = dict(subjects)
        self._stream = Stream(rows, mix, self._random, signature=next(iter(self._subjects.values())).signature)
        self._lead = self._stream.first(LEAD_IN_CALLS)
        self._order = self._stream.order(calls)
        self.rounds: list[dict[str, Milliseconds]] = []
        self._first = {name: _first_call(session, self._lead[0]) for name, session in self._subjects.items()}
        self._means = {name: self._warm_up(name, warmup) for name in self._subjects}

    def _warm_up(self, name: str, most: int) -> float:
        """Run blocks until the usual time of a call is the same twice, or the time is over; return it in ms."""
        order = self._stream.order(max(3, min(20, int(100 / self._first[name]))))
        requests = self._stream.requests(order, 0)
        before, began = math.inf, monotonic()
        for _ in range(max(1, most)):
            usual = _usual(self._stream.mix, order, _block(self._subjects[name], requests, self._lead))
            if abs(usual / before - 1) < STABLE or monotonic() - began > WARM_UP_SECONDS:
                return usual
            before = usual
        return before

    def shorten_blocks(self, block_ms: float) -> None:
        """Reduce the calls of a block, not below LEAST_CALLS, so that the slowest model takes at most `block_ms`."""
        slowest, calls = max(self._means.values()), len(self._order)
        if calls > LEAST_CALLS and calls * slowest > block_ms:
            self._order = self._stream.order(max(LEAST_CALLS, int(block_ms / slowest)))

    def run(self, rounds: int, *, until: float = math.inf) -> None:
        """Measure more rounds; stop early when the clock (`monotonic`, in seconds) reaches `until`."""
        names = list(self._subjects)
        with _no_garbage_collection():
            for _ in range(rounds):
                if monotonic() > until:
                    return
                self._random.shuffle(names)
                requests = self._stream.requests(self._order, len(self.rounds))
                self.rounds.append({name: _block(self._subjects[name], requests, self._lead) for name in names})

    def timings(self) -> dict[str, Timings]:
        """Return the timings so far, by the model's name."""
        return {
            name: Timings(
                blocks=np.stack([blocks[name] for blocks in self.rounds]),
                first_call_ms=self._first[name],
                mix=self._stream.mix,
                order=self._order,
            )
            for name in self._subjects
        }


def _usual(mix: Mix, order: Sequence[int], times: Milliseconds) -> float:
    """Return the mean over sizes of the median time, by their shares."""
    sizes = np.asarray(order)
    return sum(float(share) * float(np.median(times[sizes == size])) for size, share in mix)


def _first_call(session: Session, feed: Feed) -> float:
    began = perf_counter_ns()
    session.run(feed)
    return (perf_counter_ns() - began) / NS_PER_MS


def _block(session: Session, requests: Sequence[Feed], lead: Sequence[Feed]) -> Milliseconds:
    """Return the times (calls,) in milliseconds of a block of calls, after an untimed lead-in."""
    _lead_in(session, lead)
    times = np.empty(len(requests))
    for call, feed in enumerate(requests):
        began = perf_counter_ns()
        session.run(feed)
        times[call] = perf_counter_ns() - began
    return times / NS_PER_MS


def _lead_in(session: Session, feeds: Sequence[Feed]) -> None:
    began = perf_counter_ns()
    calls = 0
    while calls < len(feeds) or (perf_counter_ns() - began) / NS_PER_MS < LEAD_IN_MS:
        session.run(feeds[calls % len(feeds)])
        calls += 1


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switch Python's garbage collector off, so that it does not run during timed calls."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _widest(timings: Mapping[str, Timings], reference: str, quantiles: Sequence[float], confidence: float) -> float:
    """Return the largest relative half width among the intervals of all ratios to the reference."""
    ratios = [
        ratio(timings[reference], other, q, confidence=confidence, draws=DRAWS_PER_LOOK)
        for name, other in timings.items()
        for q in quantiles
        if name != reference
    ]
    return max((math.sqrt(interval.high / interval.low) - 1 for interval in ratios), default=0.0)


def _trimmed_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean along the last axis, without the smallest and the largest values (a share of TRIM each)."""
    ordered = np.sort(values, axis=-1)
    cut = int(TRIM * ordered.shape[-1])
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))
