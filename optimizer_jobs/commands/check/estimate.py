"""Accuracy without labels, from the model's own confidence: a hint for whoever waits for labels, never a proof.

Mean confidence follows the accuracy when inputs change; that the world changed behind equal inputs, it cannot see. It
is held against the reference, where both are known: what confidence promised there too much is taken off here. A
model that is the surer the farther a row lies from all others is estimated too well, so that where inputs have drifted
an estimate without loss counts for nothing.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.independence import thinned
from optimizer_jobs.commands.check.quality import CONFIDENCE, Loss, judge
from optimizer_jobs.measure.bootstrap import resampled
from optimizer_jobs.measure.stats import Interval, wilson
from retune.api.monitoring import Quality
from retune.api.objectives import Metric
from retune.contract.results import SignalVerdict

Floats = NDArray[np.float64]

_LEAST_ROWS = 50
_LEVELS = [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]


def judge_confidence(
    quality: Quality, *, reference_confidence: Floats, reference_right: Floats, confidence: Floats
) -> SignalVerdict | None:
    """Return the verdict on an estimated accuracy, or None where there are too few rows for one.

    Args:
        quality: When a loss counts.
        reference_confidence: (M,) the model's confidence in its answers to the reference.
        reference_right: (M,) 1 where they are right, else 0.
        confidence: (N,) its confidence in the window, in the order of time.
    """
    whole = np.isfinite(reference_confidence)
    known = confidence[np.isfinite(confidence)]
    current = thinned(pd.Series(known)).to_numpy()
    if min(int(whole.sum()), len(current)) < _LEAST_ROWS:
        return None
    loss = _estimated(reference_confidence[whole], reference_right[whole], current)
    found = judge(loss, Metric.ACCURACY, quality, notes=" Estimated from the model's confidence: no labels yet.")
    message = found.message.replace("labelled rows", "rows", 1)
    return found.model_copy(update={"estimated": True, "message": message})


def _estimated(reference: Floats, right: Floats, current: Floats) -> Loss:
    """Return the loss of mean confidence, which is that of accuracy if confidence is wrong by as much as it was."""
    before = wilson(int(right.sum()), len(right), confidence=CONFIDENCE)
    now, then = resampled(current), resampled(reference)
    promised = then.value - before.value
    low, high = np.quantile(now.draws - then.draws[::-1], _LEVELS)
    change = now.value - then.value
    low, high = min(float(low), change), max(float(high), change)
    estimate = float(np.clip(now.value - promised, 0.0, 1.0))
    spread = math.hypot(high - change, before.high - before.value), math.hypot(change - low, before.value - before.low)
    value = Interval(estimate, max(0.0, estimate - spread[1]), min(1.0, estimate + spread[0]), len(current))
    return Loss(value, before, -change, -high, -low)
