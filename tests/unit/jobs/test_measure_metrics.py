"""Every metric: its value is scikit-learn's, and so is its value on every resample of the rows."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_predict

from optimizer_jobs.measure.answers import Answers, Predictions
from optimizer_jobs.measure.bootstrap import resampled, resampled_difference, standard_error
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.metrics.evaluation import Evaluation
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
    classified,
    of_sklearn,
    rows_of,
)

OF_LABELS = [
    Metric.BALANCED_ACCURACY,
    Metric.MATTHEWS,
    Metric.PRECISION,
    Metric.F1,
    Metric.PRECISION_MACRO,
    Metric.RECALL_MACRO,
    Metric.F1_MACRO,
    Metric.PRECISION_WEIGHTED,
    Metric.F1_WEIGHTED,
]
"""Metrics that labels alone decide and that are no share of rows."""


@pytest.mark.parametrize("metric", OF_MANY)
@settings(max_examples=12)
@given(case=classified(classes=4))
def test_metrics_of_many_classes_are_those_of_scikit_learn(
    metric: Metric, case: tuple[NDArray[np.int64], Floats, Floats]
) -> None:
    """On any rows, as they are and drawn any number of times."""
    true, probabilities, weights = case
    ours = evaluate(metric, answers_of(probabilities), rows_of(true))

    assert ours.value == pytest.approx(of_sklearn(metric, true, probabilities, np.ones(len(true))), abs=1e-9)
    if not metric.value.startswith("top_"):  # equal scores are no order
        assert ours.at(weights[np.newaxis])[0] == pytest.approx(of_sklearn(metric, true, probabilities, weights))


@pytest.mark.parametrize("metric", [*OF_TWO, *OF_MANY])
@settings(max_examples=12)
@given(case=classified(classes=2))
def test_metrics_of_two_classes_are_those_of_scikit_learn(
    metric: Metric, case: tuple[NDArray[np.int64], Floats, Floats]
) -> None:
    """Of two classes the last one is positive, as in scikit-learn."""
    true, probabilities, weights = case
    ours = evaluate(metric, answers_of(probabilities), rows_of(true))

    assert ours.value == pytest.approx(of_sklearn(metric, true, probabilities, np.ones(len(true))), abs=1e-9)
    if metric is not Metric.RECALL:  # it has weights for the positive rows alone
        assert ours.at(weights[np.newaxis])[0] == pytest.approx(of_sklearn(metric, true, probabilities, weights))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("metric", [m for m in quality_metrics(Task.REGRESSION) if m not in NOT_OF_ANSWERS])
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_metrics_of_numbers_are_those_of_scikit_learn(metric: Metric, outputs: int, seed: int) -> None:
    """Of one number a row or of several, whose metrics are averaged."""
    generator = np.random.default_rng(seed)
    drawn: Floats = generator.normal(1, 2, (2, 25, outputs))
    true, answered = drawn.squeeze()
    weights: Floats = 1.0 + generator.integers(0, 4, 25).astype(np.float64)
    ours = evaluate(metric, Answers(values=answered), rows_of(true))

    assert ours.value == pytest.approx(OF_NUMBERS[metric](true, answered))
    theirs = OF_NUMBERS[metric](true, answered, sample_weight=weights)
    assert ours.at(weights[np.newaxis])[0] == pytest.approx(theirs)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_gain_of_an_order_is_that_of_scikit_learn(seed: int) -> None:
    """The mean of scikit-learn's own ndcg over the groups, each asked alone."""
    generator = np.random.default_rng(seed)
    groups, scores = np.repeat(np.arange(6), 12), generator.normal(size=72)
    relevance = generator.integers(0, 4, 72).astype(np.float64)
    relevance[::12] = 1.0
    ours = evaluate(Metric.NDCG_10, Answers(values=scores), rows_of(relevance, groups)).value
    parts = [groups == group for group in range(6)]

    theirs = [sk.ndcg_score(relevance[part][np.newaxis], scores[part][np.newaxis], k=10) for part in parts]
    linear = np.mean(theirs)
    assert ours == pytest.approx(linear)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_gain_of_equal_scores_is_the_mean_over_their_orders_as_in_scikit_learn(seed: int) -> None:
    """Scores of three values, as coarse quantization makes them."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(4), 9)
    scores, relevance = (generator.integers(0, 3, 36).astype(np.float64) for _ in range(2))
    relevance[::9] = 1.0
    ours = evaluate(Metric.NDCG_5, Answers(values=scores), rows_of(relevance, groups)).value
    parts = [groups == group for group in range(4)]

    theirs = [sk.ndcg_score(relevance[part][np.newaxis], scores[part][np.newaxis], k=5) for part in parts]
    assert ours == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize("metric", RANKING)
def test_a_constant_gains_nothing_from_a_file_with_the_relevant_rows_first(metric: Metric) -> None:
    """All scores are equal, so the order of the file must not stand for that of the model."""
    groups, relevance = np.repeat(np.arange(20), 20), np.tile([1.0] * 2 + [0.0] * 18, 20)
    first, last = (
        evaluate(metric, Answers(values=np.ones(400)), rows_of(labels, groups)).value
        for labels in (relevance, relevance[::-1].copy())
    )
    assert first == pytest.approx(last)
    assert first <= 0.51


def test_places_of_the_first_relevant_row_are_counted_within_its_group() -> None:
    """Worked by hand: relevant at places 1 and 6 of two groups; a group without a relevant row does not count."""
    groups = np.asarray(["a"] * 3 + ["b"] * 7 + ["c"] * 2)
    scores = -np.arange(12.0)
    relevance = np.zeros(12)
    relevance[[0, 8]] = 1
    ranked = {
        metric: evaluate(metric, Answers(values=scores), rows_of(relevance, groups)).value
        for metric in (Metric.MRR, Metric.HIT_RATE_5, Metric.HIT_RATE_10, Metric.RECALL_5)
    }

    assert ranked == {
        Metric.MRR: pytest.approx((1 + 1 / 6) / 2),
        Metric.HIT_RATE_5: 0.5,
        Metric.HIT_RATE_10: 1.0,
        Metric.RECALL_5: 0.5,
    }


def test_an_order_without_groups_is_refused_with_the_field_to_set() -> None:
    """Rows are ordered within something."""
    with pytest.raises(UnfitAnswersError, match="groupColumn"):
        evaluate(Metric.MRR, Answers(values=np.arange(3.0)), rows_of(np.ones(3)))


def test_the_named_class_is_the_positive_one() -> None:
    """Precision of class 0 and of class 1 are different numbers."""
    true, table = np.asarray([0, 0, 0, 1]), np.asarray([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    values = {
        name: evaluate(Metric.PRECISION, answers_of(table, positive=name), rows_of(true)).value for name in (None, 0, 1)
    }

    assert values == {None: 0.5, 1: 0.5, 0: 1.0}


def test_metrics_of_two_classes_are_refused_for_three_with_what_fits() -> None:
    """Precision of what? The sentence names the averages and the field."""
    table: Floats = np.eye(3)
    with pytest.raises(UnfitAnswersError, match=r"precision_macro, or set model.positiveLabel"):
        evaluate(Metric.PRECISION, answers_of(table), rows_of(np.arange(3)))


def test_labels_alone_have_no_log_loss() -> None:
    """The sentence says what to name."""
    labels = np.asarray([0, 1, 1])
    with pytest.raises(UnfitAnswersError, match=r"probabilities.*model.outputs.scores"):
        evaluate(Metric.LOG_LOSS, Answers(Predictions(labels)), rows_of(labels))


@cache
def numbers() -> tuple[Floats, Floats, Floats]:
    """Return real values, and the answers of two regressions that have not learned from these rows."""
    X, y = load_diabetes(return_X_y=True)
    strong, weak = (cross_val_predict(LinearRegression(), X[:, :count], y) for count in (10, 3))
    return y, strong, weak


@cache
def classes(name: str) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return real labels, and the probabilities of two classifiers that have not learned from these rows."""
    X, y = {"two": load_breast_cancer, "many": load_wine}[name](return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    strong, weak = (cross_val_predict(LogisticRegression(), X[:, :n], y, method="predict_proba") for n in (8, 2))
    return y, strong, weak


def real(metric: Metric) -> tuple[Evaluation, Evaluation]:
    """Return a metric of two models on real rows that neither has learned from, the better one first."""
    if metric in OF_NUMBERS:
        true, *answered = numbers()
        strong, weak = (evaluate(metric, Answers(values=values), rows_of(true)) for values in answered)
        return strong, weak
    labels, *tables = classes("two" if metric in OF_TWO else "many")
    strong, weak = (evaluate(metric, answers_of(table), rows_of(labels)) for table in tables)
    return strong, weak


@pytest.mark.slow
@pytest.mark.parametrize("metric", [*OF_MANY, *OF_TWO, *OF_NUMBERS])
def test_the_better_model_is_better_by_every_metric_and_its_interval(metric: Metric) -> None:
    """A model with more columns beats one with few on real rows; the interval holds the difference and excludes 0."""
    strong, weak = real(metric)
    gain = resampled_difference(weak, strong)
    ends = gain.interval(0.95)
    low, high = (ends.low, ends.high) if metric.higher_is_better else (-ends.high, -ends.low)

    assert low <= abs(gain.value) <= high
    assert low > 0 or metric in {Metric.TOP_3_ACCURACY, Metric.TOP_5_ACCURACY}
    if low > 0:
        assert standard_error(strong, weak) == pytest.approx(gain.draws.std(), rel=0.25)


def test_positive_rows_of_a_group_are_no_independent_evidence() -> None:
    """Recall on rows that come ten times over is as uncertain as on the rows once."""
    labels, *tables = classes("two")
    ten = np.repeat(np.arange(len(labels)), 10)
    once = own_interval(evaluate(Metric.RECALL, answers_of(tables[1]), rows_of(labels)))(0.95)
    grouped = evaluate(Metric.RECALL, answers_of(tables[1][ten]), rows_of(labels[ten], ten))
    ends = own_interval(grouped)(0.95)

    assert not grouped.is_share
    assert grouped.value == once.value
    assert ends.high - ends.low == pytest.approx(once.high - once.low, rel=0.25)


def test_rows_of_a_group_count_as_one_piece_of_evidence() -> None:
    """Each row ten times over, as ten rows of one group, is as uncertain as the rows once."""
    X, y = load_diabetes(return_X_y=True)
    answered = cross_val_predict(LinearRegression(), X, y)
    once = resampled(evaluate(Metric.R2, Answers(values=answered), rows_of(y))).interval(0.95)
    ten = np.repeat(np.arange(len(y)), 10)
    grouped = evaluate(Metric.R2, Answers(values=answered[ten]), rows_of(y[ten], ten))
    apart = evaluate(Metric.R2, Answers(values=answered[ten]), rows_of(y[ten]))

    widths = [ends.high - ends.low for ends in (resampled(grouped).interval(0.95), resampled(apart).interval(0.95))]
    assert widths[0] == pytest.approx(once.high - once.low, rel=0.1)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize("metric", OF_LABELS)
@settings(max_examples=12)
@given(case=classified(classes=2))
def test_one_more_mistake_costs_what_scikit_learn_says(
    metric: Metric, case: tuple[NDArray[np.int64], Floats, Floats]
) -> None:
    """The dearest of all right rows that could become wrong, each tried in turn."""
    true, table, _ = case
    evaluation, once = evaluate(metric, answers_of(table), rows_of(true)), np.ones(len(true))
    answered, rows = table.argmax(axis=1), np.arange(len(true))
    wrong = [np.eye(2)[np.where(rows == row, 1 - answered, answered)] for row in rows[answered == true]]
    dearest = max((evaluation.value - of_sklearn(metric, true, answers, once) for answers in wrong), default=0.0)
    assert evaluation.mistake == pytest.approx(max(0.0, dearest), abs=1e-9)


@pytest.mark.parametrize("metric", OF_LABELS)
def test_agreeing_on_few_rows_is_no_proof_of_agreeing_on_all(metric: Metric) -> None:
    """Two models with the same labels may still differ on rows to come; with ten times the rows it is known better."""
    labels, _, table = classes("two" if metric in OF_TWO else "many")
    widths = []
    for times in (1, 10):
        evaluation = evaluate(metric, answers_of(np.tile(table, (times, 1))), rows_of(np.tile(labels, times)))
        ends = resampled_difference(evaluation, evaluation).interval(0.95)
        assert ends.low < 0 < ends.high
        widths.append(ends.high - ends.low)
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.2)
