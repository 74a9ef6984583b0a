"""Metrics of a classifier's labels and probabilities.

Values come from scikit-learn. Resampling asks for the same number thousands of times, so it is computed from sums over
rows here, and tests hold the two against each other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn import metrics as sk

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Predictions, correct, spelled
from optimizer_jobs.measure.metrics.curves import curve
from optimizer_jobs.measure.metrics.evaluation import Array, Evaluation, Floats, mean_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from retune.api.metrics import Metric

Columns = NDArray[np.int64]

_TWO = 2
_SMALLEST = float(np.finfo(np.float64).eps)
"""Smallest probability that a loss is computed from, as in scikit-learn."""
_TINY = 1e-300


@dataclass(frozen=True)
class Counts:
    """Weighted rows by class, each (D, K): answered right, answered with the class, and of the class."""

    right: Floats
    answered: Floats
    true: Floats


def evaluate_classes(metric: Metric, predictions: Predictions, rows: Rows) -> Evaluation:
    """Return a metric of a classifier on N rows with labels.

    Raises:
        UnfitAnswersError: The metric needs probabilities or two classes, which this model does not have.
    """
    right = correct(predictions, rows).astype(np.float64)
    if metric in _ACCURACIES:
        return mean_of(right, is_share=True)
    if metric in _TOP:
        return _top(_TOP[metric], predictions, rows)
    if metric in _OF_LABELS:
        return _of_labels(metric, predictions, rows, right)
    return _of_probabilities(metric, predictions, rows)


_ACCURACIES = frozenset(
    {Metric.ACCURACY, Metric.ROBUST_ACCURACY, Metric.PRECISION_MICRO, Metric.RECALL_MICRO, Metric.F1_MICRO}
)
"""With one label a row, all of them are the share of rows that are right."""
_TOP = {Metric.TOP_3_ACCURACY: 3, Metric.TOP_5_ACCURACY: 5}
_OF_TWO = frozenset({Metric.PRECISION, Metric.RECALL, Metric.F1})


def _of_labels(metric: Metric, predictions: Predictions, rows: Rows, right: Floats) -> Evaluation:
    answered, true = spelled(predictions.labels), spelled(rows.answers)
    names, codes = np.unique(np.concatenate([answered, true]), return_inverse=True)
    answered_codes, true_codes = codes[: len(true)], codes[len(true) :]
    positive = _positive(metric, predictions, true) if metric in _OF_TWO else None
    column = None if positive is None else int(np.searchsorted(names, positive))
    if metric is Metric.RECALL and rows.groups is None:
        return _recall_of(str(positive), right, true_codes == column, rows)
    indicators = _indicators(answered_codes, true_codes, len(names))
    figure = _FIGURES[metric]

    def of_counts(counts: Counts) -> Floats:
        return figure(counts) if column is None else figure(_of_column(counts, column))

    def at(weights: Floats) -> Floats:
        return of_counts(Counts(*np.split(np.asarray((indicators.T @ weights.T).T), 3, axis=1)))

    counts = Counts(*np.split(np.asarray(indicators.sum(axis=0)).reshape(1, -1), 3, axis=1))
    mistake = _mistake(of_counts, counts, column)
    return Evaluation(value=_value(metric, true, answered, positive), scores=right, at=at, mistake=mistake)


def _mistake(figure: Callable[[Counts], Floats], counts: Counts, column: int | None) -> float:
    """Return most that a metric falls by when a row of some class is answered with another one instead of its own.

    The other class is the one answered least, the one answered most, or the positive one in `column`.
    """
    order = np.argsort(counts.answered[0], kind="stable").tolist()
    others = [*order[:_TWO], order[-1], *([] if column is None else [column])]
    right = np.flatnonzero(counts.right[0]).tolist()
    changes = [(true, other) for true in right for other in dict.fromkeys(others) if other != true]
    if not changes:
        return 0.0
    line, (true, other) = np.arange(len(changes)), np.asarray(changes).T
    changed = Counts(*(np.repeat(part, len(changes), axis=0) for part in (counts.right, counts.answered, counts.true)))
    changed.right[line, true] -= 1
    changed.answered[line, true] -= 1
    changed.answered[line, other] += 1
    lost = figure(counts) - figure(changed)
    return max(0.0, float(np.nanmax(lost, initial=0.0)))


def _recall_of(positive: str, right: Floats, of_class: NDArray[np.bool_], rows: Rows) -> Evaluation:
    """Return the share of the rows of one class that are right; only they are its evidence."""
    evaluation = mean_of(right[of_class], is_share=True, unit=f"test rows of class {positive}")
    if rows.weights is None:
        return evaluation
    if not rows.weights[of_class].any():
        raise UnfitAnswersError(f"no row with the positive label {positive} has a weight above 0, which recall needs")
    return evaluation.weighed(rows.weights[of_class])


def _positive(metric: Metric, predictions: Predictions, true: Array) -> str:
    """Return the positive class as text: the one that the model names, or else the last of two."""
    known = [str(name) for name in spelled(np.asarray(predictions.classes))] if predictions.classes else []
    names = known or sorted(set(true))
    if len(names) != _TWO and predictions.positive is None:
        raise UnfitAnswersError(
            f"{metric} is of two classes, and this model has {len(names)}: use {metric}_macro, or set "
            "model.positiveLabel"
        )
    positive = str(names[-1] if predictions.positive is None else predictions.positive)
    if positive not in set(true):
        raise UnfitAnswersError(f"no row has the positive label {positive}, which {metric} needs")
    return positive


def _indicators(answered: Array, true: Array, classes: int) -> csr_matrix:
    """Return (N, 3 K): for each row, where it counts in `Counts`."""
    rows = np.arange(len(true))
    right = answered == true
    lines = np.concatenate([rows[right], rows, rows])
    columns = np.concatenate([true[right], classes + answered, 2 * classes + true])
    return csr_matrix((np.ones(len(lines)), (lines, columns)), shape=(len(true), 3 * classes))


def _of_column(counts: Counts, column: int) -> Counts:
    return Counts(*(part[:, column : column + 1] for part in (counts.right, counts.answered, counts.true)))


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return a quotient, 0 where there is nothing below, as scikit-learn does."""
    return np.asarray(np.where(below > 0, above / np.maximum(below, _TINY), 0.0))


def _present(counts: Counts) -> Floats:
    """Return which classes any row has or is answered with, (D, K)."""
    return ((counts.true + counts.answered) > 0).astype(np.float64)


def _macro(part: Callable[[Counts], Floats]) -> Callable[[Counts], Floats]:
    return lambda counts: np.asarray((part(counts) * _present(counts)).sum(axis=1) / _present(counts).sum(axis=1))


def _weighted(part: Callable[[Counts], Floats]) -> Callable[[Counts], Floats]:
    return lambda counts: np.asarray((part(counts) * counts.true).sum(axis=1) / counts.true.sum(axis=1))


def _precision(counts: Counts) -> Floats:
    return _ratio(counts.right, counts.answered)


def _recall(counts: Counts) -> Floats:
    return _ratio(counts.right, counts.true)


def _f1(counts: Counts) -> Floats:
    return _ratio(2 * counts.right, counts.answered + counts.true)


def _balanced(counts: Counts) -> Floats:
    present = (counts.true > 0).astype(np.float64)
    return np.asarray((_recall(counts) * present).sum(axis=1) / present.sum(axis=1))


def _matthews(counts: Counts) -> Floats:
    total, right = counts.true.sum(axis=1), counts.right.sum(axis=1)
    together = right * total - (counts.true * counts.answered).sum(axis=1)
    answered = total**2 - (counts.answered**2).sum(axis=1)
    true = total**2 - (counts.true**2).sum(axis=1)
    return _ratio(together, np.sqrt(np.maximum(answered * true, 0.0)))


_FIGURES: Mapping[Metric, Callable[[Counts], Floats]] = {
    Metric.BALANCED_ACCURACY: _balanced,
    Metric.MATTHEWS: _matthews,
    Metric.PRECISION: lambda counts: _precision(counts)[:, 0],
    Metric.RECALL: lambda counts: np.where(counts.true > 0, _recall(counts), np.nan)[:, 0],
    Metric.F1: lambda counts: _f1(counts)[:, 0],
    Metric.PRECISION_MACRO: _macro(_precision),
    Metric.RECALL_MACRO: _macro(_recall),
    Metric.F1_MACRO: _macro(_f1),
    Metric.PRECISION_WEIGHTED: _weighted(_precision),
    Metric.RECALL_WEIGHTED: _weighted(_recall),
    Metric.F1_WEIGHTED: _weighted(_f1),
}
_OF_LABELS = frozenset(_FIGURES)


def _value(metric: Metric, true: Array, answered: Array, positive: str | None) -> float:
    if metric is Metric.BALANCED_ACCURACY:
        return float(sk.recall_score(true, answered, labels=np.unique(true), average="macro", zero_division=0))
    if metric is Metric.MATTHEWS:
        return float(sk.matthews_corrcoef(true, answered))
    name, _, average = metric.value.partition("_")
    score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[name]
    if positive is not None:
        return float(score(true == positive, answered == positive, zero_division=0))
    return float(score(true, answered, average=average, zero_division=0))


def _top(count: int, predictions: Predictions, rows: Rows) -> Evaluation:
    scores, columns = _scored(Metric.TOP_5_ACCURACY, predictions), _true_columns(predictions, rows)
    best = np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, :count]
    return mean_of((best == columns[:, np.newaxis]).any(axis=1).astype(np.float64), is_share=True)


def _scored(metric: Metric, predictions: Predictions) -> Floats:
    """Return probabilities, or else scores, (N, K)."""
    table = predictions.scores if predictions.probabilities is None else predictions.probabilities
    if table is None:
        raise UnfitAnswersError(f"{metric} needs scores of the classes, and this model answers labels only")
    return np.asarray(table, dtype=np.float64)


def _true_columns(predictions: Predictions, rows: Rows) -> Columns:
    """Return the column (N,) of each row's label, -1 for a class that the model does not have."""
    names = spelled(np.asarray(predictions.classes))
    order = np.argsort(names)
    true = spelled(rows.answers)
    places = np.minimum(np.searchsorted(names, true, sorter=order), len(names) - 1)
    columns = order[places]
    return np.asarray(np.where(names[columns] == true, columns, -1))


def _of_probabilities(metric: Metric, predictions: Predictions, rows: Rows) -> Evaluation:
    columns = _true_columns(predictions, rows) if predictions.classes else np.zeros(0, dtype=np.int64)
    if metric in {Metric.ROC_AUC, Metric.AVERAGE_PRECISION}:
        return _of_ranks(metric, predictions, columns)
    if predictions.probabilities is None:
        raise UnfitAnswersError(
            f"{metric} needs probabilities of the classes: set model.outputs.scores and model.outputs.scale"
        )
    probabilities = predictions.probabilities
    losses = _losses(metric, probabilities, columns)
    if metric in {Metric.LOG_LOSS, Metric.BRIER_SCORE}:
        return mean_of(losses)
    return _explained(metric, losses, columns, probabilities.shape[1])


def _losses(metric: Metric, probabilities: Floats, columns: Columns) -> Floats:
    """Return each row's log loss or squared distance (N,); of two classes, the latter counts once."""
    rows, known = np.arange(len(columns)), columns >= 0
    of_true = np.where(known, probabilities[rows, np.maximum(columns, 0)], 0.0)
    if metric in {Metric.LOG_LOSS, Metric.D2_LOG_LOSS}:
        return np.asarray(-np.log(np.clip(of_true, _SMALLEST, 1 - _SMALLEST)))
    distance = np.square(probabilities).sum(axis=1) - 2 * of_true + 1
    return np.asarray(distance / 2 if probabilities.shape[1] == _TWO else distance)


def _explained(metric: Metric, losses: Floats, columns: Columns, classes: int) -> Evaluation:
    """Return the share of the loss of always answering the classes' shares that is not there."""
    known = np.where(columns < 0, classes, columns)
    indicators = csr_matrix((np.ones(len(known)), (np.arange(len(known)), known)), shape=(len(known), classes + 1))
    half = classes == _TWO and metric is Metric.D2_BRIER

    def at(weights: Floats) -> Floats:
        total = weights.sum(axis=1)
        shares = np.asarray((indicators.T @ weights.T).T) / total[:, np.newaxis]
        if metric is Metric.D2_BRIER:
            without = (1 - np.square(shares).sum(axis=1)) / (2 if half else 1)
        else:
            without = -(shares * np.log(np.maximum(shares, _SMALLEST))).sum(axis=1)
        return np.asarray(1 - weights @ losses / total / np.maximum(without, _TINY))

    return Evaluation(value=float(at(np.ones((1, len(losses))))[0]), scores=-losses, at=at)


def _check_both_sides(metric: Metric, columns: Columns, chosen: Sequence[tuple[int, str]]) -> None:
    """Refuse rows of which all, or none, have the class that is told from the rest by its scores."""
    for column, name in chosen:
        positive = int((columns == column).sum())
        if positive == 0 or (positive == len(columns) and metric is Metric.ROC_AUC):
            which = "no" if positive == 0 else "every"
            raise UnfitAnswersError(f"{which} row has the label {name}, so {metric} has no value")


def _of_ranks(metric: Metric, predictions: Predictions, columns: Columns) -> Evaluation:
    """Return ROC AUC or average precision: of the positive class of two, else the mean of one against the rest."""
    scores = _scored(metric, predictions)
    if scores.shape[1] == 1:
        scores = np.concatenate([-scores, scores], axis=1)
    names = [str(name) for name in spelled(np.asarray(predictions.classes))]
    chosen = [names.index(str(predictions.positive))] if str(predictions.positive) in names else [len(names) - 1]
    if len(names) > _TWO and predictions.positive is None:
        chosen = [column for column in range(len(names)) if (columns == column).any()]
    _check_both_sides(metric, columns, [(column, names[column]) for column in chosen])
    curves = [curve(metric, scores[:, column], columns == column) for column in chosen]

    def at(weights: Floats) -> Floats:
        return np.asarray(np.mean([area(weights) for area in curves], axis=0))

    score = sk.roc_auc_score if metric is Metric.ROC_AUC else sk.average_precision_score
    value = float(np.mean([score(columns == column, scores[:, column]) for column in chosen]))
    of_true = np.where(columns >= 0, scores[np.arange(len(columns)), np.maximum(columns, 0)], scores.min())
    return Evaluation(value=value, scores=np.asarray(of_true), at=at)
