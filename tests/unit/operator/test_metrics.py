"""What the operator says of itself: metrics that are there from the start, and a health that means something."""

import asyncio
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from retune.api.monitoring import Monitoring
from retune.api.objects import ModelOptimization
from retune.api.rolling import ActiveRollout
from retune.api.status import (
    ActiveRun,
    Condition,
    ConditionStatus,
    ConditionType,
    LastRun,
    ModelOptimizationStatus,
    Outcome,
    Stage,
)
from retune.api.watched import MonitoringStatus, Signal, Verdict
from retune.health import LAG_LIMIT, STUCK_LIMIT, Health, Pulse, serve
from retune.metrics import Conditions, Freshness, Gauges, Metrics
from retune.plan.watch.lateness import lateness
from retune.plan.watch.windows import own_delay
from retune.work_queue import Queue
from tests import samples
from tests.unit.operator.test_queue import Clock

NOW = datetime(2026, 11, 25, tzinfo=UTC)
IDLE = ModelOptimizationStatus()


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of one series, None where there is none."""
    return metrics.registry.get_sample_value(name, labels)


def searching() -> ModelOptimizationStatus:
    """A run is under way."""
    run = ActiveRun(name="digits-r1", number=1, trigger="Manual", spec_hash="ab", start_time=NOW)
    return ModelOptimizationStatus(run=run)


def ended(outcome: Outcome) -> ModelOptimizationStatus:
    """It has ended."""
    last = LastRun(name="digits-r1", outcome=outcome, reason="R", message="m", spec_hash="ab", completion_time=NOW)
    return ModelOptimizationStatus(last_run=last)


def test_series_exist_before_anything_happens() -> None:
    """A rate over a counter works from the first increment."""
    metrics = Metrics()
    assert sample(metrics, "retune_reconcile_total", result="error") == 0
    assert sample(metrics, "retune_runs_total", trigger="Initial", outcome="Promoted") == 0
    assert sample(metrics, "retune_rollbacks_total", reason="GoldenMismatch") == 0
    assert sample(metrics, "retune_api_requests_total", verb="PATCH", code="200") == 0
    assert sample(metrics, "retune_reconcile_errors_total") == 0


def test_a_run_is_counted_once_when_it_ends() -> None:
    """With what started it and how it ended; later writes of the same status count nothing."""
    metrics = Metrics()
    metrics.transition(IDLE, searching())
    metrics.transition(searching(), ended(Outcome.PROMOTED))
    metrics.transition(ended(Outcome.PROMOTED), ended(Outcome.PROMOTED))
    assert sample(metrics, "retune_runs_total", trigger="Manual", outcome="Promoted") == 1


def test_a_rollback_is_counted_once_when_it_begins() -> None:
    """By its reason."""
    metrics = Metrics()
    going = ModelOptimizationStatus(rollout=ActiveRollout(version=2, start_time=NOW))
    undoing = ModelOptimizationStatus(
        rollout=ActiveRollout(version=2, start_time=NOW, rollback_reason="GoldenMismatch")
    )
    metrics.transition(IDLE, going)
    metrics.transition(going, undoing)
    metrics.transition(undoing, undoing)
    metrics.transition(undoing, IDLE)
    assert sample(metrics, "retune_rollbacks_total", reason="GoldenMismatch") == 1


def test_gauges_are_read_when_asked() -> None:
    """Stages are counted over all resources, none is named."""
    metrics, clock = Metrics(), Clock()
    queue, freshness = Queue(clock=clock), Freshness(clock=clock)
    stages = [Stage.MONITORING, Stage.MONITORING, Stage.BLOCKED, None]
    metrics.registry.register(
        Gauges(
            queue=queue,
            freshness=freshness,
            stages=lambda: stages,
            lag=lambda: 0.25,
            jump=lambda: -3.0,
            skew=lambda: 7.0,
            leads=lambda: True,
            workers=8,
        )
    )
    queue.add("ml/digits")
    clock.now += 4
    assert sample(metrics, "retune_queue_depth") == 1
    assert sample(metrics, "retune_queue_oldest_age_seconds") == 4
    assert sample(metrics, "retune_watch_age_seconds", resource="jobs") == 4
    assert sample(metrics, "retune_resources", stage="Monitoring") == 2
    assert sample(metrics, "retune_resources", stage="Gating") == 0
    assert sample(metrics, "retune_event_loop_lag_seconds") == 0.25
    assert sample(metrics, "retune_clock_jump_seconds") == -3.0
    assert b"digits" not in metrics.expose()


def a_health(clock: Clock) -> tuple[Health, Queue, Pulse]:
    """A healthy process."""
    queue, pulse = Queue(clock=clock), Pulse()
    return Health(queue=queue, freshness=Freshness(clock=clock), pulse=pulse, silence_limit=900), queue, pulse


def test_a_quiet_process_is_healthy() -> None:
    """An API server that has nothing to say makes nobody sick."""
    clock = Clock()
    health, queue, _ = a_health(clock)
    queue.add("ml/a", delay=3000)
    clock.now += 800
    assert health.ailments() == []


def test_an_operator_that_stands_by_is_healthy_however_long_it_does() -> None:
    """It watches nothing; from when it leads, it has to hear of everything again."""
    clock, queue = Clock(), Queue()
    freshness = Freshness(clock=clock)
    health = Health(queue=queue, freshness=freshness, pulse=Pulse(), silence_limit=900)
    freshness.rest()
    health.standing_by = True
    clock.now += 1_000_000
    assert (health.ailments(), health.unready(), freshness.ages()) == ([], [], {})
    freshness.begin()
    health.standing_by = False
    assert health.unready()
    clock.now += 899
    assert health.ailments() == []
    clock.now += 2
    assert "nothing was heard of" in health.ailments()[0]


async def test_each_ailment_is_said_in_a_sentence() -> None:
    """A late loop, a stuck queue, an endless pass and a dead watch."""
    clock = Clock()
    health, queue, pulse = a_health(clock)
    queue.add("ml/a")
    await queue.take()
    queue.add("ml/b")
    pulse.lag = LAG_LIMIT + 1
    clock.now += max(STUCK_LIMIT, 900) + 1
    text = "\n".join(health.ailments())
    for words in (
        "event loop was 6.0 s late",
        "waited 901 s",
        "pass has taken 901 s",
        "nothing was heard of deployments",
    ):
        assert words in text


async def test_the_pulse_measures_a_blocked_loop() -> None:
    """Synchronous work on the loop shows up as lag."""
    import time

    pulse = Pulse()
    beat = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0)
    time.sleep(0.8)  # noqa: ASYNC251 - blocking the loop is the fault under test
    async with asyncio.timeout(10):
        while pulse.lag == 0.0:  # noqa: ASYNC110 - the pulse announces nothing
            await asyncio.sleep(0)
    beat.cancel()
    assert pulse.lag > 0.1


async def test_health_and_metrics_are_served_over_http() -> None:
    """Probes read the status code, people read the text."""
    health, _, pulse = a_health(Clock())
    runner, port = await serve(Metrics(), health, port=0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def got(path: str) -> tuple[int, str]:
                async with session.get(path) as answer:
                    return answer.status, await answer.text()

            assert await got("/healthz") == (200, "ok")
            assert (await got("/readyz"))[0] == 503
            health.ready, pulse.lag = True, 60.0
            assert await got("/readyz") == (200, "ok")
            assert await got("/healthz") == (503, "the event loop was 60.0 s late")
            assert "retune_reconcile_total" in (await got("/metrics"))[1]
    finally:
        await runner.cleanup()


SINCE = datetime(2026, 11, 25, 11, 30, tzinfo=UTC)
FIRST = int(SINCE.timestamp() // 3600) + 1
"""The first window of an hour that is watched from its beginning."""


def watched(window: int | None = None, *, skipped: int = 0, **spec: object) -> ModelOptimization:
    """A resource whose window was the last one judged."""
    signals = (
        Signal(name="Drift", verdict=Verdict.BREACH, window=window),
        Signal(name="p95-latency", verdict=Verdict.CLEAR, window=window),
        Signal(name="Quality", verdict=Verdict.UNKNOWN, window=FIRST),  # its labels are not due yet
    )
    monitoring = MonitoringStatus(
        since=SINCE,
        champion_digest="sha256:" + "ab" * 32,
        window_seconds=3600,
        window=window,
        skipped_windows=skipped,
        signals=signals,
    )
    condition = Condition(
        type=ConditionType.DRIFT_DETECTED,
        status=ConditionStatus.TRUE,
        reason="R",
        message="m",
        last_transition_time=NOW,
        observed_generation=1,
    )
    status = ModelOptimizationStatus(monitoring=monitoring, conditions=(condition,))
    found = samples.resource(monitoring={"production": {"uri": "pvc://captured/digits"}}, **spec)
    return found.model_copy(update={"status": status})


def test_a_judged_window_is_counted_once() -> None:
    """By what is watched and the verdict; live signals share one name, since users choose theirs."""
    metrics = Metrics()
    assert sample(metrics, "retune_windows_total", signal="Drift", verdict="Breach") == 0
    before, after = watched(FIRST).status, watched(FIRST + 3, skipped=2).status
    metrics.transition(before, after)
    metrics.transition(after, after)
    assert sample(metrics, "retune_windows_total", signal="Drift", verdict="Breach") == 1
    assert sample(metrics, "retune_windows_total", signal="Performance", verdict="Clear") == 1
    assert sample(metrics, "retune_windows_total", signal="Quality", verdict="Unknown") == 0
    assert sample(metrics, "retune_windows_skipped_total") == 2


def test_conditions_are_counted_over_all_resources() -> None:
    """Zeros included, so that an alert on them never finds nothing to look at."""
    registry = CollectorRegistry()
    registry.register(Conditions(lambda: [watched(FIRST), watched(FIRST), samples.resource()]))
    told = {
        status: registry.get_sample_value("retune_conditions", {"type": "DriftDetected", "status": status})
        for status in ("True", "False", "Unknown")
    }
    assert told == {"True": 2, "False": 0, "Unknown": 0}


@pytest.mark.parametrize("window", [None, FIRST, FIRST + 5])
def test_a_verdict_is_late_from_the_end_of_its_window_and_the_delay(window: int | None) -> None:
    """Counted from the first window that began after the champion went live."""
    delay = own_delay("ml/digits", Monitoring(delay="60s"), 3600)
    due = datetime.fromtimestamp(((FIRST if window is None else window + 1) + 1) * 3600 + delay, tz=UTC)
    later = due + timedelta(seconds=90)
    assert lateness(watched(window), now=due) == 0
    assert lateness(watched(window), now=later) == 90
    assert lateness(watched(window, suspend=True), now=later) == 0
    assert lateness(samples.resource(), now=later) == 0
