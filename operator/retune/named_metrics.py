"""How each ModelOptimization looks, as Prometheus metrics with its namespace and name, so that alerts find a team.

The number of resources that are named is bounded, and how many are left out is told. Those that need a look come first,
so that a bound never hides one behind healthy ones.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from retune.api.objects import ModelOptimization
from retune.api.quantities import finite
from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.api.worth import Worth
from retune.plan.watch.lateness import lateness

_TROUBLES = {
    (ConditionType.READY, ConditionStatus.FALSE),
    (ConditionType.STALLED, ConditionStatus.TRUE),
    (ConditionType.DRIFT_DETECTED, ConditionStatus.TRUE),
    (ConditionType.QUALITY_DEGRADED, ConditionStatus.TRUE),
    (ConditionType.PERFORMANCE_DEGRADED, ConditionStatus.TRUE),
    (ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE),
    (ConditionType.CIRCUIT_OPEN, ConditionStatus.TRUE),
}
"""What conditions say of a model that somebody should look at."""
_NAMED = ("namespace", "name")


class NamedResources(Collector):
    """Gauges of up to `limit` resources, read when Prometheus asks.

    Args:
        resources: All resources that the operator looks after.
        limit: The most resources that are named; 0 names none.
        clock: The time now, in seconds since the epoch.
    """

    def __init__(
        self,
        resources: Callable[[], Iterable[ModelOptimization]],
        *,
        limit: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._resources = resources
        self._limit = limit
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges as they are now."""
        resources = sorted(self._resources(), key=lambda resource: (not _needs_a_look(resource), resource.key))
        named = resources[: self._limit]
        yield _conditions(named)
        yield _stages(named)
        yield self._lateness(named)
        yield _last_runs(named)
        yield _requests(named)
        yield _replicas_needed(named)
        yield GaugeMetricFamily(
            "retune_unnamed_resources",
            "ModelOptimizations beyond the bound, which no metric names.",
            value=len(resources) - len(named),
        )

    def _lateness(self, resources: Sequence[ModelOptimization]) -> GaugeMetricFamily:
        family = _family("retune_resource_check_lateness_seconds", "How overdue the check of a window is.")
        now = datetime.fromtimestamp(self._clock(), tz=UTC)
        for resource in resources:
            if resource.spec.monitoring is not None:
                family.add_metric(_names(resource), lateness(resource, now=now))
        return family


def _needs_a_look(resource: ModelOptimization) -> bool:
    status = resource.status
    if status.stage is Stage.ROLLING_BACK or (status.last_run and not status.last_run.outcome.successful):
        return True
    return any((condition.type, condition.status) in _TROUBLES for condition in status.conditions)


def _conditions(resources: Sequence[ModelOptimization]) -> GaugeMetricFamily:
    text = "1 for what a condition of a ModelOptimization says now, and why."
    family = _family("retune_resource_condition", text, "type", "status", "reason")
    for resource in resources:
        for condition in resource.status.conditions:
            family.add_metric([*_names(resource), condition.type, condition.status.value, condition.reason], 1)
    return family


def _stages(resources: Sequence[ModelOptimization]) -> GaugeMetricFamily:
    family = _family("retune_resource_stage", "1 for the stage that a ModelOptimization is in.", "stage")
    for resource in resources:
        if resource.status.stage is not None:
            family.add_metric([*_names(resource), resource.status.stage.value], 1)
    return family


def _last_runs(resources: Sequence[ModelOptimization]) -> GaugeMetricFamily:
    text = "When the most recent run ended, in seconds since the epoch."
    family = _family("retune_resource_last_run_timestamp_seconds", text, "outcome")
    for resource in resources:
        if run := resource.status.last_run:
            family.add_metric([*_names(resource), run.outcome.value], run.completion_time.timestamp())
    return family


def _requests(resources: Sequence[ModelOptimization]) -> GaugeMetricFamily:
    text = "Requests a second that one process answers in time with the champion and with the version before it."
    family = _family("retune_resource_requests_per_second", text, "version")
    for resource in resources:
        if worth := _worth(resource):
            for version, rate in ((worth.compared_with, worth.requests_before), (worth.version, worth.requests_after)):
                if (number := finite(rate)) is not None:
                    family.add_metric([*_names(resource), str(version)], number)
    return family


def _replicas_needed(resources: Sequence[ModelOptimization]) -> GaugeMetricFamily:
    text = "Replicas that the traffic of the moment of its promotion needs with the champion."
    family = _family("retune_resource_replicas_needed", text)
    for resource in resources:
        if (worth := _worth(resource)) and worth.replicas_needed is not None:
            family.add_metric(_names(resource), worth.replicas_needed)
    return family


def _worth(resource: ModelOptimization) -> Worth | None:
    """Return what is noted of the champion's worth."""
    champion = resource.status.champion
    return next((worth for worth in resource.status.worth if champion and worth.version == champion.version), None)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[*_NAMED, *labels])


def _names(resource: ModelOptimization) -> tuple[str, str]:
    return resource.metadata.namespace, resource.metadata.name
