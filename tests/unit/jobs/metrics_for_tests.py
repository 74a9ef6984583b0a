"""What scikit-learn says of every metric of ours, and rows and answers to ask both about."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions
from retune.api.metrics import CUSTOM, RANKING, Metric, quality_metrics
from retune.api.model import Task

Floats = NDArray[np.float64]
Theirs = Callable[..., float]

NOT_OF_ANSWERS = {Metric.ROBUST_ACCURACY, *RANKING, Metric.FIDELITY, *CUSTOM}
OF_TWO = (Metric.PRECISION, Metric.RECALL, Metric.F1)
OF_MANY = [metric for metric in quality_metrics(Task.CLASSIFICATION) if metric not in {*NOT_OF_ANSWERS, *OF_TWO}]


def rows_of(
    labels: NDArray[np.generic], groups: NDArray[np.generic] | None = None, weights: Floats | None = None
) -> Rows:
    """Return rows of which only labels, groups and weights matter."""
    return Rows(inputs={"x": np.zeros(len(labels))}, labels=labels, digest="", groups=groups, weights=weights)


def answers_of(probabilities: Floats, positive: int | None = None) -> Answers:
    """Return a classifier's answers with the class of the largest probability."""
    classes = tuple(range(probabilities.shape[1]))
    labels = probabilities.argmax(axis=1)
    return Answers(Predictions(labels, probabilities, probabilities, classes, positive))


def of_sklearn(metric: Metric, true: NDArray[np.int64], probabilities: Floats, weights: Floats) -> float:
    """Return scikit-learn's own value of a metric of classes 0 to K - 1 for weighted rows."""
    answered, count = probabilities.argmax(axis=1), probabilities.shape[1]
    classes, weigh = list(range(count)), {"sample_weight": weights}
    name, _, average = metric.value.partition("_")
    if name in {"precision", "recall", "f1"}:
        score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[name]
        return float(score(true, answered, average=average or "binary", zero_division=0, **weigh))
    labelled: dict[Metric, Theirs] = {
        Metric.ACCURACY: sk.accuracy_score,
        Metric.BALANCED_ACCURACY: sk.balanced_accuracy_score,
        Metric.MATTHEWS: sk.matthews_corrcoef,
        Metric.EXPECTED_COST: sk.zero_one_loss,
    }
    if metric in labelled:
        return float(labelled[metric](true, answered, **weigh))
    if metric in {Metric.TOP_3_ACCURACY, Metric.TOP_5_ACCURACY}:
        k = 3 if metric is Metric.TOP_3_ACCURACY else 5
        if k >= count:
            return 1.0
        return float(sk.top_k_accuracy_score(true, probabilities, k=k, labels=classes, **weigh))
    if metric in {Metric.ROC_AUC, Metric.AVERAGE_PRECISION}:
        area = sk.roc_auc_score if metric is Metric.ROC_AUC else sk.average_precision_score
        chosen = classes if count > 2 else [1]
        return float(np.mean([area(true == name, probabilities[:, name], **weigh) for name in chosen]))
    probable: dict[Metric, Theirs] = {
        Metric.LOG_LOSS: sk.log_loss,
        Metric.BRIER_SCORE: sk.brier_score_loss,
        Metric.D2_LOG_LOSS: sk.d2_log_loss_score,
        Metric.D2_BRIER: sk.d2_brier_score,
    }
    given_ = probabilities if count > 2 or metric in {Metric.LOG_LOSS, Metric.D2_LOG_LOSS} else probabilities[:, 1]
    return float(probable[metric](true, given_, labels=classes, **weigh))


@st.composite
def classified(draw: st.DrawFn, *, classes: int) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Labels of every class, probabilities with ties, and how often each row is drawn."""
    rows = draw(st.integers(2 * classes, 30))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    true = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    table = generator.integers(1, 6, (rows, classes)).astype(np.float64)
    weights = generator.integers(0, 4, rows).astype(np.float64)
    weights[:classes] += 1
    return true, table / table.sum(axis=1, keepdims=True), weights


OF_NUMBERS: dict[Metric, Theirs] = {
    Metric.MAE: sk.mean_absolute_error,
    Metric.MSE: sk.mean_squared_error,
    Metric.RMSE: sk.root_mean_squared_error,
    Metric.MAPE: sk.mean_absolute_percentage_error,
    Metric.R2: sk.r2_score,
    Metric.PINBALL_10: lambda true, answered, **more: sk.mean_pinball_loss(true, answered, alpha=0.1, **more),
    Metric.PINBALL_50: lambda true, answered, **more: sk.mean_pinball_loss(true, answered, alpha=0.5, **more),
    Metric.PINBALL_90: lambda true, answered, **more: sk.mean_pinball_loss(true, answered, alpha=0.9, **more),
}
