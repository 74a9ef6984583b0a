"""Windows never overlap, leave nothing out, and are due once they are over."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from retune.api.monitoring import Monitoring
from retune.plan.watch import windows

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - given its zone
lengths = st.integers(1, 7 * 86400)
delays = st.floats(0, 86400)


@given(moments, lengths)
def test_one_window_begins_where_the_one_before_ends(moment: datetime, length: int) -> None:
    """Half-open spans of the same length, told apart by number."""
    index = windows.first_since(moment, length)
    one, next_ = windows.window(index, length), windows.window(index + 1, length)
    assert one.end - one.start == length
    assert next_.start == one.end
    assert windows.end_of(index, length).timestamp() == one.end


@given(moments, lengths, delays)
def test_the_newest_window_is_over_and_the_next_is_not(now: datetime, length: int, delay: float) -> None:
    """With the delay past its end, and by less than one more window."""
    index = windows.newest_over(now, length, delay)
    assert windows.window(max(index, 0), length).end + delay <= now.timestamp() or index < 0
    assert (index + 2) * length + delay > now.timestamp()


@given(moments, lengths, delays)
def test_the_next_window_is_due_when_the_wait_is_over(now: datetime, length: int, delay: float) -> None:
    """Waking then finds one window more, and waking earlier does not."""
    wait = windows.seconds_until_next(now, length, delay)
    assert 0 < wait <= length + 1e-3
    later = now + timedelta(seconds=wait + 0.001)
    assert windows.newest_over(later, length, delay) >= windows.newest_over(now, length, delay) + 1


@given(moments, lengths)
def test_a_window_that_began_before_does_not_count(since: datetime, length: int) -> None:
    """The first window of a watch begins with it or after it, and none in between is left out."""
    first = windows.window(windows.first_since(since, length), length)
    assert first.start >= since.timestamp() > first.start - length


@given(st.text(max_size=80), st.integers(0, 86400), lengths)
def test_checks_of_many_resources_are_spread_over_a_tenth_of_a_window(key: str, delay: int, length: int) -> None:
    """The place of a resource is its own, never before the delay, and at most 5 minutes after it."""
    own = windows.own_delay(key, Monitoring(delay=f"{delay}s"), length)
    assert own == windows.own_delay(key, Monitoring(delay=f"{delay}s"), length)
    assert delay <= own <= delay + min(length / 10, 300)


def test_a_thousand_resources_do_not_start_in_one_moment() -> None:
    """Of windows of a minute, each of the six seconds has its share."""
    starts = Counter(windows.own_delay(f"ml/digits-{number}", Monitoring(delay="10s"), 60) for number in range(1000))
    assert sorted(starts) == [10, 11, 12, 13, 14, 15]
    assert max(starts.values()) < 250


@given(st.integers(1, 3600), lengths)
def test_a_spread_of_the_spec_counts_up_to_a_whole_window(spread: int, length: int) -> None:
    """Resources fill it from its first second to its last tenth, and no check is put off to a later window."""
    spec, most = Monitoring(delay="10s", spread=f"{spread}s"), min(spread, length)
    starts = [windows.own_delay(f"ml/digits-{number}", spec, length) - 10 for number in range(100)]
    assert min(starts) <= most / 10
    assert 0.9 * most - 1 <= max(starts) < most


def test_without_a_spread_all_checks_start_at_once() -> None:
    """As who measures one resource by itself may want."""
    assert {windows.own_delay(f"ml/{n}", Monitoring(delay="5s", spread="0s"), 3600) for n in range(9)} == {5}
