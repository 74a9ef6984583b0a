"""Weights of rows: every metric is scikit-learn's with sample_weight, and evidence is counted by effective rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import joined
from optimizer_jobs.data.weights import effective_rows
from optimizer_jobs.measure.answers import Answers
from optimizer_jobs.measure.bootstrap import resampled, resampled_difference
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.unfit import UnfitAnswersError
from retune.api.metrics import RANKING, Metric, quality_metrics
from retune.api.model import Task
from tests.unit.jobs.metrics_for_tests import (
    NOT_OF_ANSWERS,
    OF_MANY,
    OF_NUMBERS,
    OF_TWO,
    Floats,
    answers_of,
    of_sklearn,
    rows_of,
)

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, classes: int, rows: int = 25) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return labels of every class, probabilities without ties, and weights of which about a tenth are 0."""
    generator = np.random.default_rng(seed)
    true = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    table = generator.uniform(0.1, 1.0, (rows, classes))
    weights = generator.exponential(size=rows) * (generator.uniform(size=rows) > 0.1)
    weights[:classes] += 0.5
    return true, table / table.sum(axis=1, keepdims=True), weights


@pytest.mark.parametrize("metric", OF_MANY)
@settings(max_examples=8)
@given(seed=SEEDS)
def test_weights_of_many_classes_are_those_of_scikit_learn(metric: Metric, seed: int) -> None:
    """A row of weight 0 is as if it were not there."""
    true, table, weights = drawn(seed, 7 if metric is Metric.TOP_5_ACCURACY else 4)
    counting = weights > 0
    ours = evaluate(metric, answers_of(table), rows_of(true, weights=weights)).value

    assert ours == pytest.approx(of_sklearn(metric, true[counting], table[counting], weights[counting]), abs=1e-9)


@pytest.mark.parametrize("metric", [*OF_TWO, *OF_MANY])
@settings(max_examples=8)
@given(seed=SEEDS)
def test_weights_of_two_classes_are_those_of_scikit_learn(metric: Metric, seed: int) -> None:
    """The positive class's rows count by their weights, too."""
    true, table, weights = drawn(seed, 2)
    counting = weights > 0
    ours = evaluate(metric, answers_of(table), rows_of(true, weights=weights)).value

    assert ours == pytest.approx(of_sklearn(metric, true[counting], table[counting], weights[counting]), abs=1e-9)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("metric", [m for m in quality_metrics(Task.REGRESSION) if m not in NOT_OF_ANSWERS])
@settings(max_examples=8)
@given(seed=SEEDS)
def test_weights_of_numbers_are_those_of_scikit_learn(metric: Metric, outputs: int, seed: int) -> None:
    """Of one number a row or of several."""
    generator = np.random.default_rng(seed)
    drawn_: Floats = generator.normal(1, 2, (2, 25, outputs))
    true, answered = drawn_.squeeze()
    weights = generator.exponential(size=25)
    ours = evaluate(metric, Answers(values=answered), rows_of(true, weights=weights)).value

    assert ours == pytest.approx(OF_NUMBERS[metric](true, answered, sample_weight=weights))


@pytest.mark.parametrize("metric", RANKING)
def test_a_group_counts_by_the_mean_weight_of_its_rows(metric: Metric) -> None:
    """One group of weight 3 and one of weight 1 are worth 3 and 1 parts of the mean."""
    scores, relevance = np.tile(-np.arange(12.0), 2), np.zeros(24)
    relevance[[0, 23]] = 1.0
    groups, weights = np.repeat(np.arange(2), 12), np.repeat([3.0, 1.0], 12)
    alone = [
        evaluate(metric, Answers(values=scores[part]), rows_of(relevance[part], groups[part])).value
        for part in (slice(0, 12), slice(12, 24))
    ]
    together = evaluate(metric, Answers(values=scores), rows_of(relevance, groups, weights)).value

    assert together == pytest.approx((3 * alone[0] + alone[1]) / 4)


def test_whole_weights_are_repeated_rows_and_equal_ones_change_nothing() -> None:
    """Weight 3 is the row three times; and what is a share of equal rows keeps its value with weights of 2."""
    true, table, _ = drawn(5, 2)
    times = 1 + np.arange(len(true)) % 3
    weighed = evaluate(Metric.F1, answers_of(table), rows_of(true, weights=times.astype(float)))
    repeated = evaluate(Metric.F1, answers_of(np.repeat(table, times, axis=0)), rows_of(np.repeat(true, times)))
    twice = evaluate(Metric.ACCURACY, answers_of(table), rows_of(true, weights=np.full(len(true), 2.0)))

    assert weighed.value == pytest.approx(repeated.value)
    assert twice.value == pytest.approx(evaluate(Metric.ACCURACY, answers_of(table), rows_of(true)).value)
    assert twice.effective == len(true)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_effective_rows_lie_between_one_and_all(seed: int) -> None:
    """Kish's number is at most that of the rows with a weight, and does not depend on the unit of the weights."""
    weights = drawn(seed, 2)[2]
    assert 1 <= effective_rows(weights) <= int((weights > 0).sum())
    assert effective_rows(weights * 1e-200) == effective_rows(weights)


def test_few_heavy_rows_are_little_evidence() -> None:
    """Ten rows that carry nearly all weight among a thousand give the interval of about ten rows."""
    generator = np.random.default_rng(0)
    errors, weights = generator.normal(size=1000), np.ones(1000)
    weights[:10] = 1e5
    heavy = evaluate(Metric.MAE, Answers(values=errors), rows_of(np.zeros(1000), weights=weights))
    ten = own_interval(evaluate(Metric.MAE, Answers(values=errors[:10]), rows_of(np.zeros(10))))(0.95)
    ends = own_interval(heavy)(0.95)

    assert ends.samples == 10
    assert ends.high - ends.low == pytest.approx(ten.high - ten.low, rel=0.3)


def test_weights_decide_which_of_two_models_is_better_and_groups_stay_whole() -> None:
    """Where the rows count that only the candidate answers right, it is better, though it is right less often."""
    true = np.tile([0, 1], 50)
    right = np.arange(100) < 30
    table = np.eye(2)[true]
    champion, candidate = (
        answers_of(np.where(right[:, None], table[:, ::-1], table)),
        answers_of(np.where(right[:, None], table, table[:, ::-1])),
    )
    rows = rows_of(true, groups=np.arange(100) // 2, weights=np.where(right, 10.0, 0.1))
    before, after = (evaluate(Metric.ACCURACY, answers, rows) for answers in (champion, candidate))
    unweighed = replace(rows, weights=None)

    assert resampled_difference(before, after).interval(0.95).low > 0
    assert evaluate(Metric.ACCURACY, candidate, unweighed).value < evaluate(Metric.ACCURACY, champion, unweighed).value
    assert resampled(after).rows == rows.effective == 31


@pytest.mark.parametrize("kind", ["weights", "groups"])
def test_models_that_never_differ_are_not_proven_equal_by_few_rows(kind: str) -> None:
    """Without a changed row, the interval is Tango's: z squared over n plus z squared, and Wilson's of each alone."""
    true = np.tile([0, 1], 20)
    rows = rows_of(true, weights=np.ones(40)) if kind == "weights" else rows_of(true, groups=np.arange(40))
    same = evaluate(Metric.ACCURACY, answers_of(np.eye(2)[true]), rows)
    unseen = 1.96**2 / (40 + 1.96**2)
    ends, alone = resampled_difference(same, same).interval(0.95), own_interval(same)(0.95)

    assert -ends.low == ends.high == pytest.approx(unseen, rel=1e-3)
    assert alone.low == pytest.approx(1 - unseen, rel=1e-3)
    assert alone.high == 1.0


def test_a_metric_of_rows_without_weight_is_refused_not_guessed() -> None:
    """All positive rows have weight 0: recall is a number of nothing."""
    true = np.asarray([0, 0, 1, 1])
    with pytest.raises(UnfitAnswersError, match="no row with the positive label 1 has a weight above 0"):
        evaluate(Metric.RECALL, answers_of(np.eye(2)[true]), rows_of(true, weights=np.asarray([1.0, 1.0, 0.0, 0.0])))


def test_joined_rows_keep_weights_where_all_parts_have_them() -> None:
    """A part without weights makes the whole one without: their units would differ."""
    some, other = rows_of(np.zeros(2), weights=np.ones(2)), rows_of(np.zeros(3))
    both = joined([some, some]).weights
    assert both is not None
    assert both.tolist() == [1.0] * 4
    assert joined([some, other]).weights is None
