"""What counts of bad answers prove: more for more of them, never two opposites, and rarely what is not so."""

import math
import random
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.rollout import Rollout
from retune.plan.rollout.evidence import Share, above_limit, above_other, chance, proves, seems_above
from tests.bench.analysis.three_sigma import lower_bound

LIMIT, REQUESTS = 0.05, 2000
ONE_LOOK = 0.00135
"""Chance that one look at an interval of three standard deviations errs on one side."""
ROUNDING = 1e-6
DISCRETE = 0.5
"""By how much one answer may speak against its kind (the logarithm of an e-value): on two streams of which one has few
answers, and the other hardly a bad one, evidence is not monotone to the last digit."""


@st.composite
def shares(draw: st.DrawFn, most: int = 10**6) -> Share:
    """Draw what a stream of at least two answers has shown, with a bad and a good one to spare."""
    total = draw(st.integers(2, most))
    return Share(draw(st.integers(0, total - 1)), total)


LIMITS = st.sampled_from([0.001, 0.01, 0.05, 0.5, 0.9])
MARGINS = st.sampled_from([-0.1, -0.01, 0.0, 0.01, 0.1])


@given(share=shares(), limit=LIMITS)
def test_a_bad_answer_never_speaks_for_a_version_and_a_good_one_never_against_it(share: Share, limit: float) -> None:
    """Evidence against a limit grows with bad answers, and with nothing else."""
    before = above_limit(share, limit)
    one_bad, one_good = Share(share.bad + 1, share.total + 1), Share(share.bad, share.total + 1)
    assert above_limit(one_bad, limit) >= before - ROUNDING
    assert above_limit(one_good, limit) <= before + ROUNDING


@given(share=shares(2000), other=shares(2000), margin=MARGINS)
def test_bad_answers_of_one_stream_speak_against_it_and_for_the_other(
    share: Share, other: Share, margin: float
) -> None:
    """One answer of a kind in place of the other never turns the evidence by more than a trifle."""
    before = above_other(share, other, margin)
    assert above_other(Share(share.bad + 1, share.total), other, margin) >= before - DISCRETE
    assert above_other(share, Share(other.bad + 1, other.total), margin) <= before + DISCRETE


@given(share=shares(10**9), other=shares(10**9), margin=MARGINS)
def test_never_are_both_claims_supported(share: Share, other: Share, margin: float) -> None:
    """That a stream exceeds the other by a margin, and that it does not, is one test with the streams exchanged."""
    worse, not_worse = above_other(share, other, margin), above_other(other, share, -margin)
    assert min(worse, not_worse) == 0.0
    assert math.isfinite(worse + not_worse)


@given(share=shares(), factor=st.integers(2, 50), margin=st.sampled_from([0.0, 0.01, 0.1]))
def test_equal_streams_are_never_shown_to_differ(share: Share, factor: int, margin: float) -> None:
    """However many answers there are of either."""
    many = Share(factor * share.bad, factor * share.total)
    assert above_other(share, many, margin) == above_other(many, share, margin) == 0.0


@pytest.mark.parametrize(
    ("share", "other"),
    [(Share(80, 2000), Share(20, 20000)), (Share(25, 50), Share(0, 50)), (Share(60, 60), Share(1, 60))],
)
def test_gross_harm_is_proven(share: Share, other: Share) -> None:
    """By fifty requests of both where half of them fail, as sure as one in a hundred thousand."""
    assert proves(above_other(share, other, 0.01), 1e-5)


def test_the_same_shares_prove_more_with_more_requests() -> None:
    """As little as a point and a half beyond a limit, or beside another stream, is proven in the end."""
    alone = [above_limit(Share(0.065 * total, total), LIMIT) for total in (10**3, 10**4, 10**5)]
    beside = [above_other(Share(0.065 * n, n), Share(0.04 * n, n), 0.01) for n in (10**3, 10**4, 10**5)]
    assert sorted(alone) == alone
    assert sorted(beside) == beside
    assert proves(min(alone[-1], beside[-1]), 1e-6)


def test_nothing_is_allowed_by_a_limit_of_nothing() -> None:
    """One bad answer exceeds it; none do not."""
    assert above_limit(Share(1, 10**6), 0.0) == math.inf
    assert above_limit(Share(0, 10**6), 0.0) == 0.0


def ever_condemned(condemns: Callable[[Share], bool]) -> float:
    """Return the exact chance that a rule condemns a stream at the limit at any of its requests.

    The rule must be monotone in the bad answers, so that it condemns from some number of them on.
    """
    alive, condemned, boundary = [1.0], 0.0, 0
    for total in range(1, REQUESTS + 1):
        alive = [
            (alive[bad] if bad < len(alive) else 0.0) * (1 - LIMIT) + (alive[bad - 1] if bad else 0.0) * LIMIT
            for bad in range(len(alive) + 1)
        ]
        boundary = next(bad for bad in count(boundary) if bad > total or condemns(Share(bad, total)))
        condemned += sum(alive[boundary:])
        del alive[boundary:]
    return condemned


def three_sigma(share: Share) -> bool:
    """Condemn by an interval for one look, once there is plenty."""
    return (share.total >= 100 or share.bad >= 10) and lower_bound(share.bad, share.total) > LIMIT


def test_a_version_at_its_limit_is_condemned_as_rarely_as_stated_though_every_request_is_looked_at() -> None:
    """The chance is exact, over all courses of 2,000 requests; an interval for one look errs far more often."""
    assert ever_condemned(lambda share: proves(above_limit(share, LIMIT), ONE_LOOK)) <= ONE_LOOK
    assert ever_condemned(three_sigma) > 10 * ONE_LOOK


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_version_worse_by_the_margin_and_no_more_is_rarely_condemned_though_every_bad_answer_is_looked_at(
    margin: float,
) -> None:
    """Of 400 pairs of streams, each looked at for 1,500 requests in a random order, 4 are expected to err at most."""
    dice, wrong, true_share = random.Random(7), 0, 0.05
    for _ in range(400):
        bad, total = [0, 0], [0, 0]
        for _ in range(1500):
            side = dice.random() < 0.3
            total[side] += 1
            if dice.random() < true_share + (margin if side else 0.0):
                bad[side] += 1
                if side and proves(above_other(Share(bad[1], total[1]), Share(bad[0], total[0]), margin), 0.01):
                    wrong += 1
                    break
    assert wrong <= 8


def test_one_look_errs_as_rarely_as_stated_and_needs_fewer_requests() -> None:
    """Of 4,000 pairs that are looked at once, 40 are expected to err; what seems so is proved by twice the requests."""
    dice, wrong = random.Random(7), 0
    for _ in range(4000):
        ours, theirs = (Share(sum(dice.random() < share for _ in range(150)), 150) for share in (0.15, 0.05))
        wrong += seems_above(ours, theirs, 0.1, 0.01)
    assert 10 <= wrong <= 70
    few, many = ((Share(0.24 * total, total), Share(0.04 * total, total)) for total in (300, 900))
    assert seems_above(*few, 0.1, 0.001)
    assert not proves(above_other(*few, 0.1), 0.001)
    assert proves(above_other(*many, 0.1), 0.001)
    assert not seems_above(Share(30, 300), Share(30, 300), 0.0, 0.4)


def test_all_tests_of_a_rollout_share_the_chance_to_err() -> None:
    """More shares and more signals leave less to each; a rollout without a canary has its bake alone."""
    canary = Rollout.model_validate({"strategy": "Canary", "analysis": {"confidence": "0.95"}})
    assert chance(canary, 1) == pytest.approx(0.05 / ((2 * 2 + 1) * 3))
    assert chance(canary, 2) < chance(canary, 1)
    assert chance(Rollout(), 1) == pytest.approx(0.01 / 3)
