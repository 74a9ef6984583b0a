"""Requests of several sizes: the order in which they are asked, and what their times say about all together."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.measure.latency import Timings, ratio
from optimizer_jobs.measure.mix import Mix, Pooled, at_least_once, quantile_of_each, schedule, usual_size, weights
from optimizer_jobs.measure.resources import _per_request
from retune.api.search import Batch, Serving


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    """A mix as a spec gives it: one to eight sizes, with weights from equal to worlds apart."""
    sizes = draw(st.lists(st.integers(1, 1024), min_size=1, max_size=8, unique=True))
    shares = st.one_of(st.just(1), st.integers(1, 9), st.integers(1, 10_000))
    batches = tuple(Batch(size=size, weight=str(draw(shares))) for size in sizes)
    return Serving(batches=batches).mix


def tally(order: tuple[int, ...], mix: Mix) -> dict[int, int]:
    """Count the requests of each size."""
    return {size: order.count(size) for size, _ in mix}


@given(mixes(), st.integers(1, 120))
def test_every_beginning_of_a_schedule_has_its_shares_within_one_request(mix: Mix, requests: int) -> None:
    """Wherever a measurement ends, no size has a whole request more or less than its share."""
    order = schedule(mix, requests)
    for end in range(1, requests + 1):
        counted = tally(order[:end], mix)
        assert all(abs(counted[size] - share * end) < 1 for size, share in mix)


@given(mixes(), st.integers(8, 120))
def test_a_block_has_every_size_and_weights_give_back_the_shares(mix: Mix, calls: int) -> None:
    """However rare a size is, each block knows its latency; what it comes too often is taken back by its weight."""
    raised = at_least_once(mix, calls)
    order = schedule(raised, calls)
    assert sum(share for _, share in raised) == 1
    assert all(count >= 1 for count in tally(order, mix).values())
    counting = weights(mix, order)
    if counting is not None:
        for size, share in mix:
            assert counting[np.asarray(order) == size].sum() == pytest.approx(float(share))


def test_more_sizes_than_calls_are_refused() -> None:
    """A block of one call cannot have two sizes."""
    with pytest.raises(ValueError, match="1 requests cannot have 2 sizes"):
        at_least_once(Serving(batches=(Batch(size=1), Batch(size=2))).mix, 1)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.sampled_from([0.5, 0.95]), st.integers(0, 1000))
def test_a_weight_counts_like_so_many_equal_calls(times: list[int], q: float, seed: int) -> None:
    """The quantile of weighted calls is that of a list in which each call stands as often as it weighs."""
    values = np.random.default_rng(seed).random((1, len(times)))
    spread_out = np.repeat(values[0], times)
    expected = np.quantile(spread_out, q, method="inverted_cdf")
    counting = np.asarray(times) / sum(times)
    assert quantile_of_each(values, q, weighing=counting)[0] == expected
    assert Pooled(values, counting).quantile(q) == expected


def test_the_mix_of_a_spec_has_shares_of_its_weights() -> None:
    """Weights are relative, the short form is one size, and without either every request has one row."""
    mix = Serving(batches=(Batch(size=32, weight="0.5"), Batch(size=1, weight="1.5"))).mix
    assert mix == ((1, Fraction(3, 4)), (32, Fraction(1, 4)))
    assert usual_size(mix) == 1
    assert (Serving(batch_size=16).mix, Serving().mix) == (((16, Fraction(1)),), ((1, Fraction(1)),))
    assert (Serving(batch_size=16).only_size, Serving(batches=(Batch(size=1), Batch(size=2))).only_size) == (16, None)


def timings(small: float, large: float, *, rounds: int = 40) -> Timings:
    """Return exact times of a mix in which 1 of 10 requests has 64 rows, with 5 calls of each block of such."""
    order = (1, 64) * 5
    mix = ((1, Fraction(9, 10)), (64, Fraction(1, 10)))
    return Timings(np.tile([small, large] * 5, (rounds, 1)), first_call_ms=1.0, mix=mix, order=order)


def test_percentiles_of_a_mix_are_those_of_its_shares_not_of_the_calls() -> None:
    """Half of the timed calls were large, and a tenth of the requests is: the median is that of small ones."""
    mixed = timings(1.0, 8.0)
    assert [mixed.percentile(q).value for q in (0.5, 0.89, 0.91)] == [1.0, 1.0, 8.0]
    assert list(mixed.quantile_of_blocks(0.89)[:2]) == [1.0, 1.0]


def test_what_the_mix_hides_each_size_shows() -> None:
    """p95 of all requests is that of large ones; a small request that takes twice as long shows by its size alone."""
    before, after = timings(1.0, 8.0), timings(2.0, 8.0)
    assert ratio(before, after, 0.95).value == pytest.approx(1.0)
    by_size = {size: ratio(before.of_size(size), after.of_size(size), 0.95).value for size in (1, 64)}
    assert by_size == {1: pytest.approx(2.0), 64: pytest.approx(1.0)}


def test_rounds_with_few_calls_of_a_size_are_joined() -> None:
    """Two rounds of five calls make a block of ten, as long as ten groups of rounds remain."""
    assert timings(1.0, 8.0).of_size(64).blocks.shape == (20, 10)
    assert timings(1.0, 8.0, rounds=11).of_size(64).blocks.shape == (11, 5)


def test_use_of_a_mix_is_per_row_of_its_requests() -> None:
    """A request of the mix takes what its sizes take by their shares, whatever the number of calls of each."""
    mix = ((1, Fraction(9, 10)), (64, Fraction(1, 10)))
    turn = {1: {"calls": 100, "cpu": 1.0, "wall": 2.0}, 64: {"calls": 3, "cpu": 0.6, "wall": 0.9}}
    assert _per_request(turn, "cpu", mix) == pytest.approx(0.9 * 0.01 + 0.1 * 0.2)
    assert _per_request(turn, "wall", mix) == pytest.approx(0.9 * 0.02 + 0.1 * 0.3)
