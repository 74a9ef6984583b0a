"""Metrics of numbers: one a row, or several, whose metrics are averaged as scikit-learn does."""

import numpy as np
from sklearn import metrics as sk

from optimizer_jobs.measure.metrics.evaluation import Evaluation, Floats, mean_of, of_means
from optimizer_jobs.measure.unfit import UnfitAnswersError
from retune.api.metrics import Metric

_TINY = 1e-300
_SMALLEST = float(np.finfo(np.float64).eps)
"""Smallest value that an error is divided by, as in scikit-learn."""
_QUANTILES = {Metric.PINBALL_10: 0.1, Metric.PINBALL_50: 0.5, Metric.PINBALL_90: 0.9}


def evaluate_numbers(metric: Metric, answered: Floats, true: Floats) -> Evaluation:
    """Return a metric of a regression.

    Args:
        metric: A metric of task Regression.
        answered: Answers (N,) or (N, outputs).
        true: Values to predict, of the same shape.

    Raises:
        UnfitAnswersError: The shapes differ.
    """
    if answered.shape != true.shape:
        raise UnfitAnswersError(f"answers have shape {answered.shape}, and the labels {true.shape}")
    answers, values = answered.reshape(len(answered), -1), true.reshape(len(true), -1)
    errors = answers - values
    if metric is Metric.RMSE:
        return _root(np.square(errors))
    if metric is Metric.R2:
        return _explained(answers, values)
    return mean_of(_row_errors(metric, errors, values).mean(axis=1))


def _row_errors(metric: Metric, errors: Floats, values: Floats) -> Floats:
    """Return the error of every number, (N, outputs)."""
    if metric is Metric.MSE:
        return np.square(errors)
    if metric is Metric.MAPE:
        return np.asarray(np.abs(errors) / np.maximum(np.abs(values), _SMALLEST))
    if metric in _QUANTILES:
        quantile = _QUANTILES[metric]
        return np.asarray(np.where(errors < 0, -quantile * errors, (1 - quantile) * errors))
    return np.abs(errors)


def _root(squares: Floats) -> Evaluation:
    value = float(np.sqrt(squares.mean(axis=0)).mean())
    return of_means(
        squares, lambda means: np.asarray(np.sqrt(means).mean(axis=1)), scores=squares.mean(axis=1), value=value
    )


def _explained(answers: Floats, values: Floats) -> Evaluation:
    outputs = values.shape[1]
    centred = values - values.mean(axis=0)
    squares = np.square(answers - values)

    def figure(means: Floats) -> Floats:
        error, square, mean = np.split(means, 3, axis=1)
        variance = np.maximum(square - np.square(mean), _TINY)
        return np.asarray((1 - error / variance).mean(axis=1))

    moments = np.concatenate([squares, np.square(centred), centred], axis=1)
    value = float(sk.r2_score(values, answers)) if outputs else 0.0
    return of_means(moments, figure, scores=-squares.mean(axis=1), value=value)
