"""Reading metrics that are dear to read is shared out, so that nobody's metrics keep the operator from others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.signals.allowance import CHEAP_SECONDS, MOST_SECONDS, SHARE, Allowance


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


def test_what_is_cheap_is_read_whenever_it_is_due() -> None:
    """However many resources there are."""
    allowance = Allowance(Clock())
    for number in range(1000):
        allowance.charge(f"ml/{number}", CHEAP_SECONDS)
    assert {allowance.wait(f"ml/{number}") for number in range(1000)} == {0.0}


@pytest.mark.slow
@given(st.lists(st.floats(2 * CHEAP_SECONDS, 5.0), min_size=1, max_size=12))
def test_all_that_is_dear_takes_no_more_than_its_share(costs: list[float]) -> None:
    """Over ten minutes of reading everything as soon as it may be read, beginnings aside."""
    clock = Clock()
    allowance, spent, began = Allowance(clock), 0.0, clock.now
    for number, cost in enumerate(costs):
        allowance.charge(f"ml/{number}", cost)
    while clock.now < began + 600:
        for number, cost in enumerate(costs):
            if allowance.wait(f"ml/{number}") == 0.0:
                allowance.charge(f"ml/{number}", cost)
                spent += cost
        clock.now += 0.25
    assert spent <= 600 * SHARE + sum(costs)


def test_one_dear_resource_alone_is_read_often_and_a_cheap_one_beside_many_at_once() -> None:
    """Who has many honest pods pays for hostile neighbours only while there are any."""
    clock = Clock()
    allowance = Allowance(clock)
    allowance.charge("ml/large", 0.5)
    assert allowance.wait("ml/large") == pytest.approx(0.5 / SHARE)
    for number in range(63):
        allowance.charge(f"evil/{number}", 1.0)
    assert allowance.wait("ml/large") == pytest.approx(64 * 0.5 / SHARE)
    assert allowance.wait("ml/small") == 0.0
    clock.now += MOST_SECONDS
    assert allowance.wait("ml/large") == 0.0


def test_a_clock_that_was_set_back_keeps_nobody_waiting() -> None:
    """What was read in the future is forgotten."""
    clock = Clock()
    allowance = Allowance(clock)
    allowance.charge("ml/a", 1.0)
    clock.now -= 3600
    assert allowance.wait("ml/a") == 0.0
