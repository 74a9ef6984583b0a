"""Latency of several models side by side, so that what disturbs one disturbs all.

The models take turns in short blocks of calls, in random order, in one process. Ratios come from blocks of the same
round, intervals from resampling whole rounds, because calls inside a block resemble each other. Numbers measured one
after the other, or on different machines, must never be compared.
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
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.engine import Session
from optimizer_jobs.progress import say

Milliseconds = NDArray[np.float64]
Feed = Mapping[str, NDArray[np.generic]]

NS_PER_MS = 1e6
MAX_FEEDS = 256
"""Different inputs that the calls rotate through."""
MIN_FEEDS = 8
FEED_BYTES = 64 << 20
"""Memory that the inputs may take before there are fewer of them."""
WARM_UP_SECONDS = 5.0
LEAD_IN_CALLS = 3
LEAD_IN_MS = 2.0
"""Untimed start of a block: caches fill, and worker threads of the model before stop spinning."""
STABLE = 0.02
"""Relative difference of two successive warm-up medians that counts as warm."""
TRIM = 0.25
"""Share of rounds cut at either end before log-ratios are averaged: a neighbour's burst must not decide."""
DRAWS = 2000
DRAWS_PER_LOOK = 300
POOLED_DRAWS = 400
ROUNDS_BETWEEN_LOOKS = 40


@dataclass(frozen=True)
class Timings:
    """Call times of one model; row i of every model measured together belongs to the same round."""

    blocks: Milliseconds
    """(rounds, calls) in milliseconds."""
    first_call_ms: float
    """The very first call, which also pays for lazy preparation."""

    @property
    def calls(self) -> int:
        """Timed calls."""
        return int(self.blocks.size)

    def percentile(self, q: float, *, confidence: float = 0.95, seed: int = 0) -> Interval:
        """Return quantile `q` (0..1) of all calls in milliseconds, its interval from resampled blocks."""
        generator = np.random.default_rng(seed)
        value = float(np.quantile(self.blocks, q))
        rounds = len(self.blocks)
        drawn = [np.quantile(self.blocks[generator.integers(0, rounds, rounds)], q) for _ in range(POOLED_DRAWS)]
        return _around(value, np.asarray(drawn), confidence=confidence, samples=self.calls)


@dataclass(frozen=True)
class Effort:
    """How long to go on measuring."""

    half_width: float = 0.01
    """Stop once every ratio is known this closely, relatively."""
    min_rounds: int = 20
    max_rounds: int = 1000
    max_seconds: float = 40.0
    """Soft limit; `min_rounds` are measured in any case."""
    calls_per_block: int = 50
    block_ms: float = 200.0
    """Slow models get shorter blocks, down to 10 calls."""


def interleave(
    subjects: Mapping[str, Session],
    rows: Rows,
    *,
    batch: int = 1,
    blocks: int,
    calls_per_block: int,
    warmup: int = 20,
    seed: int,
) -> dict[str, Timings]:
    """Return timings of `blocks` rounds in which every subject gets one block of calls, in random order.

    Args:
        subjects: The models by name; all see the same inputs in the same order within a round.
        rows: Real inputs that the calls rotate through.
        batch: Rows a call.
        blocks: Rounds.
        calls_per_block: Timed calls a block.
        warmup: Most warm-up blocks a subject gets while its median still moves.
        seed: Seed of the order and of the choice of rows.
    """
    race = _Race(subjects, rows, batch=batch, calls=calls_per_block, warmup=warmup, seed=seed)
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
    batch: int = 1,
    effort: Effort = Effort(),
) -> dict[str, Timings]:
    """Return interleaved timings, measured until every ratio to `reference` is known closely or `effort` is spent."""
    race = _Race(subjects, rows, batch=batch, calls=effort.calls_per_block, warmup=20, seed=seed)
    race.shorten_blocks(effort.block_ms)
    began = monotonic()
    while len(race.rounds) < effort.max_rounds:
        race.run(min(ROUNDS_BETWEEN_LOOKS, effort.max_rounds - len(race.rounds)), until=began + effort.max_seconds)
        if len(race.rounds) < effort.min_rounds:
            race.run(effort.min_rounds - len(race.rounds))
        width = _widest(race.timings(), reference, quantiles, confidence)
        known = f", ratios known to ±{100 * width:.1f} %" if len(subjects) > 1 else ""
        say(f"  {len(race.rounds)} rounds{known}")
        if width <= effort.half_width or monotonic() - began > effort.max_seconds:
            break
    return race.timings()


def ratio(a: Timings, b: Timings, q: float, *, confidence: float = 0.95, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Return quantile `q` of `b` divided by that of `a`, both measured in the same rounds; below 1, `b` is faster."""
    if a.blocks.shape != b.blocks.shape:
        raise ValueError("a ratio needs two models that were measured in the same rounds")
    logs = np.log(np.quantile(b.blocks, q, axis=1)) - np.log(np.quantile(a.blocks, q, axis=1))
    generator = np.random.default_rng(seed)
    drawn = _trimmed_mean(logs[generator.integers(0, len(logs), (draws, len(logs)))])
    found = _around(float(_trimmed_mean(logs)), drawn, confidence=confidence, samples=a.calls)
    return Interval(math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high), samples=a.calls)


@dataclass(frozen=True)
class Unrest:
    """That this node does not give the same latency for the same model."""

    factor: float
    """How far a model may be from itself here, above 1."""
    words: str
    """The same as a sentence without a full stop."""


def aa_check(
    first: Timings, second: Timings, *, quantiles: Sequence[float], band: float, confidence: float = 0.95
) -> Unrest | None:
    """Return how far one model, measured as two, is from itself; None where that stays within `band`."""
    found = {q: ratio(first, second, q, confidence=confidence) for q in quantiles}
    q, same = max(found.items(), key=lambda item: _off(item[1]))
    if _off(same) <= 1 + band:
        return None
    return Unrest(
        _off(same),
        f"the champion measured against itself came out at {same.low:.3f}..{same.high:.3f} of its own p{100 * q:g} "
        f"latency, outside {1 / (1 + band):.3f}..{1 + band:.3f}",
    )


def _off(same: Interval) -> float:
    """Return how far the worse end of a ratio lies from 1, as a factor."""
    return max(same.high, 1 / same.low)


class _Race:
    """Warmed-up subjects and the rounds they have run so far."""

    def __init__(
        self, subjects: Mapping[str, Session], rows: Rows, *, batch: int, calls: int, warmup: int, seed: int
    ) -> None:
        self._random = random.Random(seed)
        self._subjects = dict(subjects)
        self._feeds = _feeds(rows, batch, self._random)
        self._calls = calls
        self.rounds: list[dict[str, Milliseconds]] = []
        self._first = {name: _first_call(session, self._feeds[0]) for name, session in self._subjects.items()}
        self._medians = {name: self._warm_up(name, warmup) for name in self._subjects}

    def _warm_up(self, name: str, most: int) -> float:
        """Run blocks until two successive medians agree, or enough time has passed; return the last, in ms."""
        calls = max(3, min(20, int(100 / self._first[name])))
        before, began = math.inf, monotonic()
        for _ in range(max(1, most)):
            median = float(np.median(_block(self._subjects[name], self._feeds, 0, calls)))
            if abs(median / before - 1) < STABLE or monotonic() - began > WARM_UP_SECONDS:
                return median
            before = median
        return before

    def shorten_blocks(self, block_ms: float) -> None:
        """Give slow subjects fewer calls a block, so that rounds stay short."""
        slowest = max(self._medians.values())
        self._calls = max(10, min(self._calls, int(block_ms / slowest)))

    def run(self, rounds: int, *, until: float = math.inf) -> None:
        """Run that many more rounds, or fewer when the clock reaches `until`."""
        names = list(self._subjects)
        with _no_garbage_collection():
            for _ in range(rounds):
                if monotonic() > until:
                    return
                self._random.shuffle(names)
                start = len(self.rounds) * self._calls
                self.rounds.append(
                    {name: _block(self._subjects[name], self._feeds, start, self._calls) for name in names}
                )

    def timings(self) -> dict[str, Timings]:
        """Return what was measured so far."""
        return {
            name: Timings(blocks=np.stack([each[name] for each in self.rounds]), first_call_ms=self._first[name])
            for name in self._subjects
        }


def _feeds(rows: Rows, batch: int, chosen: random.Random) -> list[Feed]:
    """Return inputs for single calls, cut beforehand so that slicing is not timed."""
    one = sum(values[:1].nbytes for values in rows.inputs.values()) * batch
    count = max(MIN_FEEDS, min(MAX_FEEDS, FEED_BYTES // max(1, one)))
    picks = np.asarray(chosen.choices(range(len(rows)), k=count * batch)).reshape(count, batch)
    return [rows.take(pick).inputs for pick in picks]


def _first_call(session: Session, feed: Feed) -> float:
    began = perf_counter_ns()
    session.run(feed)
    return (perf_counter_ns() - began) / NS_PER_MS


def _block(session: Session, feeds: Sequence[Feed], start: int, calls: int) -> Milliseconds:
    """Return (calls,) milliseconds, after an untimed lead-in."""
    _lead_in(session, feeds)
    times = np.empty(calls)
    for call in range(calls):
        feed = feeds[(start + call) % len(feeds)]
        began = perf_counter_ns()
        session.run(feed)
        times[call] = perf_counter_ns() - began
    return times / NS_PER_MS


def _lead_in(session: Session, feeds: Sequence[Feed]) -> None:
    began = perf_counter_ns()
    done = 0
    while done < LEAD_IN_CALLS or (perf_counter_ns() - began) / NS_PER_MS < LEAD_IN_MS:
        session.run(feeds[done % LEAD_IN_CALLS])
        done += 1


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector of this harness out of the numbers."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _widest(timings: Mapping[str, Timings], reference: str, quantiles: Sequence[float], confidence: float) -> float:
    """Return the largest relative half width of any ratio to the reference."""
    ratios = [
        ratio(timings[reference], other, q, confidence=confidence, draws=DRAWS_PER_LOOK)
        for name, other in timings.items()
        for q in quantiles
        if name != reference
    ]
    return max((math.sqrt(each.high / each.low) - 1 for each in ratios), default=0.0)


def _trimmed_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean along the last axis without the outer TRIM at either end."""
    ordered = np.sort(values, axis=-1)
    cut = int(TRIM * ordered.shape[-1])
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def _around(value: float, drawn: NDArray[np.float64], *, confidence: float, samples: int) -> Interval:
    """Return the percentile interval of resampled estimates, made to contain the estimate."""
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), samples=samples)
