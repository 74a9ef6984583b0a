"""The watch over a champion: every window is judged at most once, whatever happens to operator, Jobs and clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retune.api.monitoring import Monitoring
from retune.api.status import ConditionStatus, ConditionType
from retune.api.watched import Signal, Verdict
from retune.contract.requests import CheckRequest
from retune.contract.results import ColumnDrift, Reason, SignalVerdict
from retune.plan import names
from retune.plan.draft import condition_of
from retune.plan.observed import Live, LiveNumber
from retune.plan.watch import alarms, windows
from tests.answers import check, digest_of
from tests.unit.plan.world import World, spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3600.0
DELAY = windows.own_delay("ml/digits", Monitoring(delay="1m"), 3600)
"""Seconds after a window's end at which its check starts."""
PRODUCTION = {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "0s"}}


def watched(**changes: Any) -> World:
    """A world whose delivered model was measured and is watched by the hour; its first run brought nothing."""
    monitoring = changes.pop("monitoring", {"production": PRODUCTION, "window": "1h", "delay": "1m"})
    world = World(spec=spec(monitoring=monitoring, **changes))
    world.settle()
    return world


def next_window(world: World) -> str:
    """Let the next window of the watch end and its check start; return the Job's name."""
    checks: list[str] = []
    for _ in range(2):  # one that began before the watch does not count
        world.wait(HOUR - (world.now.timestamp() - DELAY) % HOUR)
        world.reconcile()
        checks = [name for name in world.active_jobs() if "-w" in name]
        if checks:
            break
    (name,) = checks
    return name


def judged(world: World, **said: Any) -> None:
    """Let the next window be judged like this."""
    name = next_window(world)
    world.finish(name, check(world.requests[name], **said))
    world.reconcile()


def signal(world: World, name: str) -> Signal:
    """A signal as the status shows it."""
    found = world.resource.status.monitoring
    assert found is not None
    return next(one for one in found.signals if one.name == name)


def condition(world: World, kind: ConditionType) -> tuple[ConditionStatus, str]:
    """Status and reason of a condition."""
    found = condition_of(world.resource.status, kind)
    assert found is not None
    return found.status, found.reason


def test_nothing_is_watched_unless_asked() -> None:
    """Without spec.monitoring, no check starts and the status says nothing about it."""
    world = World(spec=spec())
    world.settle()
    world.wait(10 * HOUR)
    assert world.reconcile() == 0
    assert world.resource.status.monitoring is None


def test_a_window_is_checked_when_it_is_over() -> None:
    """Not before its end and the delay, with a Job that is named by its number."""
    world = watched()
    start = world.now.timestamp()
    world.wait(HOUR - start % HOUR + DELAY - 1)
    world.reconcile()
    assert world.active_jobs() == []
    world.wait(HOUR + 2)
    world.reconcile()
    (name,) = world.active_jobs()
    request = world.requests[name]
    assert isinstance(request, CheckRequest)
    assert name == names.check_job("digits", request.window.index)
    assert request.window.end + DELAY <= world.now.timestamp() < request.window.end + HOUR + DELAY
    assert request.window.start >= start


def test_windows_are_compared_with_the_rows_that_the_champion_was_proven_on() -> None:
    """The digest of their file is what the champion's own Job said, of version 1 and of a promoted version."""
    world = watched()
    asked = []
    for _ in range(2):
        check = next_window(world)
        asked.append(world.requests[check].reference_digest)
        world.finish(check)
        world.change(manualNonce="promote")
        world.promote()
    champion = world.resource.status.champion
    assert champion is not None
    assert asked == [digest_of("rows of version 1"), champion.reference_digest]
    assert champion.reference_digest not in {None, asked[0]}


def test_a_window_costs_two_writes() -> None:
    """One Job, and one status when its word is in; nothing is written while it runs or between windows."""
    world = watched()
    judged(world)
    before = world.writes
    name = next_window(world)
    assert world.writes == before + 1
    assert world.reconcile() == 0
    world.finish(name)
    world.reconcile()
    assert world.writes == before + 2
    world.wait(60)
    assert world.reconcile() == 0


def test_windows_that_were_missed_are_passed_over() -> None:
    """After a day without an operator one window is judged, the newest, and the others are counted."""
    world = watched()
    judged(world)
    world.wait(24 * HOUR)
    judged(world)
    state = world.resource.status.monitoring
    assert state is not None
    assert state.skipped_windows == 24
    assert len([name for name in world.requests if "-w" in name]) == 2


def test_drift_is_told_after_windows_in_a_row() -> None:
    """One bad window is none; a good one between them starts the count anew; a good one ends the alarm."""
    world = watched(triggers={"signals": []})
    judged(world, drift=Verdict.BREACH)
    assert not signal(world, "Drift").raised
    judged(world, drift=Verdict.CLEAR)
    judged(world, drift=Verdict.BREACH)
    assert condition(world, ConditionType.DRIFT_DETECTED) == (ConditionStatus.FALSE, "NoDrift")
    judged(world, drift=Verdict.BREACH)
    assert condition(world, ConditionType.DRIFT_DETECTED) == (ConditionStatus.TRUE, "SaidBreach")
    judged(world, drift=Verdict.BETWEEN)
    assert signal(world, "Drift").raised
    judged(world, drift=Verdict.CLEAR)
    assert condition(world, ConditionType.DRIFT_DETECTED) == (ConditionStatus.FALSE, "NoDrift")


@given(st.lists(st.sampled_from(Verdict), min_size=1, max_size=20))
def test_a_change_began_with_the_first_bad_window_of_those_that_tell_of_it(said: list[Verdict]) -> None:
    """A clear window ends it, and so does one between the limits before it is raised; one of no word never does."""
    one, began, raised = Signal(name="Drift"), None, False
    for window, verdict in enumerate(said):
        word = SignalVerdict(verdict=verdict, reason="Said", message="said")
        one = alarms.after_window(one, word, window=window, rule=alarms.Rule(2), now=NOW)
        if verdict is Verdict.BREACH:
            raised, began = raised or one.streak >= 2, window if began is None else began
        elif verdict is Verdict.CLEAR or (verdict is Verdict.BETWEEN and not raised):
            raised, began = False, None
        assert (one.raised, one.first_bad) == (raised, began)
        assert alarms.first_bad([one]) == (began if raised else None)


def test_a_window_that_says_nothing_changes_no_signal() -> None:
    """Missing data neither raises nor clears; monitoring itself is told to be unreliable."""
    world = watched(triggers={"signals": []})
    judged(world, drift=Verdict.BREACH)
    judged(world, drift=Verdict.UNKNOWN)
    assert condition(world, ConditionType.MONITORING_RELIABLE) == (ConditionStatus.FALSE, "SaidUnknown")
    assert signal(world, "Drift").streak == 1
    judged(world, drift=Verdict.BREACH)
    assert signal(world, "Drift").raised
    assert condition(world, ConditionType.MONITORING_RELIABLE)[0] is ConditionStatus.TRUE
    judged(world, drift=Verdict.UNKNOWN)
    assert signal(world, "Drift").raised


def test_a_check_that_failed_is_not_repeated() -> None:
    """Killed, evicted or broken: the verdict is Unknown with the reason, no run starts, the next window is judged."""
    world = watched()
    judged(world)
    world.fail(next_window(world), Reason.STORE_FULL)
    world.reconcile()
    assert signal(world, "Drift").verdict is Verdict.UNKNOWN
    assert condition(world, ConditionType.MONITORING_RELIABLE) == (ConditionStatus.FALSE, "StoreFull")
    state = world.resource.status.monitoring
    assert state is not None
    assert (state.samples, state.drift_share, state.report_uri) == (None, None, None)
    assert world.active_jobs() == []
    assert world.reconcile() == 0
    judged(world)
    assert condition(world, ConditionType.MONITORING_RELIABLE) == (ConditionStatus.TRUE, "Judged")


def test_what_moved_is_shown_with_what_it_carries_and_forgotten_where_nothing_is_seen() -> None:
    """Only drifted columns, at most eight, each name once: a list by name has no second."""
    world = watched()
    name = next_window(world)
    moved = [
        ColumnDrift(name=f"c{k % 9}", method="PSI", score="0.3", drifted=k != 1, carries="0.41") for k in range(12)
    ]
    result = check(world.requests[name]).model_copy(update={"columns": tuple(moved)})
    world.finish(name, result)
    world.reconcile()
    state = world.resource.status.monitoring
    assert state is not None
    assert [column.name for column in state.moved] == ["c0", "c2", "c3", "c4", "c5", "c6", "c7", "c8"]
    assert {(column.size, column.measure, column.carries) for column in state.moved} == {("0.3", "PSI", "0.41")}
    world.fail(next_window(world), Reason.STORE_FULL)
    world.reconcile()
    state = world.resource.status.monitoring
    assert state is not None
    assert state.moved == ()


def test_a_result_of_other_settings_is_no_verdict() -> None:
    """Limits that were changed while the check ran apply from the next window on."""
    world = watched(triggers={"signals": []})
    name = next_window(world)
    result = check(world.requests[name], drift=Verdict.BREACH)
    world.change(monitoring={"production": PRODUCTION, "window": "1h", "minSamples": 700})
    world.reconcile()
    world.finish(name, result)
    world.reconcile()
    assert condition(world, ConditionType.MONITORING_RELIABLE) == (ConditionStatus.FALSE, "SettingsChanged")
    state = world.resource.status.monitoring
    assert state is not None
    assert all(one.name != "Drift" or one.streak == 0 for one in state.signals)


def test_another_length_of_windows_begins_a_new_watch() -> None:
    """Numbers of windows of another length mean other times, so nothing of before counts."""
    world = watched(triggers={"signals": []})
    judged(world, drift=Verdict.BREACH)
    world.change(monitoring={"production": PRODUCTION, "window": "30m"})
    world.reconcile()
    state = world.resource.status.monitoring
    assert state is not None
    assert (state.window, state.signals, state.window_seconds, state.since) == (None, (), 1800, world.now)


def test_a_check_of_shorter_windows_is_none_of_longer_ones() -> None:
    """Its number lies far ahead of theirs: taken for one of them, nothing would be judged ever after."""
    world = watched(triggers={"signals": []}, monitoring={"production": PRODUCTION, "window": "1m", "delay": "1m"})
    world.wait(4 * 60)
    world.reconcile()
    (name,) = world.active_jobs()
    world.finish(name, check(world.requests[name]))
    world.change(monitoring={"production": PRODUCTION, "window": "1h", "delay": "1m"})
    world.reconcile()
    judged(world)
    state = world.resource.status.monitoring
    assert state is not None
    assert state.window_end is not None
    assert state.window_end <= world.now


def test_labels_are_judged_when_they_are_due() -> None:
    """A check judges drift of its own window, and quality of the newest window whose labels have had their time."""
    late = {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "3h"}}
    world = watched(monitoring={"production": late, "window": "1h", "delay": "1m"})
    for _ in range(3):
        judged(world)
    name = next_window(world)
    request = world.requests[name]
    assert isinstance(request, CheckRequest)
    assert request.labelled is not None
    assert request.labelled.index == request.window.index - 3


def test_the_quality_of_a_window_counts_once() -> None:
    """Two checks that tell of the same labelled window are one bad window, not two."""
    world = watched(triggers={"signals": []})
    name = next_window(world)
    first = check(world.requests[name], quality=Verdict.BREACH)
    world.finish(name, first)
    world.reconcile()
    name = next_window(world)
    again = check(world.requests[name], quality=Verdict.BREACH)
    world.finish(name, again.model_copy(update={"labelled_window": first.labelled_window}))
    world.reconcile()
    assert signal(world, "Quality").streak == 1


def test_an_estimate_raises_nothing() -> None:
    """Estimated quality is shown as what it is, apart from measured quality, and is of the window itself."""
    late = {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "3h"}}
    world = watched(monitoring={"production": late, "window": "1h", "delay": "1m"})
    for _ in range(4):
        judged(world, quality=Verdict.BREACH, estimated=True)
    assert signal(world, "EstimatedQuality").window == signal(world, "Drift").window
    assert not signal(world, "EstimatedQuality").raised
    assert world.resource.status.run is None
    assert world.resource.status.monitoring is not None
    assert world.resource.status.monitoring.quality is None


def test_a_window_that_is_none_to_judge_by_changes_nothing() -> None:
    """An estimate that is not trusted is told with its reason, raises and clears nothing, and no condition is False."""
    world = watched(monitoring={"production": {"uri": "pvc://store/production"}, "window": "1h", "delay": "1m"})
    for _ in range(3):
        judged(world, quality=Verdict.UNTRUSTED, estimated=True)
    found = signal(world, "EstimatedQuality")
    assert (found.verdict, found.raised, found.streak) == (Verdict.UNTRUSTED, False, 0)
    assert condition(world, ConditionType.QUALITY_DEGRADED)[0] is ConditionStatus.UNKNOWN
    assert condition(world, ConditionType.QUALITY_DEGRADED)[1] == "SaidUntrusted"
    judged(world, quality=Verdict.CLEAR, estimated=True)
    assert condition(world, ConditionType.QUALITY_DEGRADED)[0] is ConditionStatus.FALSE


def test_an_estimate_is_shown_with_its_interval_and_where_its_rows_lie() -> None:
    """What the check says reaches the status, and another estimate without them takes them away."""
    world = watched(monitoring={"production": {"uri": "pvc://store/production"}, "window": "1h", "delay": "1m"})
    name = next_window(world)
    result = check(world.requests[name], quality=Verdict.CLEAR, estimated=True)
    assert result.quality is not None
    told = result.quality.model_copy(update={"low": "0.65", "high": "0.75", "outside": "0.03"})
    world.finish(name, result.model_copy(update={"quality": told}))
    world.reconcile()
    found = signal(world, "EstimatedQuality")
    assert (found.value, found.low, found.high, found.outside) == ("0.7", "0.65", "0.75", "0.03")
    judged(world, quality=Verdict.UNTRUSTED, estimated=True)
    assert signal(world, "EstimatedQuality").low is None


def live(window: int, latency: float | None, *, saturation: float = 0.2, requests: float = 1000) -> Live:
    """Live numbers of one window."""
    reason = "Measured" if latency is not None else "Unreachable"
    numbers = (LiveNumber("p95-latency", latency, reason, "told"), LiveNumber("error-rate", 0.0, "Measured", "told"))
    return Live(window=window, numbers=numbers, requests=requests, saturation=saturation)


def told(world: World, latency: float | None, **more: Any) -> Signal:
    """Let an hour pass whose latency was this; return the signal."""
    world.wait(HOUR)
    world.live = live(int(world.now.timestamp() // HOUR) - 1, latency, **more)
    world.reconcile()
    return signal(world, "p95-latency")


@pytest.fixture
def fast() -> World:
    """A world whose speed alone is watched, after three usual hours of 10 ms."""
    world = watched(monitoring={"window": "1h", "performance": {}}, triggers={"signals": []})
    world.wait(HOUR)
    for _ in range(3):
        told(world, 0.010)
    return world


def test_what_is_usual_is_learned_first(fast: World) -> None:
    """The mean of the first three windows is the reference, and stays."""
    assert told(fast, 0.011).verdict is Verdict.CLEAR
    assert signal(fast, "p95-latency").reference == "0.01"


def test_slowness_in_a_row_is_told(fast: World) -> None:
    """25 % above the usual, three times."""
    for expected in (False, False, True):
        assert told(fast, 0.014).raised is expected
    assert condition(fast, ConditionType.PERFORMANCE_DEGRADED) == (ConditionStatus.TRUE, "AboveLimit")
    assert not told(fast, 0.0105).raised


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"saturation": 0.97}, "CapacityLimited"), ({"requests": 3}, "TooFewRequests")],
)
def test_slowness_that_a_model_is_not_to_blame_for_is_no_signal(fast: World, more: Any, reason: str) -> None:
    """A busy CPU, or hardly any requests, explain it."""
    for _ in range(4):
        told(fast, 0.050, **more)
    found = told(fast, 0.050, **more)
    assert (found.verdict, found.reason, found.raised) == (Verdict.UNKNOWN, reason, False)


def test_a_silent_prometheus_changes_nothing(fast: World) -> None:
    """No number is no verdict: a raised signal stays, and none is raised."""
    told(fast, 0.014)
    for _ in range(5):
        assert told(fast, None).streak == 1
    assert signal(fast, "p95-latency").reason == "Unreachable"


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["window", "finish", "fail", "crash", "week", "suspend", "resume"]), max_size=25))
def test_no_window_is_ever_judged_twice(steps: list[str]) -> None:
    """Through crashes, failures, skipped time and suspension: one Job a window, adopted in order, no run on Unknown."""
    world = watched()
    adopted: list[int] = []
    for step in steps:
        _do(world, step)
        state = world.resource.status.monitoring
        if state is not None and state.window is not None and (not adopted or state.window != adopted[-1]):
            adopted.append(state.window)
    assert adopted == sorted(set(adopted))
    assert len([name for name in world.active_jobs() if "-w" in name]) <= 1
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.name == "digits-r1"


def _do(world: World, step: str) -> None:
    running = [name for name in world.active_jobs() if not world.jobs[name].held]
    match step:
        case "window" | "week":
            world.wait(HOUR if step == "window" else 7 * 24 * HOUR)
        case "suspend" | "resume":
            world.change(suspend=step == "suspend")
        case "crash":
            world.crash_after = 0
        case _:
            for name in running:
                (world.finish if step == "finish" else world.fail)(name)
    world.survive()


def test_a_promotion_begins_a_new_watch() -> None:
    """What the old champion looked like does not count against the new one, nor do windows that it answered in."""
    world = watched(triggers={"cooldown": "1s"})
    for _ in range(2):
        judged(world, drift=Verdict.BREACH, quality=Verdict.BREACH)
    assert condition(world, ConditionType.MONITORING_RELIABLE) == (ConditionStatus.TRUE, "Judged")
    world.promote()
    state = world.resource.status.monitoring
    assert state is not None
    assert state.signals == ()
    assert condition(world, ConditionType.MONITORING_RELIABLE) == (ConditionStatus.UNKNOWN, "NotSeenYet")
    assert world.now - state.since < timedelta(minutes=10)
    name = next_window(world)
    request = world.requests[name]
    assert isinstance(request, CheckRequest)
    assert request.window.start >= state.since.timestamp()
    assert request.champion.digest == digest_of("digits-r2")


def test_a_live_number_of_windows_of_another_length_is_not_heard() -> None:
    """When windows become longer, a number read for the old ones must not keep those of the new ones from counting."""
    short = {"window": "30s", "performance": {"signals": [{"name": "p95-latency", "kind": "Latency", "limit": "0.5"}]}}
    world = watched(monitoring=short)

    def tell(length: float) -> int:
        index = int(world.now.timestamp() // length) - 1
        number = LiveNumber("p95-latency", 0.1, "Measured", "")
        world.live = Live(window=index, numbers=(number,), requests=500.0)
        world.reconcile()
        return index

    world.wait(90)
    tell(30.0)
    world.change(monitoring=short | {"window": "1h"})
    tell(30.0)
    state = world.resource.status.monitoring
    assert state is not None
    assert (state.window_seconds, state.signals) == (3600, ())
    world.wait(2 * HOUR)
    assert tell(HOUR) == signal(world, "p95-latency").window
