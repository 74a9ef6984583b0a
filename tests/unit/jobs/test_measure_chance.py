"""Models that know nothing are told from those that do, however rare a class is."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits, make_classification
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor
from sklearn.model_selection import cross_val_predict

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions
from optimizer_jobs.measure.chance import may_tell_a_quantile, no_better_than_chance


def rows(labels: np.ndarray) -> Rows:
    """Return rows of which only the labels matter."""
    return Rows(inputs={"x": labels}, labels=labels, digest="")


def classified(table: np.ndarray) -> Answers:
    """Return the answers of a classifier with these probabilities."""
    return Answers(Predictions(table.argmax(axis=1), table, table, tuple(range(table.shape[1]))))


def test_a_model_of_rare_rows_that_never_says_positive_still_knows_something() -> None:
    """Its accuracy is that of a constant, but its scores put positive rows first."""
    X, y = make_classification(4000, weights=[0.985], flip_y=0.01, random_state=0)
    table = cross_val_predict(LogisticRegression(C=0.01), X, y, method="predict_proba")
    useless = cross_val_predict(DummyClassifier(strategy="prior"), X, y, method="predict_proba")

    assert no_better_than_chance(classified(table), rows(y)) is None
    assert "balanced_accuracy 0.5 (0.5 to 0.5), chance is 0.5; roc_auc 0.4" in str(
        no_better_than_chance(classified(useless), rows(y))
    )


@pytest.mark.slow
def test_the_wrong_output_of_a_good_model_is_no_better_than_chance() -> None:
    """Columns of something else than the classes, read as scores of ten digits."""
    X, y = load_digits(return_X_y=True)
    wrong = np.random.default_rng(0).normal(size=(len(y), 10))

    assert "cannot be told from chance" in str(no_better_than_chance(classified(wrong), rows(y)))
    right = cross_val_predict(LogisticRegression(max_iter=2000), X / 16, y, method="predict_proba")
    assert no_better_than_chance(classified(right), rows(y)) is None


@pytest.mark.parametrize("columns", [1, 10])
def test_a_weak_regression_knows_something(columns: int) -> None:
    """Better than the mean and rising with the values, though its explained variance is uncertain."""
    X, y = load_diabetes(return_X_y=True)
    answered = cross_val_predict(LinearRegression(), X[:, 2 : 2 + columns], y)
    assert no_better_than_chance(Answers(values=answered), rows(y)) is None


@pytest.mark.parametrize("quantile", [0.05, 0.9, 0.95])
def test_a_forecast_of_a_quantile_is_none_of_the_mean_and_may_be_told_as_what_it_is(quantile: float) -> None:
    """Judged by its squares it would lose to any forecast of the mean; the same forecasts of other rows are nothing."""
    X, y = load_diabetes(return_X_y=True)
    answered = cross_val_predict(QuantileRegressor(quantile=quantile, alpha=0), X, y)
    assert "r2" in str(no_better_than_chance(Answers(values=answered), rows(y)))
    assert may_tell_a_quantile(Answers(values=answered), rows(y))
    of_others = np.random.default_rng(0).permutation(answered)
    assert not may_tell_a_quantile(Answers(values=of_others), rows(y))


@pytest.mark.parametrize("useless", ["mean", "other unit", "larger unit", "shuffled"])
def test_a_regression_that_is_worse_than_the_mean_knows_nothing(useless: str) -> None:
    """Always the mean, the right values in another unit, or values of other rows."""
    X, y = load_diabetes(return_X_y=True)
    good = cross_val_predict(LinearRegression(), X, y)
    answered = {
        "mean": np.full(len(y), y.mean()) + np.linspace(0, 1e-9, len(y)),
        "other unit": good * 1000,
        "larger unit": good / 1000,
        "shuffled": np.random.default_rng(0).permutation(good),
    }[useless]
    assert "r2" in str(no_better_than_chance(Answers(values=answered), rows(y)))
    assert not may_tell_a_quantile(Answers(values=answered), rows(y))


def test_an_embedding_is_not_asked() -> None:
    """It answers vectors, which labels say nothing about."""
    vectors = np.random.default_rng(0).normal(size=(4, 2))
    assert no_better_than_chance(Answers(values=vectors, is_embedding=True), rows(np.arange(4))) is None


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_an_embedding_that_is_the_same_for_every_row_knows_nothing(size: float) -> None:
    """Whatever takes its place would agree with it perfectly: the wrong output was named, or the model is broken."""
    vectors = np.full((40, 3), size) * (1 + 1e-9 * np.random.default_rng(0).normal(size=(40, 3)))
    told = no_better_than_chance(Answers(values=vectors, is_embedding=True), rows(np.arange(40)))
    assert "same for all 40 rows" in str(told)
