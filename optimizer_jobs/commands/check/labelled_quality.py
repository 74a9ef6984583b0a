"""The quality of a window with labels, compared with the quality on the reference.

A loss counts only if the interval of the difference proves that there is one, and if the estimate is large enough. The
reference's quality is an estimate too, so the interval includes its uncertainty.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.column_statistics import Kind, contingency, p_value
from optimizer_jobs.commands.check.columns import is_text
from optimizer_jobs.commands.check.independence import thinned
from optimizer_jobs.commands.check.result import unknown
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.answers import Predictions, correct
from optimizer_jobs.measure.bootstrap import resampled
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.metrics.evaluation import Evaluation, mean_of, root_mean_of
from optimizer_jobs.measure.stats import Interval
from retune.api.metrics import WATCHED, Metric
from retune.api.model import Task
from retune.api.monitoring import DriftMethod, Quality
from retune.api.objectives import Objective
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

Array = NDArray[Any]
Floats = NDArray[np.float64]

CONFIDENCE = 0.998
"""Confidence of every interval (0..1): without a loss, one is proven in one window of 1000, as with drift."""
BEYOND = 1e150
"""Size from which an error is none that can be told: the squares of such errors cannot be added up."""
LEAST_REFERENCE = 50
"""Fewest labelled rows of a reference."""
BY_FORMULA = (Metric.ACCURACY, Metric.RMSE, Metric.MAE)
"""Metrics of rows that all count alike, which this module judges."""
_FIRST = {Task.CLASSIFICATION: Metric.ACCURACY, Task.MULTI_LABEL: Metric.F1_MICRO, Task.REGRESSION: Metric.RMSE}
"""What is watched of a task where nothing is named."""
_BIASED = 1e-3
_FEW = 50
"""Most different values of predictions that are compared as categories."""


@dataclass(frozen=True)
class Loss:
    """A loss of quality; positive is worse.

    For accuracy, it is the difference; for an error, the difference divided by the reference's error.
    """

    value: Interval
    """The window's quality."""
    reference: Interval
    """The reference's quality."""
    loss: float
    low: float
    """Low end of the loss's interval."""
    high: float
    """High end of the loss's interval."""


def metric_of(task: Task, quality: Quality, objectives: Sequence[Objective] = ()) -> Metric | None:
    """Return the metric that is watched: as named, else the objectives' first that labels tell, else the task's first.

    None when labels cannot measure the metric that is named, or anything of the task.
    """
    if quality.metric is not None:
        return quality.metric if quality.metric in WATCHED and quality.metric.fits(task) else None
    named = (objective.metric for objective in objectives if objective.metric in WATCHED)
    return next((metric for metric in named if metric.fits(task)), _FIRST.get(task))


def scores(metric: Metric, predicted: Array, labels: Array) -> Floats:
    """Return a score for each row.

    Args:
        metric: Accuracy, MAE or RMSE.
        predicted: Predictions (N,).
        labels: Labels (N,).

    Returns:
        For accuracy 1 or 0 (N,); for an error the absolute or squared errors (M,) of the M rows where it can be told.
    """
    if metric is Metric.ACCURACY:
        return correct(Predictions(labels=predicted), Rows(inputs={}, labels=labels, digest="")).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = predicted.astype(np.float64) - labels.astype(np.float64)
    errors = errors[np.abs(errors) < BEYOND]
    return np.asarray(np.abs(errors) if metric is Metric.MAE else np.square(errors))


def lost(metric: Metric, reference: Floats, current: Floats) -> Loss:
    """Return the loss of quality from the reference to the window.

    Args:
        metric: Accuracy, MAE or RMSE.
        reference: Scores (M,) of the reference, from `scores`.
        current: Scores (N,) of the window in the order of time; they are thinned if they are not independent.
    """
    independent = thinned(pd.Series(current)).to_numpy()
    before = own_interval(_evaluation(metric, reference))(CONFIDENCE)
    now = own_interval(_evaluation(metric, independent))(CONFIDENCE)
    if metric is Metric.ACCURACY:
        return _difference(before, now, exact=float(current.mean()))
    return _ratio(metric, reference, independent, before, now)


def _evaluation(metric: Metric, scores: Floats) -> Evaluation:
    """Return the metric from the scores (N,) that `scores` returns."""
    return root_mean_of(scores) if metric is Metric.RMSE else mean_of(scores, is_share=metric is Metric.ACCURACY)


def judge(
    loss: Loss, metric: Metric, quality: Quality, *, notes: str = "", of: str = "independent labelled rows"
) -> SignalVerdict:
    """Return the verdict on a loss; `notes` are sentences for the end of its message, `of` is what was counted."""
    verdict, reason = _decide(loss, quality)
    shared = "% of the reference's value" if metric.higher_is_better else "% of the reference's error"
    unit = "points" if metric.is_share else shared
    measured = f"{metric} is {loss.value.value:.4g} on {loss.value.samples} {of}"
    span = f"{_percent(loss.low)} to {_percent(loss.high)}; limit {_percent(float(quality.max_degradation))}"
    loss_words = f"a loss of {_percent(loss.loss)} {unit} ({span})"
    message = f"{measured} and {loss.reference.value:.4g} on the reference: {loss_words}.{notes}"
    return SignalVerdict(
        verdict=verdict,
        reason=reason,
        message=printable(message, limit=1000),
        value=f"{loss.value.value:.4g}",
        reference=f"{loss.reference.value:.4g}",
        low=f"{loss.value.low:.4g}",
        high=f"{loss.value.high:.4g}",
        samples=loss.value.samples,
    )


def judge_labels(
    quality: Quality, metric: Metric, *, reference: Floats | None, current: Floats, notes: str = ""
) -> SignalVerdict:
    """Return the verdict on a window's labelled rows; Unknown when the reference or the window has too few.

    Args:
        quality: Quality settings of the spec.
        metric: Accuracy, MAE or RMSE.
        reference: Scores (M,) of the reference; None without a reference.
        current: Scores (N,) of the window in the order of time.
        notes: Sentences for the end of the message.
    """
    if reference is None or len(reference) < LEAST_REFERENCE:
        rows = 0 if reference is None else len(reference)
        return unknown("ReferenceMissing", f"The reference has {rows} labelled rows; {LEAST_REFERENCE} are needed.")
    if len(current) < quality.min_labels:
        words = f"{len(current)} rows have a label; {quality.min_labels} are needed.{notes}"
        return unknown("TooFewLabels", words, samples=len(current))
    return judge(lost(metric, reference, current), metric, quality, notes=notes)


def coverage(labelled: pd.DataFrame, unlabelled: pd.DataFrame) -> str:
    """Return a sentence on how many rows have a label, and on whether they differ from the rows without.

    Args:
        labelled: Columns of predictions for the M rows with a label.
        unlabelled: The same columns for the N rows without.
    """
    rows = len(labelled) + len(unlabelled)
    words = f" {len(labelled) / max(1, rows):.0%} of the {rows} rows have a label"
    if min(len(labelled), len(unlabelled)) < LEAST_REFERENCE:
        return f"{words}."
    p = min((_alike(labelled[name], unlabelled[name]) for name in labelled), default=1.0) * labelled.shape[1]
    if p < _BIASED:
        return f"{words}, and their predictions differ from those without (p {p:.1g}): this may mislead."
    return f"{words}."


def _alike(labelled: pd.Series, unlabelled: pd.Series) -> float:
    """Return the probability of a difference at least as large between two samples (M,) and (N,) of one kind."""
    if is_text(labelled) or labelled.nunique() <= _FEW:
        return contingency(unlabelled, labelled)
    return p_value(unlabelled, labelled, Kind.NUMERIC, DriftMethod.KS)


def _decide(loss: Loss, quality: Quality) -> tuple[Verdict, str]:
    if loss.loss >= float(quality.max_degradation):
        return (Verdict.BREACH, "LossProven") if loss.low > 0 else (Verdict.BETWEEN, "LossNotProven")
    if loss.loss <= float(quality.clear_degradation):
        return Verdict.CLEAR, "LossSmall"
    return Verdict.BETWEEN, "LossBetween"


def _difference(before: Interval, now: Interval, *, exact: float) -> Loss:
    """Return the loss of a share, with R. Newcombe's interval (1998), which combines both Wilson intervals.

    Args:
        before: Share on the reference.
        now: Share on the window's independent rows.
        exact: Share on all rows of the window.
    """
    shown = Interval(exact, min(now.low, exact), max(now.high, exact), now.samples)
    loss = before.value - exact
    low = loss - math.hypot(before.value - before.low, now.high - now.value)
    high = loss + math.hypot(before.high - before.value, now.value - now.low)
    return Loss(shown, before, loss, low, high)


def _ratio(metric: Metric, reference: Floats, current: Floats, before: Interval, now: Interval) -> Loss:
    base = max(before.value, 1e-12)
    # Both bootstraps use the same seed, so the order of one is reversed: draws must not depend on each other.
    drawn, drawn_before = (resampled(_evaluation(metric, scores)).draws for scores in (current, reference))
    draws = drawn / np.maximum(drawn_before[::-1], 1e-12) - 1
    low, high = np.quantile(draws, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    loss = now.value / base - 1
    return Loss(now, before, loss, min(float(low), loss), max(float(high), loss))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"
