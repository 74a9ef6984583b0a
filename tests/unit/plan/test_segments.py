"""The signal of segments: one segment, bad in windows in a row, whatever becomes of operator, Jobs and names."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.monitoring import Segments
from retune.api.status import ConditionStatus, ConditionType
from retune.api.watched import MonitoringStatus, Signal, Verdict, WatchedSegment
from retune.contract.requests import CheckRequest, GatherRequest, encode_request
from retune.contract.results import CheckResult, SegmentVerdict, SignalVerdict
from retune.plan.watch import alarms, segments
from tests.answers import check
from tests.unit.plan.test_monitoring import HOUR, PRODUCTION, condition, judged, next_window, signal, watched
from tests.unit.plan.world import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EU, US = "region=EU", "region=US"
BAD, GOOD, UNSURE, NOTHING = Verdict.BREACH, Verdict.CLEAR, Verdict.BETWEEN, Verdict.UNKNOWN
STARTS = {"cooldown": "1s", "signals": ["SegmentDegradation"]}
verdicts = st.sampled_from([BAD, GOOD, UNSURE, NOTHING])


def shown(world: World) -> dict[str, WatchedSegment]:
    """The segments in the status, by name."""
    state = world.resource.status.monitoring
    assert state is not None
    return {segment.name: segment for segment in state.segments}


def lost(world: World, *windows: dict[str, Verdict], **said: Any) -> World:
    """Let windows be judged whose segments are like this."""
    for window in windows:
        judged(world, segments=window, **said)
    return world


def test_a_segment_that_is_bad_twice_in_a_row_is_raised_and_named() -> None:
    """Condition and status name it with its numbers while the whole shows no loss."""
    world = lost(watched(), {EU: BAD}, quality=GOOD)
    assert not signal(world, alarms.SEGMENT).raised
    assert condition(world, ConditionType.QUALITY_DEGRADED)[0] is ConditionStatus.FALSE
    lost(world, {EU: BAD, US: GOOD}, quality=GOOD)
    raised = signal(world, alarms.SEGMENT)
    assert (raised.raised, raised.streak, raised.message.startswith("region=EU: accuracy 0.7, was 0.9")) == (
        True,
        2,
        True,
    )
    assert [(one.name, one.raised) for one in shown(world).values()] == [(EU, True), (US, False)]
    assert condition(world, ConditionType.QUALITY_DEGRADED) == (ConditionStatus.TRUE, "SaidBreach")


def test_segments_that_are_bad_in_turns_raise_nothing() -> None:
    """By chance, another one is the worst each time."""
    world = lost(watched(), *[{EU: BAD, US: GOOD}, {US: BAD, EU: GOOD}] * 3)
    assert not signal(world, alarms.SEGMENT).raised
    assert {segment.streak for segment in shown(world).values()} == {0, 1}


def test_a_segment_of_which_nothing_is_said_keeps_its_state_and_one_good_window_clears_it() -> None:
    """Windows without its rows neither raise nor clear it; its sentence stays the first."""
    world = lost(watched(), {EU: BAD}, {US: GOOD}, {EU: NOTHING, US: GOOD}, {EU: BAD}, {US: GOOD})
    assert shown(world)[EU].raised
    raised = signal(world, alarms.SEGMENT)
    assert (raised.raised, raised.verdict) == (True, GOOD)
    assert raised.message.startswith("region=EU is still raised (0.7, was 0.9): region=US: ")
    lost(world, {EU: UNSURE})
    assert shown(world)[EU].raised
    lost(world, {EU: GOOD})
    assert not signal(world, alarms.SEGMENT).raised
    assert signal(world, alarms.SEGMENT).raised_at is None


def test_the_next_check_is_asked_of_what_is_raised_or_bad() -> None:
    """Otherwise a segment that is well again, and not among the worst, would stay raised for ever."""
    world = lost(watched(), {EU: BAD, US: GOOD})
    request = world.requests[next_window(world)]
    assert isinstance(request, CheckRequest)
    assert request.raised_segments == (EU,)


def test_a_request_at_its_defaults_can_be_read_by_the_release_before() -> None:
    """A Job refuses fields that it does not know, so nothing of segments is sent while nothing is set or bad."""
    world = watched()
    assert "egment" not in encode_request(world.requests[next_window(world)])


def test_a_lost_segment_starts_no_run_unless_the_spec_says_so() -> None:
    """The gate compares whole test sets: a person decides."""
    world = lost(watched(triggers={"cooldown": "1s"}), *[{EU: BAD}] * 3, quality=GOOD)
    assert signal(world, alarms.SEGMENT).raised
    assert (world.resource.status.run, world.resource.status.triggers.pending) == (None, ())


def test_where_the_spec_says_so_a_run_starts_on_the_rows_since_the_first_bad_window() -> None:
    """The segment's rows are among what is learned and judged; another run for it waits for its turn."""
    world = lost(watched(triggers=STARTS), *[{EU: BAD}] * 2, quality=GOOD)
    run = world.resource.status.run
    assert run is not None
    assert (run.trigger, run.why) == ("SegmentDegradation", signal(world, alarms.SEGMENT).message)
    gather = world.requests["digits-r2-gather"]
    assert isinstance(gather, GatherRequest)
    assert gather.changed == (signal(world, alarms.SEGMENT).first_bad or 0) * HOUR


def test_a_cooldown_holds_it_back_like_any_other_reason() -> None:
    """It is told until when, and it starts once."""
    world = lost(watched(triggers=STARTS | {"cooldown": "6h"}), *[{EU: BAD}] * 2)
    assert world.resource.status.run is None
    assert (world.resource.status.triggers.held or "").startswith("cooling down until")
    assert [one.reason for one in world.resource.status.triggers.pending] == ["SegmentDegradation"]
    world.wait(12 * HOUR)
    world.reconcile()
    assert world.resource.status.run is not None


def test_a_loss_of_all_goes_before_a_loss_of_a_part() -> None:
    """One run for both."""
    world = lost(
        watched(triggers=STARTS | {"signals": ["QualityDegradation", "SegmentDegradation"]}),
        {EU: BAD},
        {EU: BAD},
        quality=BAD,
    )
    run = world.resource.status.run
    assert run is not None
    assert (run.trigger, "also SegmentDegradation" in (run.why or "")) == ("QualityDegradation", True)


def test_labels_of_one_window_count_once() -> None:
    """Two checks that both bring the labels of one window, as after a change of maxDelay, are one bad window."""
    world = watched()
    for _ in range(2):
        name = next_window(world)
        said = check(world.requests[name], segments={EU: BAD}).model_copy(update={"labelled_window": 5})
        world.finish(name, said)
        world.reconcile()
    assert (shown(world)[EU].streak, signal(world, alarms.SEGMENT).raised) == (1, False)


def test_a_check_is_adopted_once_by_whichever_operator() -> None:
    """A new process that finds the same result changes nothing."""
    world = lost(watched(), {EU: BAD})
    before = world.writes
    assert world.reconcile() == 0
    assert (shown(world)[EU].streak, world.writes) == (1, before)


def test_what_is_no_longer_watched_is_forgotten() -> None:
    """Once no segments are judged, none can stay raised for ever."""
    world = lost(watched(triggers=STARTS | {"cooldown": "100h"}), *[{EU: BAD}] * 2)
    off = {"production": PRODUCTION, "window": "1h", "delay": "1m", "segments": {"choose": "Never"}}
    world.change(monitoring=off)
    world.reconcile()
    assert world.resource.status.triggers.pending == ()
    judged(world)
    state = world.resource.status.monitoring
    assert state is not None
    assert (state.segments, alarms.SEGMENT in {one.name for one in state.signals}) == ((), False)


names = st.sampled_from([f"s={letter}" for letter in "abcdefghijkl"])
windows = st.lists(st.dictionaries(names, verdicts, max_size=8), max_size=12)


@given(windows=windows, consecutive=st.integers(1, 4))
def test_a_segment_is_raised_exactly_after_so_many_bad_windows_without_another_between(
    windows: list[dict[str, Verdict]], consecutive: int
) -> None:
    """Of every segment that was among those told; at most eight are kept, each once, the raised first."""
    state: tuple[WatchedSegment, ...] = ()
    signals: tuple[Signal, ...] = ()
    rows: dict[str, int] = {}
    raised: dict[str, bool] = {}
    for number, said in enumerate(windows):
        result = _result(number, said)
        after = segments.after_check(state, signals, result, Segments(consecutive=consecutive), now=NOW)
        state, signals = after["segments"], after["signals"]  # type: ignore[assignment]
        MonitoringStatus(since=NOW, champion_digest="sha256:c", window_seconds=60, segments=state, signals=signals)
        for name, verdict in said.items():
            rows[name] = rows.get(name, 0) + 1 if verdict is BAD else rows.get(name, 0) if verdict is NOTHING else 0
            ended = verdict is GOOD
            raised[name] = not ended and (raised.get(name, False) or rows[name] >= consecutive)
        if len([name for name in raised if raised[name] or rows[name]]) > 8:
            return
        assert {segment.name for segment in state if segment.raised} == {name for name in raised if raised[name]}
        assert [segment.raised for segment in state] == sorted((segment.raised for segment in state), reverse=True)
        signal = next((one for one in signals if one.name == alarms.SEGMENT), Signal(name=alarms.SEGMENT))
        assert signal.raised == any(raised.values())
        assert (alarms.first_bad(signals) is None) != signal.raised


def _result(window: int, said: dict[str, Verdict]) -> CheckResult:
    """Return what a check says of segments."""
    worst = next(iter(said), "none")
    return CheckResult(
        spec_hash="0",
        window=window,
        champion_digest="sha256:c",
        labelled_window=window,
        segment=SignalVerdict(verdict=said.get(worst, NOTHING), reason="Said", message=f"{worst}: 0.7"),
        segments=tuple(SegmentVerdict(name=name, verdict=verdict) for name, verdict in said.items()),
    )


@pytest.mark.parametrize("field", ["segments"])
def test_more_segments_than_a_status_holds_are_refused_at_the_door(field: str) -> None:
    """A result of more than eight is no result."""
    many = tuple(SegmentVerdict(name=f"s={place}", verdict=BAD) for place in range(9))
    with pytest.raises(ValueError, match=field):
        CheckResult(spec_hash="0", window=1, champion_digest="sha256:c", segments=many)
