"""The cost of answers: mistakes that accuracy counts alike are told apart by what the owner says of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from optimizer_jobs.measure.answers import Answers, Predictions
from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.metrics.costs import unknown_labels
from optimizer_jobs.measure.quality import evaluate, measured_metrics
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import Yardstick
from retune.api.metrics import Metric
from retune.api.model import Cost, Task
from tests.unit.jobs.metrics_for_tests import rows_of

MISSED = Cost(actual="fraud", predicted="fine", cost="20")
ALARM = Cost(actual="fine", predicted="fraud", cost="0.5")
FRAUD = Yardstick(costs=(MISSED, ALARM))


def answers(labels: NDArray[np.generic]) -> Answers:
    """Return the answers of a classifier that answers labels alone."""
    return Answers(Predictions(labels))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_cost_is_that_of_scikit_learns_confusion_matrix(seed: int) -> None:
    """The weighted matrix of counts, multiplied by the costs, for each row; what is not listed costs 0 or 1."""
    generator = np.random.default_rng(seed)
    true, answered = generator.integers(0, 3, (2, 40))
    weights = generator.exponential(size=40)
    costs = (Cost(actual="0", predicted="2", cost="7"), Cost(actual="1", predicted="1", cost="0.25"))
    matrix = np.asarray([[0, 1, 7], [1, 0.25, 1], [1, 1, 0]])
    counts = confusion_matrix(true, answered, labels=[0, 1, 2], sample_weight=weights)
    yardstick = Yardstick(costs=costs)
    ours = evaluate(Metric.EXPECTED_COST, answers(answered), rows_of(true, weights=weights), yardstick=yardstick)

    assert ours.value == pytest.approx((counts * matrix).sum() / weights.sum())


def test_mistakes_of_equal_number_and_unequal_cost_are_told_apart() -> None:
    """Twenty false alarms against twenty missed frauds: accuracy sees no difference, and the cost proves a loss."""
    true = np.asarray(["fraud"] * 100 + ["fine"] * 500)
    alarms, missed = true.copy(), true.copy()
    alarms[100:120], missed[:20] = "fraud", "fine"
    rows = rows_of(true)
    by = {
        metric: difference(
            metric, *(evaluate(metric, answers(labels), rows, yardstick=FRAUD) for labels in (alarms, missed))
        )(0.95)
        for metric in (Metric.ACCURACY, Metric.EXPECTED_COST)
    }

    assert by[Metric.ACCURACY].value == 0
    assert by[Metric.EXPECTED_COST].value == pytest.approx(20 / 600 * (20 - 0.5))
    assert by[Metric.EXPECTED_COST].low > 0
    assert (by[Metric.EXPECTED_COST].gained, by[Metric.EXPECTED_COST].lost) == (20, 20)


def test_a_dear_mistake_that_no_row_shows_is_not_proven_absent() -> None:
    """Without a mistake in 100 rows, one that costs 20 may still come in nearly four of a hundred."""
    true = np.asarray(["fraud", "fine"] * 50)
    right = evaluate(Metric.EXPECTED_COST, answers(true), rows_of(true), yardstick=FRAUD)
    ends = own_interval(right)(0.95)

    assert (ends.value, ends.low) == (0.0, 0.0)
    assert ends.high == pytest.approx(20 * 1.96**2 / (100 + 1.96**2), rel=1e-3)


def test_without_costs_it_is_the_share_of_wrong_rows() -> None:
    """And it is measured beside the objectives where there are costs."""
    true, answered = np.asarray([0, 1, 2, 3]), np.asarray([0, 1, 2, 0])

    assert evaluate(Metric.EXPECTED_COST, answers(answered), rows_of(true)).value == 0.25
    assert measured_metrics(Task.CLASSIFICATION, (), FRAUD) == (Metric.ACCURACY, Metric.EXPECTED_COST)
    assert measured_metrics(Task.CLASSIFICATION, ()) == (Metric.ACCURACY,)


def test_a_regression_has_no_costs_of_answers() -> None:
    """It is said, not guessed."""
    with pytest.raises(UnfitAnswersError, match="classifier"):
        evaluate(Metric.EXPECTED_COST, Answers(values=np.zeros(3)), rows_of(np.zeros(3)), yardstick=FRAUD)


def test_labels_that_nobody_knows_are_found() -> None:
    """A misspelt label would otherwise cost as if it were not listed."""
    assert unknown_labels((MISSED, ALARM), ("fine", "fraud")) == ()
    assert unknown_labels((MISSED, ALARM), ("fine", "Fraud")) == ("fraud",)
