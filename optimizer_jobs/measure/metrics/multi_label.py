"""Metrics of models that give a row any number of several labels, with the meaning that they have in scikit-learn.

Averages over labels leave out those that no row has, where a label without a row has no value.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.label_sets import LabelSets, true_sets
from optimizer_jobs.measure.metrics.curves import curve
from optimizer_jobs.measure.metrics.evaluation import Evaluation, Floats, mean_of, of_means
from optimizer_jobs.measure.unfit import UnfitAnswersError
from retune.api.metrics import Metric

_SMALLEST = float(np.finfo(np.float64).eps)
"""Smallest probability that a loss is computed from, as in scikit-learn."""
_TINY = 1e-300

Part = Callable[[Floats, Floats, Floats], Floats]
"""Takes weighted labels that are right, answered and true, each (D, K), and returns a quotient (D, K)."""


def evaluate_label_sets(metric: Metric, answered: LabelSets, rows: Rows) -> Evaluation:
    """Return a metric of a multi-label model on N rows with labels (N, L).

    Raises:
        UnfitAnswersError: The labels have another shape, or the metric needs probabilities and there are none.
    """
    true = true_sets(rows.answers)
    if true.shape != answered.decided.shape:
        raise UnfitAnswersError(f"answers have shape {answered.decided.shape}, and the labels {true.shape}")
    right = answered.decided == true
    if metric is Metric.ACCURACY:
        return mean_of(right.all(axis=1).astype(np.float64), is_share=True)
    if metric is Metric.HAMMING_LOSS:
        return mean_of(1 - right.mean(axis=1))
    if metric in _FIGURES:
        return _of_counts(metric, answered, true)
    if metric in {Metric.ROC_AUC, Metric.AVERAGE_PRECISION}:
        return _of_ranks(metric, _scored(metric, answered.scores), true)
    return _of_probabilities(metric, _scored(metric, answered.probabilities), true)


def _scored(metric: Metric, scores: Floats | None) -> Floats:
    if scores is None:
        raise UnfitAnswersError(f"{metric} needs scores of the labels, and this model answers labels only")
    return scores


def _of_counts(metric: Metric, answered: LabelSets, true: np.ndarray) -> Evaluation:
    """Return precision, recall or F1, averaged over labels as the metric's name says."""
    counts = np.concatenate([answered.decided & true, answered.decided, true], axis=1).astype(np.float64)
    part, average = _FIGURES[metric]

    def figure(means: Floats) -> Floats:
        right, called, present = np.split(means, 3, axis=1)
        if average == "micro":
            right, called, present = (sums.sum(axis=1, keepdims=True) for sums in (right, called, present))
        values = part(right, called, present)
        if average == "weighted":
            return np.asarray((values * present).sum(axis=1) / np.maximum(present.sum(axis=1), _TINY))
        return np.asarray(values.mean(axis=1))

    value = float(figure(counts.mean(axis=0, keepdims=True))[0])
    evaluation = of_means(counts, figure, scores=(answered.decided == true).mean(axis=1), value=value)
    return replace(evaluation, mistake=_mistake(figure, counts))


def _mistake(figure: Callable[[Floats], Floats], counts: Floats) -> float:
    """Return most that a metric falls by when a label that is right is not answered, or one is answered that is not."""
    rows, (right, called, _) = len(counts), np.split(counts.sum(axis=0), 3)
    labels = len(right)
    some = np.eye(labels)
    missed = np.concatenate([-some, -some, 0 * some], axis=1)[right > 0]
    wrong = np.concatenate([0 * some, some, 0 * some], axis=1)[called < rows]
    changes = np.concatenate([missed, wrong])
    if not len(changes):
        return 0.0
    means = counts.mean(axis=0, keepdims=True)
    return max(0.0, float((figure(means) - figure(means + changes / rows)).max()))


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return a quotient, 0 where there is nothing below, as scikit-learn does."""
    return np.asarray(np.where(below > 0, above / np.maximum(below, _TINY), 0.0))


def _precision(right: Floats, called: Floats, present: Floats) -> Floats:  # noqa: ARG001
    return _ratio(right, called)


def _recall(right: Floats, called: Floats, present: Floats) -> Floats:  # noqa: ARG001
    return _ratio(right, present)


def _f1(right: Floats, called: Floats, present: Floats) -> Floats:
    return _ratio(2 * right, called + present)


_FIGURES: Mapping[Metric, tuple[Part, str]] = {
    Metric.PRECISION_MACRO: (_precision, "macro"),
    Metric.PRECISION_MICRO: (_precision, "micro"),
    Metric.PRECISION_WEIGHTED: (_precision, "weighted"),
    Metric.RECALL_MACRO: (_recall, "macro"),
    Metric.RECALL_MICRO: (_recall, "micro"),
    Metric.RECALL_WEIGHTED: (_recall, "weighted"),
    Metric.F1_MACRO: (_f1, "macro"),
    Metric.F1_MICRO: (_f1, "micro"),
    Metric.F1_WEIGHTED: (_f1, "weighted"),
}


def _of_ranks(metric: Metric, scores: Floats, true: np.ndarray) -> Evaluation:
    """Return the mean over labels of an area under a curve."""
    known = [label for label in range(true.shape[1]) if 0 < true[:, label].sum() < len(true)]
    if not known:
        raise UnfitAnswersError(f"{metric} needs a label that some rows have and others have not")
    curves = [curve(metric, scores[:, label], true[:, label]) for label in known]

    def at(weights: Floats) -> Floats:
        areas = np.asarray([area(weights) for area in curves])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a draw without any row of any label has no mean
            return np.asarray(np.nanmean(areas, axis=0))

    value = float(at(np.ones((1, len(true))))[0])
    return Evaluation(value=value, scores=np.where(true, scores, -scores).mean(axis=1), at=at)


def _of_probabilities(metric: Metric, probabilities: Floats, true: np.ndarray) -> Evaluation:
    """Return log loss or Brier score, the mean over labels, or the share of the latter that is explained."""
    if metric is Metric.LOG_LOSS:
        of_true = np.where(true, probabilities, 1 - probabilities)
        return mean_of(-np.log(np.clip(of_true, _SMALLEST, 1 - _SMALLEST)).mean(axis=1))
    losses = np.square(probabilities - true).mean(axis=1)
    if metric is Metric.BRIER_SCORE:
        return mean_of(losses)
    moments = np.concatenate([losses[:, np.newaxis], true.astype(np.float64)], axis=1)

    def figure(means: Floats) -> Floats:
        shares = means[:, 1:]
        return np.asarray(1 - means[:, 0] / np.maximum((shares * (1 - shares)).mean(axis=1), _TINY))

    value = float(figure(moments.mean(axis=0, keepdims=True))[0])
    return of_means(moments, figure, scores=-losses, value=value)
