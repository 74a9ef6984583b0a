"""Requests a second of one process: held against textbook formulas, and never better for a model that is slower."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from optimizer_jobs.measure.capacity import HALF_LOAD, MOST_LOAD, Capacity, capacity, percentile_95
from optimizer_jobs.measure.latency import Timings
from optimizer_jobs.measure.mix import Floats

ROUNDS, CALLS = 100, 50
LIMITS = (4.0, 6.0, 10.0)
"""Limits in multiples of the mean time of a call."""


def timings(blocks: Floats) -> Timings:
    """Timings of a model whose calls took so long."""
    return Timings(blocks=blocks, first_call_ms=1.0)


def times(seed: int, *, rounds: int = ROUNDS, spread: float = 0.5) -> Floats:
    """Call times of about 1 ms that differ from call to call and, a little, from round to round."""
    generator = np.random.default_rng(seed)
    calls = generator.normal(0, spread, (rounds, CALLS)) + generator.normal(0, 0.05, (rounds, 1))
    return np.asarray(np.exp(calls))


def replayed(
    before: Floats, after: Floats, *, asked_ms: float | None = None, seed: int = 0, draws: int = 3
) -> Capacity:
    """The capacity with few resamples."""
    return capacity(timings(before), timings(after), asked_ms=asked_ms, seed=seed, draws=draws)


@pytest.mark.parametrize("limit", LIMITS)
def test_calls_of_random_length_wait_as_the_textbook_says(limit: float) -> None:
    """M/M/1: the time in the system is exponential with rate mu - lambda, so that its 95th percentile is known."""
    exponential = np.random.default_rng(0).exponential(size=(400, 250))
    known = min(1 + math.log(0.05) / limit, MOST_LOAD)
    answered = replayed(exponential, exponential, asked_ms=limit).champion
    assert 0.001 * answered.value == pytest.approx(known, rel=0.05)


def deterministic_share(time: float, rate: float) -> float:
    """Return the share of requests that wait at most so long in M/D/1, by Erlang's formula; a call takes 1."""
    terms = ((-rate * (time - k)) ** k / math.factorial(k) * math.exp(rate * (time - k)) for k in range(int(time) + 1))
    return (1 - rate) * sum(terms)


@pytest.mark.parametrize("limit", [2.5, 3.5, 5.0])
def test_calls_of_equal_length_wait_as_the_textbook_says(limit: float) -> None:
    """M/D/1: half the waiting of M/M/1 in the mean, and a 95th percentile by a formula of its own."""
    known = float(brentq(lambda rate: deterministic_share(limit - 1, rate) - 0.95, 0.01, 0.99))
    answered = replayed(np.ones((50, 50)), np.ones((50, 50)), asked_ms=limit).champion
    assert 0.001 * answered.value == pytest.approx(min(known, MOST_LOAD), rel=0.03)


@given(st.integers(1, 50), st.floats(0.1, 2.0))
@settings(max_examples=20)
def test_waiting_is_lindley_s_recursion(seed: int, rate: float) -> None:
    """The running sum minus its minimum is what the recursion gives one request after the other."""
    generator = np.random.default_rng(seed)
    services, gaps = generator.exponential(size=200), generator.exponential(size=199)
    waiting = [0.0]
    for service, gap in zip(services, gaps, strict=False):
        waiting.append(max(0.0, waiting[-1] + service - gap / rate))
    expected = np.quantile((np.asarray(waiting) + services)[20:], 0.95)
    assert percentile_95(services, gaps, rate=rate) == pytest.approx(expected)


@given(st.integers(0, 1000), st.floats(0.2, 1.0), st.sampled_from([None, *LIMITS]))
@settings(max_examples=10, deadline=None)
def test_a_model_that_is_faster_in_every_call_answers_no_less(seed: int, least: float, asked: float | None) -> None:
    """However the calls differ, no time that is saved costs requests."""
    before = times(seed)
    after = before * np.random.default_rng(seed).uniform(least, 1.0, before.shape)
    answered = replayed(before, after, asked_ms=asked, seed=seed)
    assert answered.ratio.value >= 0.999
    assert answered.candidate.value >= 0.999 * answered.champion.value
    assert answered.ratio.low <= answered.ratio.value <= answered.ratio.high


@pytest.mark.parametrize("asked", [None, 4.0])
def test_equal_models_answer_equally_many(asked: float | None) -> None:
    """Two models whose times only chance tells apart are not told apart: 1 lies in the interval."""
    answered = replayed(times(1), times(2), asked_ms=asked, draws=20)
    assert answered.ratio.low <= 1 <= answered.ratio.high
    assert answered.ratio.high < 1.3


def test_without_a_limit_both_keep_the_champions_own_time_and_spare_time() -> None:
    """Four times as fast is four times as many, and not the seven times that waiting longer would allow."""
    before = times(3)
    answered = replayed(before, before / 4)
    assert not answered.is_asked
    assert answered.ratio.value == pytest.approx(4.0)
    assert 0.001 * answered.champion.value * float(before.mean()) == pytest.approx(HALF_LOAD, rel=0.02)


def test_a_tail_costs_requests_that_the_mean_does_not_show() -> None:
    """A model as fast in the mean, whose every tenth call takes long, answers fewer in time."""
    before = np.ones((ROUNDS, CALLS))
    after = np.where(np.arange(CALLS) % 10 == 0, 5.5, 0.5) * before
    assert after.mean() == pytest.approx(1.0)
    assert replayed(before, after).ratio.high < 0.8


def test_a_limit_that_the_champion_does_not_keep_is_not_taken() -> None:
    """Compared with a model that keeps it at no load, anything would be worth any number of replicas."""
    before = times(4)
    tight = float(np.quantile(before, 0.94))
    assert not replayed(before, before / 2, asked_ms=tight).is_asked
    assert replayed(before, before / 2, asked_ms=3 * tight).is_asked


def test_sizes_of_requests_keep_their_shares() -> None:
    """A rare large request counts as rarely as it comes, though every block has one."""
    order = tuple(32 if call == 0 else 1 for call in range(10))
    blocks = np.tile(np.where(np.arange(10) == 0, 20.0, 1.0), (ROUNDS, 1))

    def mixed(share: Fraction) -> Timings:
        return Timings(blocks=blocks, first_call_ms=1.0, mix=((1, 1 - share), (32, share)), order=order)

    answered = [
        0.001 * capacity(mixed(share), mixed(share), draws=2).champion.value
        for share in (Fraction(1, 1000), Fraction(1, 10))
    ]
    assert answered == pytest.approx([HALF_LOAD / 1.019, HALF_LOAD / 2.9], rel=0.02)


@pytest.mark.parametrize("shape", [lambda blocks: blocks[1:], lambda blocks: blocks[:, 1:]])
def test_times_of_different_rounds_are_refused(shape: Callable[[Floats], Floats]) -> None:
    """What was not measured together is not compared."""
    with pytest.raises(ValueError, match="same rounds"):
        replayed(times(0), shape(times(0)))


def test_interval_of_the_ratio_covers_the_truth() -> None:
    """Of 18 simulated models that take 0.7 of the time, 16 intervals at 95 % or more hold the true ratio."""
    held = 0
    for seed in range(18):
        answered = replayed(times(2 * seed, rounds=30), 0.7 * times(2 * seed + 1, rounds=30), seed=seed, draws=20)
        held += answered.ratio.low <= 1 / 0.7 <= answered.ratio.high
    assert held >= 16


def test_the_same_times_give_the_same_numbers() -> None:
    """A verdict that is repeated says the same."""
    assert replayed(times(5), times(6)) == replayed(times(5), times(6))
