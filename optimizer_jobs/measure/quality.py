"""Quality of a model's answers: every metric of the API as an evaluation of N rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Floats, Predictions, alike, cosines, spelled
from optimizer_jobs.measure.custom import evaluate_custom
from optimizer_jobs.measure.metrics.classification import evaluate_classes
from optimizer_jobs.measure.metrics.costs import expected_cost
from optimizer_jobs.measure.metrics.evaluation import ROWS, Evaluation, mean_of
from optimizer_jobs.measure.metrics.multi_label import evaluate_label_sets
from optimizer_jobs.measure.metrics.ranking import evaluate_order
from optimizer_jobs.measure.metrics.regression import evaluate_numbers
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from retune.api.metrics import CUSTOM, RANKING, Metric, MetricKind
from retune.api.model import Task
from retune.api.objectives import Objective

MAIN = {
    Task.CLASSIFICATION: (Metric.ACCURACY,),
    Task.REGRESSION: (Metric.RMSE, Metric.MAE),
    Task.EMBEDDING: (Metric.COSINE, Metric.NEIGHBOR_AGREEMENT),
    Task.MULTI_LABEL: (Metric.F1_MICRO, Metric.HAMMING_LOSS),
    Task.GENERIC: (Metric.FIDELITY,),
}
"""Quality metrics that are measured for every model of a task, the most important first."""

_NEIGHBORS_AT_ONCE = 1024


def measured_metrics(task: Task, objectives: Sequence[Objective], yardstick: Yardstick = PLAIN) -> tuple[Metric, ...]:
    """Return the quality metrics to evaluate: those of the objectives, the main ones of the task, the owner's own.

    Robust accuracy is left out, because it is no metric of answers to the rows as they are.
    """
    named = [objective.metric for objective in objectives if objective.metric.kind is MetricKind.QUALITY]
    wanted = dict.fromkeys([*named, *MAIN[task], *([Metric.EXPECTED_COST] if yardstick.costs else [])])
    return tuple(metric for metric in wanted if metric is not Metric.ROBUST_ACCURACY)


def evaluate(
    metric: Metric,
    answers: Answers,
    rows: Rows,
    *,
    reference: Answers | None = None,
    yardstick: Yardstick = PLAIN,
) -> Evaluation:
    """Return a quality metric of a model.

    Args:
        metric: A quality metric of the answers' task.
        answers: A model's answers to the rows.
        rows: N rows with labels; likeness to the delivered model needs no labels.
        reference: Answers of the model as delivered, for metrics that compare with it; None compares with itself.
        yardstick: What the owner measures by.

    Raises:
        UnfitAnswersError: The answers or the rows lack what the metric needs.
    """
    if metric in CUSTOM:
        plain = evaluate_custom(metric, yardstick.custom, answers.outputs, rows)
    elif metric is Metric.EXPECTED_COST:
        plain = expected_cost(_classified(metric, answers), rows, yardstick.costs)
    else:
        plain = _evaluate(metric, answers, rows, answers if reference is None else reference)
    evaluation = counted(plain, rows)
    if not np.isfinite(evaluation.value):
        raise UnfitAnswersError(f"{metric} has no value on these {len(rows)} rows{_of_weights(rows)}")
    return evaluation


def _of_weights(rows: Rows) -> str:
    return "" if rows.weights is None else f", of which {int((rows.weights > 0).sum())} have a weight above 0"


def counted(evaluation: Evaluation, rows: Rows) -> Evaluation:
    """Return the evaluation with the rows' weights, and with whole groups as evidence, where it is made of the rows."""
    if evaluation.unit != ROWS:
        return evaluation
    weighed = evaluation if rows.weights is None else evaluation.weighed(rows.weights)
    if rows.groups is None:
        return weighed
    return replace(weighed, is_share=False, blocks=np.unique(rows.groups, return_inverse=True)[1])


def _evaluate(metric: Metric, answers: Answers, rows: Rows, delivered: Answers) -> Evaluation:
    if metric is Metric.FIDELITY:
        likeness = alike(delivered, answers)
        return mean_of(likeness, is_share=bool(np.isin(likeness, (0.0, 1.0)).all()))
    if metric in RANKING:
        return evaluate_order(metric, *_ordering(answers, rows), rows.groups, rows.weights)
    if answers.label_sets is not None:
        return evaluate_label_sets(metric, answers.label_sets, rows)
    if answers.predictions is not None:
        return evaluate_classes(metric, answers.predictions, rows)
    if metric is Metric.COSINE:
        return mean_of(cosines(answers.numbers, delivered.numbers))
    if metric is Metric.NEIGHBOR_AGREEMENT:
        same = _neighbors(answers.numbers) == _neighbors(delivered.numbers)
        return mean_of(same.astype(np.float64), is_share=True)
    return evaluate_numbers(metric, answers.numbers, rows.answers.astype(np.float64))


def _classified(metric: Metric, answers: Answers) -> Predictions:
    if answers.predictions is None:
        raise UnfitAnswersError(f"{metric} is of a classifier's answers")
    return answers.predictions


def _ordering(answers: Answers, rows: Rows) -> tuple[Floats, Floats]:
    """Return scores and relevance (N,): of a classifier, the score of its positive class and whether the row has it."""
    predictions = answers.predictions
    if predictions is None:
        return answers.numbers.reshape(len(rows)), rows.answers.astype(np.float64)
    table = predictions.scores if predictions.probabilities is None else predictions.probabilities
    if table is None:
        raise UnfitAnswersError("rows are ordered by scores, and this model answers labels only")
    names = [str(name) for name in spelled(np.asarray(predictions.classes))]
    positive = str(names[-1] if predictions.positive is None else predictions.positive)
    scores = np.asarray(table, dtype=np.float64)
    column = min(names.index(positive), scores.shape[1] - 1)
    return scores[:, column], (spelled(rows.answers) == positive).astype(np.float64)


def _neighbors(vectors: Floats) -> NDArray[np.int64]:
    """Return for each row the index (N,) of the nearest other row, by cosine."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest = np.empty(len(unit), dtype=np.int64)
    for start in range(0, len(unit), _NEIGHBORS_AT_ONCE):
        near = unit[start : start + _NEIGHBORS_AT_ONCE] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        nearest[start : start + len(near)] = near.argmax(axis=1)
    return nearest
