"""Whether a model knows anything: answers that are no better than chance must not become a yardstick.

Accuracy alone does not say: where one class in a hundred is rare, always answering the other is right in 99 %.
"""

import numpy as np
from scipy.stats import spearmanr

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions, spelled, spread
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.label_sets import LabelSets
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.unfit import UnfitAnswersError
from retune.api.metrics import Metric

CONFIDENCE = 0.95
_SAME = 1e-6
"""Share of an embedding's size that its numbers differ by from row to row where they differ at all."""
_QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
_MOST_CURVES = 20
"""Most classes of which each is told from the rest by its scores."""


def no_better_than_chance(answers: Answers, rows: Rows) -> str | None:
    """Return why a model's answers to labelled rows cannot be told from chance, or None when they can.

    A classifier must beat chance by its labels or by the order of its scores, and so must one of several labels a row.
    A regression must explain variance, or be better than the mean and follow the values for sure. An embedding must
    differ between rows. Of a generic model, nothing is known.
    """
    if answers.is_embedding:
        return _same_everywhere(answers)
    if rows.labels is None or answers.everything is not None or _follows(answers, rows):
        return None
    said = []
    for metric, chance in _bars(answers, rows):
        evaluation = _evaluated(metric, answers, rows)
        if evaluation is None:
            continue
        ends = own_interval(evaluation)(CONFIDENCE)
        if ends.low > chance:
            return None
        said.append(f"{metric} {ends.value:.3g} ({ends.low:.3g} to {ends.high:.3g}), chance is {chance:.3g}")
    return f"its answers to {len(rows)} rows cannot be told from chance: {'; '.join(said)}"


def _same_everywhere(answers: Answers) -> str | None:
    """Return that an embedding answers every row with the same vector, or None where it does not."""
    size = float(np.abs(answers.numbers).mean())
    if len(answers.numbers) < 2 or spread(answers) > _SAME * size:
        return None
    return f"its vector is the same for all {len(answers.numbers)} rows, so that no row is told from another"


def _bars(answers: Answers, rows: Rows) -> tuple[tuple[Metric, float], ...]:
    """Return metrics with the value that chance reaches; the model must be above one of them."""
    if answers.label_sets is not None:
        return ((Metric.ROC_AUC, 0.5),)
    if answers.predictions is None:
        return ((Metric.R2, 0.0),)
    classes = len(set(spelled(rows.answers)))
    return ((Metric.BALANCED_ACCURACY, 1 / classes), *_curves(answers.predictions, classes))


def _follows(answers: Answers, rows: Rows) -> bool:
    """Return whether answers of a regression err less than the mean and surely rise with the values."""
    return _surely_rises(answers, rows) and evaluate(Metric.R2, answers, rows).value > 0


def _surely_rises(answers: Answers, rows: Rows) -> bool:
    if answers.predictions is not None or answers.label_sets is not None or answers.numbers.shape != rows.answers.shape:
        return False
    order = spearmanr(answers.numbers.ravel(), rows.answers.ravel())
    return bool(order.statistic > 0 and order.pvalue < 1 - CONFIDENCE)


def may_tell_a_quantile(answers: Answers, rows: Rows) -> bool:
    """Return whether answers may be forecasts of a quantile: those (N,) or (N, K) of a regression, of labelled rows.

    They surely rise with the values, and lose less by some quantile (the pinball loss) than the best constant does. So
    may answers that are merely off.
    """
    from sklearn.metrics import mean_pinball_loss

    if answers.is_embedding or rows.labels is None or not _surely_rises(answers, rows):
        return False
    for quantile in _QUANTILES:
        constant = np.broadcast_to(np.quantile(rows.answers, quantile, axis=0), rows.answers.shape)
        losses = [mean_pinball_loss(rows.answers, told, alpha=quantile) for told in (answers.numbers, constant)]
        if losses[0] < losses[1]:
            return True
    return False


def _curves(predictions: Predictions, classes: int) -> tuple[tuple[Metric, float], ...]:
    return ((Metric.ROC_AUC, 0.5),) if predictions.scores is not None and classes <= _MOST_CURVES else ()


def _evaluated(metric: Metric, answers: Answers, rows: Rows) -> Evaluation | None:
    if answers.label_sets is not None and answers.label_sets.scores is None:
        decided = answers.label_sets.decided
        answers = Answers(label_sets=LabelSets(decided, scores=decided.astype(np.float64)))
    try:
        return evaluate(metric, answers, rows)
    except UnfitAnswersError:
        return None
