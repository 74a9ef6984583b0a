"""What the operator says of itself, as Prometheus metrics: in base units, without any resource's name.

Every series exists at zero from the start.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from retune.api.objects import ModelOptimization
from retune.api.status import ConditionStatus, ConditionType, ModelOptimizationStatus, Outcome, Stage
from retune.api.triggers import TriggerReason
from retune.api.watched import MonitoringStatus, Verdict
from retune.cluster.kinds import Kind, watched
from retune.notify.delivery import OUTCOMES
from retune.plan.watch.alarms import DRIFT, ESTIMATE, QUALITY, SEGMENT
from retune.plan.watch.lateness import lateness
from retune.work_queue import Queue

RESULTS = ("changed", "unchanged", "error")
WATCHED = watched(["Deployment"])
"""The kinds that every operator watches."""
WATCHED_SIGNALS = (DRIFT, QUALITY, SEGMENT, ESTIMATE, "Performance")
"""Performance stands for every live signal, whose names users choose."""
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ROLLBACK_REASONS = (
    "ProgressDeadlineExceeded",
    "GoldenMismatch",
    "VariableIgnored",
    "ProtocolMismatch",
    "ServerUnreachable",
    "NotVerified",
    "RolloutAborted",
    "CanaryUnhealthy",
    "UnhealthyDuringBake",
    "RouteChanged",
    "RouteNotAccepted",
    "LiveErrors",
    "LiveLatency",
    "LiveQuality",
    "EvidenceMissing",
    "ShadowErrors",
    "ShadowSlow",
    "RollbackUnknown",
    "RollbackBundleLost",
)
_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Freshness:
    """When each watched kind was last heard of, by an event or a complete list."""

    def __init__(self, kinds: Iterable[Kind] = WATCHED, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kinds = tuple(kinds)
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Wait for every kind from now on."""
        self._heard = {kind: self._clock() for kind in self._kinds}

    def rest(self) -> None:
        """Wait for none: another operator watches."""
        self._heard = {}

    def heard(self, kind: Kind) -> None:
        """Note that the API server has just sent an object or a list of a kind, if it is one that is watched."""
        if kind in self._kinds:
            self._heard[kind] = self._clock()

    def ages(self) -> dict[str, float]:
        """Return the seconds since, by plural name."""
        now = self._clock()
        return {kind.plural: now - heard for kind, heard in self._heard.items()}


class Metrics:
    """Counters and histograms, in a registry of their own."""

    def __init__(self, kinds: Iterable[Kind] = WATCHED) -> None:
        self._kinds = tuple(kinds)
        self.registry = CollectorRegistry()
        self.reconciles = self._counter("retune_reconcile", "Passes over a resource, by result.", "result")
        self.errors = self._counter("retune_reconcile_errors", "Passes that failed and are tried again.")
        self.duration = Histogram(
            "retune_reconcile_time_seconds", "Duration of a pass.", buckets=_BUCKETS, registry=self.registry
        )
        self.requests = self._counter("retune_api_requests", "Requests to the API server.", "verb", "code")
        self.repaired = self._counter("retune_resync_repaired", "Objects that a resync found changed.", "resource")
        self.runs = self._counter("retune_runs", "Runs that ended.", "trigger", "outcome")
        self.rollbacks = self._counter("retune_rollbacks", "Rollouts undone.", "reason")
        self.windows = self._counter("retune_windows", "Windows judged, by what is watched.", "signal", "verdict")
        self.notices = self._counter("retune_notices", "Notices to receivers outside, by how they ended.", "outcome")
        self.skipped = self._counter("retune_windows_skipped", "Windows passed over because newer ones were due.")
        self._initialize()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _initialize(self) -> None:
        """Make every series exist at zero, so that a rate over it works from the first increment."""
        for result in RESULTS:
            self.reconciles.labels(result)
        for verb in VERBS:
            self.requests.labels(verb, "200")
        for kind in self._kinds:
            self.repaired.labels(kind.plural)
        for trigger in TriggerReason:
            for outcome in Outcome:
                self.runs.labels(trigger.value, outcome.value)
        for reason in ROLLBACK_REASONS:
            self.rollbacks.labels(reason)
        for ended in OUTCOMES:
            self.notices.labels(ended)
        for signal in WATCHED_SIGNALS:
            for verdict in Verdict:
                self.windows.labels(signal, verdict.value)

    def request(self, verb: str, code: str) -> None:
        """Count a request to the API server."""
        self.requests.labels(verb, code).inc()

    def notice(self, outcome: str) -> None:
        """Count how the delivery of a notice has ended."""
        self.notices.labels(outcome).inc()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time a pass."""
        with self.duration.time():
            yield

    def transition(self, old: ModelOptimizationStatus, new: ModelOptimizationStatus) -> None:
        """Count what a status write says has happened."""
        ended = new.last_run
        if ended and (old.last_run is None or old.last_run.name != ended.name):
            trigger = old.run.trigger if old.run and old.run.name == ended.name else "Unknown"
            self.runs.labels(trigger, ended.outcome.value).inc()
        before = old.rollout.rollback_reason if old.rollout else None
        after = new.rollout.rollback_reason if new.rollout else None
        if after and after != before:
            self.rollbacks.labels(after).inc()
        if new.monitoring is not None:
            self._judged(old.monitoring, new.monitoring)

    def _judged(self, old: MonitoringStatus | None, new: MonitoringStatus) -> None:
        """Count the newest verdict on each signal, and the windows passed over."""
        before = {signal.name: signal.window for signal in old.signals} if old else {}
        for signal in new.signals:
            if signal.window is not None and signal.window != before.get(signal.name):
                kind = signal.name if signal.name in WATCHED_SIGNALS else "Performance"
                self.windows.labels(kind, signal.verdict.value).inc()
        self.skipped.inc(max(0, new.skipped_windows - (old.skipped_windows if old else 0)))

    def expose(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self.registry)


class Gauges(Collector):
    """What is read off the running parts when Prometheus asks."""

    def __init__(
        self,
        *,
        queue: Queue,
        freshness: Freshness,
        stages: Callable[[], Iterable[Stage | None]],
        lag: Callable[[], float],
        jump: Callable[[], float],
        skew: Callable[[], float],
        leads: Callable[[], bool],
        workers: int,
    ) -> None:
        self._queue = queue
        self._freshness = freshness
        self._stages = stages
        self._lag, self._jump, self._skew, self._leads = lag, jump, skew, leads
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges as they are now."""
        yield _gauge("retune_queue_depth", "Resources that are due and wait for a worker.", self._queue.depth)
        yield _gauge(
            "retune_queue_oldest_age_seconds", "How long the longest waiting one has waited.", self._queue.oldest_age
        )
        yield _gauge("retune_active_workers", "Workers that are in a pass.", self._queue.active)
        yield _gauge("retune_max_workers", "Workers there are.", self._workers)
        yield _gauge(
            "retune_longest_pass_seconds", "How long the longest pass under way has taken.", self._queue.longest_pass
        )
        yield _gauge("retune_event_loop_lag_seconds", "How late the event loop lately was.", self._lag())
        yield _gauge("retune_clock_jump_seconds", "By how much the node's clock has jumped ahead.", self._jump())
        yield _gauge(
            "retune_clock_skew_seconds", "By how much the node's clock is ahead of the API server's.", self._skew()
        )
        yield _gauge("retune_leading", "1 while this operator works, 0 while it stands by.", self._leads())
        yield _labelled(
            "retune_watch_age_seconds", "Time since a kind was last heard of.", "resource", self._freshness.ages()
        )
        counts = {stage.value: 0.0 for stage in Stage}
        for stage in self._stages():
            if stage is not None:
                counts[stage.value] += 1
        yield _labelled("retune_resources", "ModelOptimizations by stage.", "stage", counts)


class Conditions(Collector):
    """How the live models look, added up over all resources when Prometheus asks."""

    def __init__(
        self,
        resources: Callable[[], Iterable[ModelOptimization]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._resources = resources
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges as they are now."""
        resources = list(self._resources())
        counts = {(kind.value, status.value): 0 for kind in ConditionType for status in ConditionStatus}
        for resource in resources:
            for condition in resource.status.conditions:
                if (condition.type, condition.status.value) in counts:
                    counts[condition.type, condition.status.value] += 1
        family = GaugeMetricFamily("retune_conditions", "ModelOptimizations by condition.", labels=["type", "status"])
        for labels, count in counts.items():
            family.add_metric(labels, count)
        yield family
        late = max((lateness(resource, now=self._clock()) for resource in resources), default=0.0)
        yield _gauge("retune_check_lateness_seconds", "How overdue the most overdue check of a window is.", late)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
