"""Metrics with the names of models: what they tell, and that a bound never hides who needs a look."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from retune.api.objects import ModelOptimization
from retune.api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    LastRun,
    ModelOptimizationStatus,
    Outcome,
    Stage,
)
from retune.named_metrics import NamedResources
from tests import samples
from tests.answers import NOTED
from tests.unit.operator.test_metrics import FIRST, NOW, watched


def resource(name: str, **status: object) -> ModelOptimization:
    """A resource in namespace ml with this status."""
    base = samples.resource()
    return base.model_copy(
        update={
            "metadata": base.metadata.model_copy(update={"name": name}),
            "status": ModelOptimizationStatus.model_validate(status),
        }
    )


def saying(kind: ConditionType, status: ConditionStatus) -> dict[str, object]:
    """A status with one condition."""
    condition = Condition(
        type=kind, status=status, reason="Why", message="m", last_transition_time=NOW, observed_generation=1
    )
    return {"conditions": (condition,)}


def told(*resources: ModelOptimization, limit: int = 10, now: datetime = NOW) -> CollectorRegistry:
    """A registry that tells of these resources."""
    registry = CollectorRegistry()
    registry.register(NamedResources(lambda: resources, limit=limit, clock=now.timestamp))
    return registry


def test_a_model_is_told_by_namespace_and_name() -> None:
    """Its stage, each of its conditions with the reason, and how and when its last run ended."""
    ended = LastRun(
        name="a-r1", outcome=Outcome.ROLLED_BACK, reason="R", message="m", spec_hash="ab", completion_time=NOW
    )
    drifted = saying(ConditionType.DRIFT_DETECTED, ConditionStatus.TRUE)
    registry = told(resource("a", stage=Stage.MONITORING, last_run=ended, **drifted))
    who = {"namespace": "ml", "name": "a"}

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"retune_resource_{name}", who | labels)

    assert value("stage", stage="Monitoring") == 1
    assert value("condition", type="DriftDetected", status="True", reason="Why") == 1
    assert value("last_run_timestamp_seconds", outcome="RolledBack") == NOW.timestamp()
    assert registry.get_sample_value("retune_unnamed_resources") == 0


def test_what_the_champion_is_worth_is_told_by_version() -> None:
    """Of the champion and the version before it; a version that waits, and a number that is none, tell nothing."""
    noted = NOTED | {"requestsBefore": "many"}
    champion = {"version": 2, "uri": "pvc://s/2", "digest": "sha256:2"}
    waiting = NOTED | {"version": 3, "comparedWith": 2}
    registry = told(
        resource("a", champion=champion, worth=[NOTED, waiting]), resource("b", champion=champion, worth=[noted])
    )

    def rate(name: str, version: str) -> float | None:
        labels = {"namespace": "ml", "name": name, "version": version}
        return registry.get_sample_value("retune_resource_requests_per_second", labels)

    assert [rate("a", "1"), rate("a", "2"), rate("a", "3")] == [120, 480, None]
    assert [rate("b", "1"), rate("b", "2")] == [None, 480]
    needed = registry.get_sample_value("retune_resource_replicas_needed", {"namespace": "ml", "name": "a"})
    assert needed == 2


def test_what_has_not_been_seen_yet_tells_nothing() -> None:
    """A new resource has no stage, no conditions, no run, and no window that could be late."""
    assert b'name="new"' not in generate_latest(told(resource("new")))


def test_the_lateness_of_a_check_is_that_of_its_model() -> None:
    """Only a model that is watched has one, also while it is zero."""
    late = datetime.fromtimestamp((FIRST + 40) * 3600, tz=UTC)
    for now, expected in ((NOW - timedelta(days=1), False), (late, True)):
        registry = told(watched(FIRST), resource("unwatched"), now=now)
        name = "retune_resource_check_lateness_seconds"
        seconds = registry.get_sample_value(name, {"namespace": "ml", "name": "digits"})
        assert seconds is not None
        assert (seconds > 0) is expected
        assert registry.get_sample_value(name, {"namespace": "ml", "name": "unwatched"}) is None


@pytest.mark.parametrize(
    "status",
    [
        saying(ConditionType.READY, ConditionStatus.FALSE),
        saying(ConditionType.STALLED, ConditionStatus.TRUE),
        saying(ConditionType.DRIFT_DETECTED, ConditionStatus.TRUE),
        saying(ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE),
        {"stage": Stage.ROLLING_BACK},
        {
            "stage": Stage.MONITORING,
            "last_run": {
                "name": "z-r1",
                "outcome": "Failed",
                "reason": "R",
                "message": "m",
                "specHash": "ab",
                "completionTime": NOW,
            },
        },
    ],
    ids=["not ready", "stalled", "drifted", "not watched", "rolling back", "failed run"],
)
def test_a_bound_never_hides_who_needs_a_look(status: dict[str, object]) -> None:
    """Healthy models are left out first, whatever their names, and how many are left out is told."""
    healthy = [
        resource(name, stage=Stage.MONITORING, **saying(ConditionType.READY, ConditionStatus.TRUE)) for name in "abc"
    ]
    registry = told(*healthy, resource("z", **status), limit=2)
    text = generate_latest(registry)
    assert [f'name="{name}"'.encode() in text for name in "abcz"] == [True, False, False, True]
    assert registry.get_sample_value("retune_unnamed_resources") == 2


def test_names_can_be_kept_out_altogether() -> None:
    """Where the bound is zero, no name is told and every model counts as left out."""
    registry = told(resource("a", stage=Stage.MONITORING), limit=0)
    assert b'name="a"' not in generate_latest(registry)
    assert registry.get_sample_value("retune_unnamed_resources") == 1
