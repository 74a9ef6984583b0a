"""Quality without labels, on real models: near the truth where the reference speaks for the rows, silent elsewhere."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from optimizer_jobs.commands.check.estimated_quality import LEAST_REFERENCE, MOST_OUTSIDE, Seen, Unlabelled
from optimizer_jobs.measure.answers import Answers, Predictions
from retune.api.metrics import Metric
from retune.api.monitoring import Quality
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

Floats = NDArray[np.float64]
ROWS, TRUTH = load_digits(return_X_y=True)
KNOWN, LIVE = slice(500, 1150), slice(1150, None)


@pytest.fixture(scope="module", name="model")
def _model() -> LogisticRegression:
    return LogisticRegression(max_iter=2000).fit(ROWS[:500], TRUTH[:500])


def seen(model: Any, rows: Floats) -> Seen:
    """Return rows as a check sees them."""
    shares = model.predict_proba(rows)
    predictions = Predictions(shares.argmax(axis=1), shares, shares, tuple(range(shares.shape[1])))
    return Seen(pd.DataFrame(rows).add_prefix("x"), Answers(predictions))


def told(
    model: Any, change: Callable[[Floats], Floats] = np.asarray, *, metric: Metric = Metric.ACCURACY, seed: int = 0
) -> SignalVerdict:
    """Return what is said of the live digits, changed in some way."""
    watched = Unlabelled(metric, Quality(), seed=seed)
    verdict = watched.verdict(seen(model, ROWS[KNOWN]), TRUTH[KNOWN], seen(model, change(ROWS[LIVE])))
    assert verdict is not None
    assert verdict.estimated
    return verdict


def noisy(deviation: float) -> Callable[[Floats], Floats]:
    """Real digits, seen through noise."""
    return lambda rows: rows + np.random.default_rng(0).normal(0, deviation, rows.shape)


def right(model: Any, rows: Floats) -> float:
    """Return the share of the live digits that is answered right."""
    return float((model.predict(rows) == TRUTH[LIVE]).mean())


def holds(verdict: SignalVerdict, true: float) -> bool:
    """Return whether the interval contains the truth."""
    return float(verdict.low or "nan") <= true <= float(verdict.high or "nan")


def test_rows_like_the_reference_s_are_estimated_and_the_interval_holds_the_truth(model: LogisticRegression) -> None:
    """The verdict has value, interval, share outside, and says that there are no labels."""
    verdict = told(model)
    assert verdict.verdict is Verdict.CLEAR, verdict.message
    assert holds(verdict, right(model, ROWS[LIVE]))
    assert float(verdict.outside or 1) < MOST_OUTSIDE
    assert "Estimated without labels: 95 % between" in verdict.message


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0, 4.0, 6.0])
def test_the_interval_holds_the_truth_or_nothing_is_said(model: LogisticRegression, deviation: float) -> None:
    """Ever more noise: a model is too sure of what it has never seen, so there it is not asked."""
    change = noisy(deviation)
    verdict = told(model, change)
    if verdict.verdict is Verdict.UNTRUSTED:
        assert (verdict.value, verdict.low, verdict.high) == (None, None, None)
    else:
        assert holds(verdict, right(model, change(ROWS[LIVE]))), verdict.message


def test_rows_that_the_reference_has_never_seen_are_not_judged(model: LogisticRegression) -> None:
    """Strong noise lies outside: the share is told, and no number."""
    verdict = told(model, noisy(4.0))
    assert (verdict.verdict, verdict.reason, verdict.value) == (Verdict.UNTRUSTED, "OutsideReference", None)
    assert float(verdict.outside or 0) > MOST_OUTSIDE
    assert "lie where the reference has none" in verdict.message


def test_harder_rows_of_known_kinds_are_estimated_as_worse(model: LogisticRegression) -> None:
    """The quarter of the live digits that the model is least sure of: labels show the loss that is told."""
    sure = model.predict_proba(ROWS[LIVE]).max(axis=1)
    hard = np.sort(np.argsort(sure)[: len(sure) // 4])
    verdict = Unlabelled(Metric.ACCURACY, Quality()).verdict(
        seen(model, ROWS[KNOWN]), TRUTH[KNOWN], seen(model, ROWS[LIVE][hard])
    )
    assert verdict is not None
    assert verdict.verdict not in {Verdict.CLEAR, Verdict.UNTRUSTED}, verdict.message
    true = float((model.predict(ROWS[LIVE][hard]) == TRUTH[LIVE][hard]).mean())
    assert holds(verdict, true), verdict.message
    assert abs(float(verdict.value or 1) - true) < 0.1
    assert true < float(verdict.reference or 0) - 0.1


def test_the_same_window_says_the_same(model: LogisticRegression) -> None:
    """Everything is drawn with the window's seed; another seed moves the number a little."""
    first, again, other = told(model, seed=3), told(model, seed=3), told(model, seed=4)
    assert first == again
    assert first.value != other.value
    assert abs(float(first.value or 0) - float(other.value or 1)) < 0.02


@pytest.mark.parametrize("metric", [Metric.LOG_LOSS, Metric.BRIER_SCORE, Metric.ROC_AUC, Metric.F1, Metric.ACCURACY])
def test_metrics_of_probabilities_are_estimated_too(metric: Metric) -> None:
    """An overconfident model of tumours, on rows like the reference's: the interval holds what labels show."""
    rows, truth = load_breast_cancer(return_X_y=True)
    model = GaussianNB().fit(rows[::3], truth[::3])
    known, live = np.arange(len(rows))[1::3], np.arange(len(rows))[2::3]
    watched = Unlabelled(metric, Quality())
    window = seen(model, rows[live])
    verdict = watched.verdict(seen(model, rows[known]), truth[known], window)
    assert verdict is not None
    assert holds(verdict, watched.measured(window, truth[live])), verdict.message


@pytest.mark.parametrize("metric", [Metric.NDCG_5, Metric.CUSTOM])
def test_a_metric_that_probabilities_say_nothing_of_is_not_estimated(metric: Metric, model: LogisticRegression) -> None:
    """Orders within groups, and code of the owner's own."""
    verdict = told(model, metric=metric)
    assert (verdict.verdict, verdict.reason) == (Verdict.UNTRUSTED, "NotEstimable")
    assert metric in verdict.message


def test_a_small_reference_is_no_ground(model: LogisticRegression) -> None:
    """99 labelled rows."""
    few = slice(500, 500 + LEAST_REFERENCE - 1)
    verdict = Unlabelled(Metric.ACCURACY, Quality()).verdict(
        seen(model, ROWS[few]), TRUTH[few], seen(model, ROWS[LIVE])
    )
    assert verdict is not None
    assert (verdict.verdict, verdict.reason) == (Verdict.UNTRUSTED, "ReferenceTooSmall")


def test_a_window_of_one_corner_of_the_reference_is_not_judged_by_a_handful_of_rows(model: LogisticRegression) -> None:
    """Copies of one digit and its neighbours: none lies outside, and too few of the reference resemble them."""
    near = np.argsort(np.linalg.norm(ROWS[KNOWN] - ROWS[KNOWN][0], axis=1))[:8]
    verdict = told(model, lambda rows: ROWS[KNOWN][near][np.arange(len(rows)) % 8])
    assert (verdict.verdict, verdict.reason) == (Verdict.UNTRUSTED, "UnlikeReference"), verdict.message


@pytest.mark.parametrize("few", ["reference", "window"])
def test_too_few_rows_are_no_estimate(model: LogisticRegression, few: str) -> None:
    """49 rows on either side."""
    known = slice(500, 549) if few == "reference" else KNOWN
    live = slice(1150, 1199) if few == "window" else LIVE
    watched = Unlabelled(Metric.ACCURACY, Quality())
    assert watched.verdict(seen(model, ROWS[known]), TRUTH[known], seen(model, ROWS[live])) is None


def test_a_model_that_answers_labels_alone_is_not_estimated(model: LogisticRegression) -> None:
    """There is nothing to calibrate."""
    bare = [Seen(pd.DataFrame(ROWS[part]), Answers(Predictions(model.predict(ROWS[part])))) for part in (KNOWN, LIVE)]
    assert Unlabelled(Metric.ACCURACY, Quality()).verdict(bare[0], TRUTH[KNOWN], bare[1]) is None


@pytest.mark.slow
def test_quiet_windows_estimate_no_loss_and_their_intervals_hold(model: LogisticRegression) -> None:
    """Twelve windows of 300 rows, against a reference of half the rows."""
    generator = np.random.default_rng(0)
    held = breaches = 0
    for turn in range(12):
        order = 500 + generator.permutation(len(ROWS) - 500)
        known, live = order[:600], order[600:900]
        verdict = Unlabelled(Metric.ACCURACY, Quality(), seed=turn).verdict(
            seen(model, ROWS[known]), TRUTH[known], seen(model, ROWS[live])
        )
        assert verdict is not None
        assert verdict.verdict is not Verdict.UNTRUSTED, verdict.message
        breaches += verdict.verdict is Verdict.BREACH
        held += holds(verdict, float((model.predict(ROWS[live]) == TRUTH[live]).mean()))
    assert breaches == 0
    assert held >= 10
