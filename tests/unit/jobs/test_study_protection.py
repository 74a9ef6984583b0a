"""What holds a classifier whose spec names nothing: its accuracy, its probabilities, its rare class."""

import pytest

from optimizer_jobs.signature import Reading, Scale
from optimizer_jobs.study.protection import fitted_objectives, limits_in_words
from retune.api.metrics import Metric, MetricKind
from retune.api.model import Task
from retune.api.objectives import Goal, GoalType, Objective, Role, default_objectives
from retune.plan.run.restoring import restoring

USUAL = default_objectives(Task.CLASSIFICATION)


def held(reading: Reading, objectives: tuple[Objective, ...] = USUAL) -> list[Metric]:
    """Return the metrics of quality that a classifier is held by."""
    chosen = fitted_objectives(objectives, Task.CLASSIFICATION, reading)
    return [objective.metric for objective in chosen if objective.metric.kind is MetricKind.QUALITY]


@pytest.mark.parametrize(
    ("reading", "metrics"),
    [
        (Reading(scores="p", scale=Scale.PROBABILITIES, rarest=0.4, positive=1), [Metric.ACCURACY, Metric.D2_BRIER]),
        (Reading(label="l", rarest=0.4, positive=1), [Metric.ACCURACY]),
        (Reading(), [Metric.ACCURACY]),
        (
            Reading(scores="p", scale=Scale.LOGITS, rarest=0.02, positive=1),
            [Metric.AVERAGE_PRECISION, Metric.D2_BRIER, Metric.RECALL],
        ),
        (Reading(label="l", rarest=0.02, positive=1), [Metric.ACCURACY]),
        (
            Reading(scores="p", scale=Scale.PROBABILITIES, rarest=0.01),
            [Metric.ACCURACY, Metric.D2_BRIER, Metric.BALANCED_ACCURACY],
        ),
        (Reading(scores="p", scale=Scale.PROBABILITIES, rarest=0.05), [Metric.ACCURACY, Metric.D2_BRIER]),
    ],
)
def test_limits_follow_from_what_the_model_answers(reading: Reading, metrics: list[Metric]) -> None:
    """Probabilities are held where there are any, and a rare class by what notices it."""
    assert held(reading) == metrics


def test_other_objectives_stay() -> None:
    """Latency and size rank candidates as before, in their order."""
    chosen = fitted_objectives(USUAL, Task.CLASSIFICATION, Reading(scores="p", rarest=0.01, positive=1))
    assert [each.metric for each in chosen if each.role is Role.OPTIMIZE] == [Metric.LATENCY_P95_MS, Metric.SIZE_BYTES]


def test_quality_that_is_to_come_back_is_that_of_the_rare_class() -> None:
    """A run on fresh data optimizes average precision where it would have optimized accuracy."""
    reading = Reading(scores="p", scale=Scale.PROBABILITIES, rarest=0.02, positive=1)
    first = fitted_objectives(restoring(USUAL, Task.CLASSIFICATION), Task.CLASSIFICATION, reading)[0]

    assert (first.metric, first.role) == (Metric.AVERAGE_PRECISION, Role.OPTIMIZE)
    assert first.goal == Goal(type=GoalType.PERCENT_MAX_DEGRADATION, value="5")


def test_tasks_without_classes_stay_as_they_are() -> None:
    """A regression has no rare class."""
    usual = default_objectives(Task.REGRESSION)
    assert fitted_objectives(usual, Task.REGRESSION, Reading()) == usual


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (
            Reading(scores="p", scale=Scale.LOGITS, rarest=0.5, positive=1),
            "accuracy may fall by at most 0.01 and d2_brier_score may fall by at most 5 %",
        ),
        (
            Reading(scores="p", scale=Scale.LOGITS, rarest=0.015, positive=1),
            (
                "average_precision may fall by at most 5 %, d2_brier_score may fall by at most 5 % and recall may fall "
                "by at most 0.05, because the rarest class has 1.5% of the rows"
            ),
        ),
        (None, "accuracy may fall by at most 0.01"),
    ],
)
def test_limits_are_told_with_their_reason(reading: Reading | None, words: str) -> None:
    """What a person reads in the file that `retune init` writes is what a run holds the model by."""
    assert limits_in_words(Task.CLASSIFICATION, reading) == words


def test_limits_of_other_tasks_are_told_too() -> None:
    """An error rises, and a share stays."""
    assert limits_in_words(Task.REGRESSION, None) == "rmse may rise by at most 1 %"
    assert limits_in_words(Task.EMBEDDING, None) == "neighbor_agreement stays at least 0.95"
