"""Accuracy that is estimated from the model's own confidence while there are no labels: a hint, never a proof.

When inputs change, the mean confidence usually follows the accuracy. It cannot show that the meaning of equal inputs
has changed. On the reference, both are known, so the amount by which confidence exceeds accuracy there is subtracted.
Some models are the more confident the farther a row lies from all others, and then the estimate is too good. So if
inputs have drifted, an estimate without a loss does not count.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.independence import thinned
from optimizer_jobs.commands.check.labelled_quality import CONFIDENCE, Loss, judge
from optimizer_jobs.measure.bootstrap import resampled
from optimizer_jobs.measure.metrics.evaluation import mean_of
from optimizer_jobs.measure.stats import Interval, wilson
from retune.api.metrics import Metric
from retune.api.monitoring import Quality
from retune.contract.results import SignalVerdict

Floats = NDArray[np.float64]

_LEAST_ROWS = 50
_LEVELS = [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]


def judge_confidence(
    quality: Quality, *, reference_confidence: Floats, reference_right: Floats, confidence: Floats
) -> SignalVerdict | None:
    """Return the verdict on an estimated accuracy, or None when there are too few rows for an estimate.

    Args:
        quality: Quality settings of the spec.
        reference_confidence: Confidence (M,) of the model in its answers to the reference.
        reference_right: 1 or 0 (M,), whether these answers are right.
        confidence: Confidence (N,) of the model in the window, in the order of time.
    """
    finite = np.isfinite(reference_confidence)
    current = thinned(pd.Series(confidence[np.isfinite(confidence)])).to_numpy()
    if min(int(finite.sum()), len(current)) < _LEAST_ROWS:
        return None
    loss = _estimated(reference_confidence[finite], reference_right[finite], current)
    verdict = judge(loss, Metric.ACCURACY, quality, notes=" Estimated from the model's confidence: no labels yet.")
    message = verdict.message.replace("labelled rows", "rows", 1)
    return verdict.model_copy(update={"estimated": True, "message": message})


def _estimated(reference: Floats, right: Floats, current: Floats) -> Loss:
    """Return the loss of mean confidence (M,) to (N,); it equals the loss of accuracy if the excess stays the same."""
    before = wilson(int(right.sum()), len(right), confidence=CONFIDENCE)
    now, then = resampled(mean_of(current)), resampled(mean_of(reference))
    excess = then.value - before.value
    change = now.value - then.value
    low, high = np.quantile(now.draws - then.draws[::-1], _LEVELS)
    low, high = min(float(low), change), max(float(high), change)
    estimate = float(np.clip(now.value - excess, 0.0, 1.0))
    above = math.hypot(high - change, before.high - before.value)
    below = math.hypot(change - low, before.value - before.low)
    value = Interval(estimate, max(0.0, estimate - below), min(1.0, estimate + above), len(current))
    return Loss(value, before, -change, -high, -low)
