"""Goals become limits kept or missed, and costs to minimize, the same way for every metric."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.study.objectives import cost, limits, ranked, shortfall
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Goal, GoalType, Objective, Role, default_objectives

OBJECTIVES = default_objectives(Task.CLASSIFICATION)


def objective(metric: Metric, kind: GoalType, value: str) -> Objective:
    """Return a constraint."""
    return Objective(metric=metric, role=Role.CONSTRAIN, goal=Goal(type=kind, value=value))


@pytest.mark.parametrize(
    ("metric", "kind", "value", "candidate", "champion", "missed"),
    [
        (Metric.ACCURACY, GoalType.THRESHOLD, "0.9", 0.88, 0.95, 0.02),
        (Metric.ACCURACY, GoalType.MAX_DEGRADATION, "0.01", 0.93, 0.95, 0.01),
        (Metric.ACCURACY, GoalType.MIN_IMPROVEMENT, "0.01", 0.95, 0.95, 0.01),
        (Metric.ACCURACY, GoalType.PERCENT_MAX_DEGRADATION, "10", 0.7, 0.8, 0.02),
        (Metric.LATENCY_P95_MS, GoalType.THRESHOLD, "5", 6.0, 4.0, 1.0),
        (Metric.LATENCY_P95_MS, GoalType.PERCENT_MIN_IMPROVEMENT, "50", 3.0, 4.0, 1.0),
        (Metric.SIZE_BYTES, GoalType.MAX_DEGRADATION, "100", 1050.0, 1000.0, -50.0),
        (Metric.SIZE_BYTES, GoalType.PERCENT_MIN_IMPROVEMENT, "20", 700.0, 1000.0, -100.0),
    ],
)
def test_shortfall_is_in_the_metrics_unit(
    metric: Metric, kind: GoalType, value: str, candidate: float, champion: float, missed: float
) -> None:
    """Above 0 by what is missing, below 0 by what is to spare."""
    assert shortfall(objective(metric, kind, value), candidate, champion) == pytest.approx(missed)


def test_a_limit_met_exactly_is_kept() -> None:
    """Rounding in binary does not refuse a candidate that loses exactly what it may."""
    assert shortfall(objective(Metric.ACCURACY, GoalType.MAX_DEGRADATION, "0.01"), 0.97, 0.98) == 0


@given(st.sampled_from(GoalType), st.sampled_from(Metric), st.floats(0.1, 1), st.floats(0, 0.05), st.floats(0.5, 1))
def test_a_better_candidate_is_never_further_from_its_limit(
    kind: GoalType, metric: Metric, candidate: float, better_by: float, champion: float
) -> None:
    """Whatever the goal, improving the metric cannot miss it by more."""
    goal = objective(metric, kind, "0.1")
    better = candidate + (better_by if metric.higher_is_better else -better_by)
    assert shortfall(goal, better, champion) <= shortfall(goal, candidate, champion) + 1e-9


def test_costs_compare_with_the_champion() -> None:
    """A ratio for what should be small, a loss for accuracy; both smaller is better."""
    assert cost(Metric.SIZE_BYTES, 25.0, 100.0) == 0.25
    assert cost(Metric.ACCURACY, 0.9, 0.95) == pytest.approx(0.05)
    assert cost(Metric.RMSE, 54.0, 60.0) == pytest.approx(0.9)
    assert cost(Metric.THROUGHPUT_RPS, 500.0, 250.0) == 0.5


@given(st.sampled_from(Metric), st.floats(0.1, 1), st.floats(0, 0.05), st.floats(0.1, 1))
def test_a_better_candidate_never_costs_more(metric: Metric, value: float, better_by: float, champion: float) -> None:
    """For every metric the study minimizes what the user wants less of."""
    better = value + (better_by if metric.higher_is_better else -better_by)
    assert cost(metric, better, champion) <= cost(metric, value, champion) + 1e-9


def test_limits_hold_for_every_role() -> None:
    """A goal on an optimized objective is a limit too; ranking is by role."""
    optimized = Objective(metric=Metric.SIZE_BYTES, goal=Goal(type=GoalType.THRESHOLD, value="1000"))
    objectives = (*OBJECTIVES[:3], optimized)
    limited = [Metric.ACCURACY, Metric.D2_BRIER, Metric.SIZE_BYTES]
    assert [item.metric for item in limits(objectives)] == limited
    assert [item.metric for item in ranked(objectives)] == [Metric.LATENCY_P95_MS, Metric.SIZE_BYTES]


def test_shortfall_needs_a_goal() -> None:
    """An objective without a goal has no limit to miss."""
    with pytest.raises(ValueError, match="no goal"):
        shortfall(Objective(metric=Metric.SIZE_BYTES), 1.0, 1.0)
