"""A run on fresh data looks for quality first, within the user's limits and before the user's ranking."""

import pytest

from retune.api.metrics import Metric, MetricKind
from retune.api.model import Task
from retune.api.objectives import Goal, GoalType, Objective, Role, default_objectives
from retune.plan.run.restoring import LEAST_GAIN, TOLERANCE, restoring


@pytest.mark.parametrize("task", list(Task))
def test_quality_comes_first_and_keeps_its_limit(task: Task) -> None:
    """The default objectives keep every limit and every rank behind quality."""
    usual = default_objectives(task)
    first, *rest = restoring(usual, task)
    assert (first.metric.kind, first.role) == (MetricKind.QUALITY, Role.OPTIMIZE)
    assert (first.tolerance, first.min_gain, first.goal) == (TOLERANCE, LEAST_GAIN, usual[0].goal)
    assert [(each.metric, each.goal) for each in rest] == [(each.metric, each.goal) for each in usual[1:]]


def test_better_probabilities_are_a_gain_as_worse_ones_are_a_loss() -> None:
    """What probabilities explain may fall by 5 %, so a rise by 5 % is worth a change; accuracy goes first."""
    _, explained, *rest = restoring(default_objectives(Task.CLASSIFICATION), Task.CLASSIFICATION)
    assert (explained.metric, explained.role, explained.min_gain) == (Metric.D2_BRIER, Role.OPTIMIZE, "0.05")
    assert explained.goal == Goal(type=GoalType.PERCENT_MAX_DEGRADATION, value="5")
    assert tuple(rest) == default_objectives(Task.CLASSIFICATION)[2:]


def test_a_limit_in_the_metric_s_own_unit_stays_a_limit() -> None:
    """Nobody has said which share of it matters."""
    recall = Objective(metric=Metric.RECALL, role=Role.CONSTRAIN, goal=Goal(type=GoalType.THRESHOLD, value="0.9"))
    usual = default_objectives(Task.CLASSIFICATION)
    assert restoring((*usual, recall), Task.CLASSIFICATION)[-1] == recall


def test_quality_is_added_where_nobody_asked_for_it() -> None:
    """Objectives that speak of size alone still want the lost quality back."""
    found = restoring((Objective(metric=Metric.SIZE_BYTES),), Task.REGRESSION)
    assert [each.metric for each in found] == [Metric.RMSE, Metric.SIZE_BYTES]


def test_a_users_own_order_is_kept() -> None:
    """Who optimizes quality already has said how much it matters."""
    mine = (
        Objective(metric=Metric.SIZE_BYTES),
        Objective(metric=Metric.ACCURACY, goal=Goal(type=GoalType.MAX_DEGRADATION, value="0.02")),
    )
    assert restoring(mine, Task.CLASSIFICATION) == mine
