"""What labels prove of a window's quality, on real answers of real models, without the rest of the check."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from optimizer_jobs.commands.check.labelled_quality import coverage, judge, judge_labels, lost, metric_of, scores
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.monitoring import Quality
from retune.api.objectives import Objective
from retune.api.watched import Verdict

Floats = NDArray[np.float64]


@pytest.fixture(scope="module", name="right")
def _right() -> Floats:
    """Whether a classifier of digits is right, of 1298 rows that it has not learnt from."""
    data = load_digits()
    model = LogisticRegression(max_iter=2000).fit(data.data[:499], data.target[:499])
    return scores(Metric.ACCURACY, model.predict(data.data[499:]), data.target[499:])


@pytest.fixture(scope="module", name="missed")
def _missed() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a regression of diabetes answers to 221 rows that it has not learnt from, and what came true."""
    data = load_diabetes()
    model = Ridge(alpha=0.1).fit(data.data[::2], data.target[::2])
    return model.predict(data.data[1::2]), data.target[1::2]


def drawn(values: Floats, rows: int, seed: int) -> Floats:
    """Draw rows as windows are drawn."""
    return values[np.random.default_rng(seed).integers(0, len(values), rows)]


@pytest.mark.slow
@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.RMSE, Metric.MAE])
def test_windows_without_a_loss_prove_none(right: Floats, missed: tuple[Floats, Floats], metric: Metric) -> None:
    """200 windows of 300 rows each: the interval of the loss always holds what is true, which is none."""
    reference = right if metric is Metric.ACCURACY else scores(metric, *missed)
    losses = [lost(metric, reference, drawn(reference, 300, seed)) for seed in range(200 if right is reference else 40)]
    assert all(each.low <= 0 <= each.high for each in losses)
    assert not any(judge(each, metric, Quality()).verdict is Verdict.BREACH for each in losses)
    assert len({each.loss for each in losses}) > 10


def test_points_of_accuracy_clear_keep_or_breach(right: Floats) -> None:
    """One point clears, ten are proven; between the limits a signal keeps its state."""
    told = {}
    for points in (0, 1, 3, 10):
        worse, hit = right.copy(), np.flatnonzero(right)
        worse[hit[np.linspace(0, len(hit) - 1, points * len(right) // 100, dtype=int)]] = 0.0
        told[points] = judge(lost(Metric.ACCURACY, right, worse), Metric.ACCURACY, Quality())
    assert {points: each.verdict for points, each in told.items()} == {
        0: Verdict.CLEAR,
        1: Verdict.CLEAR,
        3: Verdict.BETWEEN,
        10: Verdict.BREACH,
    }
    assert told[10].reason == "LossProven"


def test_a_loss_in_few_rows_is_seen_and_not_proven(right: Floats) -> None:
    """20 labelled rows with three errors more are no proof."""
    window = np.ones(20)
    window[::4] = 0.0
    verdict = judge(lost(Metric.ACCURACY, right, window), Metric.ACCURACY, Quality())
    assert (verdict.verdict, verdict.reason) == (Verdict.BETWEEN, "LossNotProven"), verdict.message


def test_an_error_s_loss_is_a_share_of_the_reference_s(missed: tuple[Floats, Floats]) -> None:
    """Answers that miss by half as much again lose 50 %, in either error, and proven."""
    predicted, truth = missed
    for metric in (Metric.RMSE, Metric.MAE):
        before, now = (scores(metric, truth + (predicted - truth) * times, truth) for times in (1.0, 1.5))
        loss = lost(metric, before, now)
        assert loss.loss == pytest.approx(0.5)
        assert 0 < loss.low < 0.5 < loss.high
        assert judge(loss, metric, Quality()).verdict is Verdict.BREACH


def test_rows_that_repeat_each_other_prove_less(right: Floats) -> None:
    """Each error ten times in a row: a tenth of the rows count."""
    once = drawn(right, 400, 1)
    single, repeated = (lost(Metric.ACCURACY, right, each) for each in (once, np.repeat(once, 10)))
    assert repeated.value.samples < 800
    assert repeated.loss == pytest.approx(single.loss)
    assert repeated.high - repeated.low > 0.7 * (single.high - single.low)


def test_a_perfect_reference_has_no_infinite_loss() -> None:
    """An error of zero before: any error now is a loss, as a number."""
    loss = lost(Metric.RMSE, np.zeros(100), np.ones(100))
    assert np.isfinite([loss.loss, loss.low, loss.high]).all()
    assert judge(loss, Metric.RMSE, Quality()).verdict is Verdict.BREACH


def test_too_few_on_either_side_is_unknown(right: Floats) -> None:
    """Labels of the window, or rows of the reference."""
    quality = Quality(min_labels=100)
    few = judge_labels(quality, Metric.ACCURACY, reference=right, current=right[:99])
    enough = judge_labels(quality, Metric.ACCURACY, reference=right, current=right[:100])
    small = judge_labels(quality, Metric.ACCURACY, reference=right[:49], current=right)
    absent = judge_labels(quality, Metric.ACCURACY, reference=None, current=right)
    assert [(each.verdict, each.reason) for each in (few, small, absent)] == [
        (Verdict.UNKNOWN, "TooFewLabels"),
        (Verdict.UNKNOWN, "ReferenceMissing"),
        (Verdict.UNKNOWN, "ReferenceMissing"),
    ]
    assert enough.verdict is not Verdict.UNKNOWN


def test_a_metric_is_watched_only_of_its_own_task() -> None:
    """Left out, it is the objectives' first, else the task's; that of another task, or of an embedding, is none."""
    asked = [Objective(metric=name) for name in (Metric.SIZE_BYTES, Metric.ROBUST_ACCURACY, Metric.F1)]
    assert metric_of(Task.CLASSIFICATION, Quality(), asked) is Metric.F1
    assert metric_of(Task.CLASSIFICATION, Quality(metric=Metric.LOG_LOSS), asked) is Metric.LOG_LOSS
    assert metric_of(Task.CLASSIFICATION, Quality(), asked[:2]) is Metric.ACCURACY
    found = {(task, metric): metric_of(task, Quality(metric=metric)) for task in Task for metric in (None, Metric.MAE)}
    assert found == {
        (Task.MULTI_LABEL, None): Metric.F1_MICRO,
        (Task.MULTI_LABEL, Metric.MAE): None,
        (Task.GENERIC, None): None,
        (Task.GENERIC, Metric.MAE): None,
        (Task.CLASSIFICATION, None): Metric.ACCURACY,
        (Task.CLASSIFICATION, Metric.MAE): None,
        (Task.REGRESSION, None): Metric.RMSE,
        (Task.REGRESSION, Metric.MAE): Metric.MAE,
        (Task.EMBEDDING, None): None,
        (Task.EMBEDDING, Metric.MAE): None,
    }


def test_rows_without_a_finite_error_are_left_out(missed: tuple[Floats, Floats]) -> None:
    """A prediction that is no number says nothing."""
    predicted, truth = missed[0].copy(), missed[1]
    predicted[:3] = [np.nan, np.inf, -np.inf]
    assert len(scores(Metric.MAE, predicted, truth)) == len(truth) - 3


def test_labels_of_other_rows_than_the_rest_are_told() -> None:
    """Labels that come of one class alone mislead; those of every third row do not."""
    classes = pd.DataFrame({"prediction": load_digits().target.astype(str)})
    some, third = classes["prediction"].isin(["0", "1"]).to_numpy(), np.arange(len(classes)) % 3 == 0
    assert "this may mislead" in coverage(classes[some], classes[~some])
    assert coverage(classes[third], classes[~third]) == " 33% of the 1797 rows have a label."
