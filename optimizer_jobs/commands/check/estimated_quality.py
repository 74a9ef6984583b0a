"""Quality of a classifier's window that is estimated while there are no labels: a hint with an interval, never a proof.

It is silent where the reference does not speak for the window's rows: too many of them lie where it has none, or too
few of its rows resemble them. It cannot see that the meaning of equal inputs has changed, so it raises no signal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from optimizer_jobs.commands.check import result
from optimizer_jobs.commands.check.independence import stride
from optimizer_jobs.commands.check.labelled_quality import judge
from optimizer_jobs.commands.check.watched_quality import loss_of
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Array, Floats, Predictions, correct, spelled
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.unlabelled.calibration import Classes
from optimizer_jobs.measure.unlabelled.estimate import DRAWS, Answered, Basis, Estimate, basis_of, estimated
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from retune.api.metrics import CUSTOM, RANKING, Metric
from retune.api.monitoring import Quality
from retune.contract.results import SignalVerdict

LEVEL = 0.95
"""Confidence of every interval: what is no proof need not be as strict as what is measured."""
MOST_OUTSIDE = 0.2
"""Largest share of a window's rows outside the reference."""
LEAST_EFFECTIVE = 30
"""Fewest rows of the reference, by their weights, that resemble the window."""
LEAST_REFERENCE = 100
"""Fewest labelled rows of the reference."""
_LEAST_ROWS = 50
_MOST_ROWS = 3000
"""Most rows of either side, so that the time is bounded; of more, a random part is used."""
_BELOW_ZERO = frozenset({Metric.MATTHEWS, Metric.D2_BRIER, Metric.D2_LOG_LOSS})


@dataclass(frozen=True)
class Seen:
    """Rows with a classifier's answers."""

    inputs: pd.DataFrame
    answers: Answers

    def take(self, places: Classes) -> "Seen":
        """Return the rows at these places."""
        return Seen(self.inputs.iloc[places].reset_index(drop=True), self.answers.take(places))

    def answered(self) -> Answered | None:
        """Return the answers as numbers of classes with probabilities; None where the model has none."""
        predictions = self.answers.predictions
        shares = None if predictions is None else _shares(predictions)
        if predictions is None or shares is None or not predictions.classes:
            return None
        return Answered(self.inputs, shares, _columns(predictions.labels, predictions.classes))


@dataclass(frozen=True)
class Unlabelled:
    """What is watched where there are no labels, and by which settings."""

    metric: Metric
    quality: Quality
    yardstick: Yardstick = PLAIN
    seed: int = 0
    """Seed of all drawings."""

    def verdict(self, reference: Seen, labels: Array, window: Seen) -> SignalVerdict | None:
        """Return the verdict on the metric without labels, or None where there is nothing to estimate it by.

        Args:
            reference: M rows of the reference with labels.
            labels: Their labels (M,).
            window: N rows of the window in the order of time.
        """
        known = _some(len(labels), self.seed)
        reference, labels = reference.take(known), labels[known]
        window = _independent(window, self.seed)
        before, now = reference.answered(), window.answered()
        if before is None or now is None or min(len(labels), len(now.answered)) < _LEAST_ROWS:
            return None
        refusal = _meaningless(self.metric, rows=len(labels), window=len(now.answered))
        if refusal is not None:
            return refusal
        basis = basis_of(before, now, seed=self.seed)
        far = _far(basis, rows=len(labels))
        if far is not None:
            return far
        try:
            usual = self._usual(reference, labels)
            found = self._estimate(reference, labels, window, basis)
        except UnfitAnswersError as error:
            return untrusted("NotEstimable", f"{self.metric} cannot be estimated: {error}.", samples=len(now.answered))
        return self._told(usual, found, basis)

    def measured(self, rows: Seen, labels: Array) -> float:
        """Return the metric on rows with labels (N,); raises UnfitAnswersError where they do not define it."""
        return evaluate(self.metric, rows.answers, _rows(labels), yardstick=self.yardstick).value

    def _usual(self, reference: Seen, labels: Array) -> Interval:
        """Return the metric on the reference."""
        evaluation = evaluate(self.metric, reference.answers, _rows(labels), yardstick=self.yardstick)
        return own_interval(evaluation)(LEVEL)

    def _estimate(self, reference: Seen, labels: Array, window: Seen, basis: Basis) -> Estimate:
        """Return the metric on the window."""
        before, now, predictions = reference.answered(), window.answered(), reference.answers.predictions
        if before is None or now is None or predictions is None:
            raise UnfitAnswersError("the model answers no probabilities")
        right = correct(predictions, _rows(labels)).astype(np.float64)
        measure = _measure(self.metric, window.answers, self.yardstick)
        return estimated(before, right, now, basis, measure, seed=self.seed)

    def _told(self, usual: Interval, found: Estimate, basis: Basis) -> SignalVerdict:
        count, outside = len(basis.support.outside), basis.support.share_outside
        shown = _interval(self.metric, found, count)
        loss = loss_of(self.metric, usual, shown)
        if loss is None:
            return untrusted("NotEstimable", f"{self.metric} has no interval without labels.", samples=count)
        notes = f" Estimated without labels: 95 % between {shown.low:.4g} and {shown.high:.4g}, {_share(outside)}."
        judged = judge(loss, self.metric, self.quality, notes=notes, of="rows")
        ends = {"low": f"{shown.low:.4g}", "high": f"{shown.high:.4g}"}
        return judged.model_copy(update={**ends, "outside": f"{outside:.4g}", "estimated": True})


def _meaningless(metric: Metric, *, rows: int, window: int) -> SignalVerdict | None:
    if metric in RANKING or metric in CUSTOM:
        return untrusted("NotEstimable", f"{metric} cannot be estimated from probabilities.", samples=window)
    if rows < LEAST_REFERENCE:
        words = f"The reference has {rows} labelled rows; an estimate needs {LEAST_REFERENCE}."
        return untrusted("ReferenceTooSmall", words, samples=window)
    return None


def _far(basis: Basis, *, rows: int) -> SignalVerdict | None:
    """Return that nothing is known of such rows; None where the reference speaks for them."""
    outside, count = basis.support.share_outside, len(basis.support.outside)
    if outside > MOST_OUTSIDE:
        words = f"{_share(outside)} (limit {MOST_OUTSIDE:.0%}): the model's confidence says nothing of such rows."
        return untrusted("OutsideReference", words, samples=count, outside=outside)
    effective = basis.density.effective
    if effective < LEAST_EFFECTIVE:
        words = (
            f"Of {rows} rows of the reference, no more than {effective:.0f} resemble the window's "
            f"({LEAST_EFFECTIVE} are needed); {_share(outside)}."
        )
        return untrusted("UnlikeReference", words, samples=count, outside=outside)
    return None


def _share(outside: float) -> str:
    return f"{100 * outside:.3g} % of the rows lie where the reference has none"


def untrusted(reason: str, words: str, *, samples: int, outside: float | None = None) -> SignalVerdict:
    """Return that no estimate is to be trusted, and why."""
    verdict = result.untrusted(reason, f"Quality is not estimated. {words}", samples=samples)
    share = None if outside is None else f"{outside:.4g}"
    return verdict.model_copy(update={"estimated": True, "outside": share})


def _measure(metric: Metric, answers: Answers, yardstick: Yardstick) -> Callable[[Classes], float]:
    """Return the metric of the window's answers as a function of the classes (N,) that are taken for true."""
    predictions = answers.predictions
    names = np.asarray(predictions.classes if predictions else ())

    def measured(classes: Classes) -> float:
        try:
            return evaluate(metric, answers, _rows(names[classes]), yardstick=yardstick).value
        except UnfitAnswersError:
            return float("nan")

    return measured


def _rows(labels: Array) -> Rows:
    return Rows({"row": np.zeros(len(labels))}, labels, digest="")


def _interval(metric: Metric, found: Estimate, rows: int) -> Interval:
    """Return the interval of an estimate, within the metric's range."""
    quantile = float(t.ppf(0.5 + LEVEL / 2, DRAWS - 1))
    low, high = found.value - quantile * found.deviation, found.value + quantile * found.deviation
    low = low if metric in _BELOW_ZERO else max(0.0, low)
    return Interval(found.value, low, min(1.0, high) if metric.is_share else high, rows)


def _independent(window: Seen, seed: int) -> Seen:
    """Return rows that are nearly independent, and no more than are needed."""
    answered = window.answered()
    if answered is not None and len(answered.answered):
        window = window.take(np.arange(0, len(answered.answered), stride(pd.Series(answered.confidence))))
    return window.take(_some(len(window.inputs), seed))


def _some(rows: int, seed: int) -> Classes:
    """Return the places of at most _MOST_ROWS rows, in their order."""
    if rows <= _MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_ROWS])


def _shares(predictions: Predictions) -> Floats | None:
    """Return probabilities (N, C), those of unscaled scores by softmax; None for labels alone."""
    if predictions.probabilities is not None:
        return predictions.probabilities
    if predictions.scores is None or predictions.scores.shape[1] < 2:
        return None
    scores = np.asarray(predictions.scores, dtype=np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _columns(labels: Array, classes: tuple[object, ...]) -> Classes:
    """Return the number (N,) of the class that each row is answered with; 0 for one that the model does not have."""
    numbers = {name: place for place, name in enumerate(spelled(np.asarray(classes)).tolist())}
    return np.asarray([numbers.get(label, 0) for label in spelled(labels).tolist()], dtype=np.int64)
