"""The quality of a window by any metric that labels tell, with the weights and groups of the rows.

The window's rows are thinned to nearly independent ones, both intervals are those of the judge, and a loss is proven
where they say so (MOVER, G. Zou and A. Donner, 2008). Where a metric has no value or no interval, nothing is said.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check.independence import stride
from optimizer_jobs.commands.check.labelled_quality import CONFIDENCE, LEAST_REFERENCE, Loss, judge
from optimizer_jobs.commands.check.result import NOT_MEASURABLE, unknown
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Floats, answers_of, correct
from optimizer_jobs.measure.intervals import own_interval
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.labels import Truth
from optimizer_jobs.production.windows import Captured
from retune.api.metrics import RANKING, Metric
from retune.api.monitoring import Quality
from retune.contract.results import SignalVerdict


@dataclass(frozen=True)
class Answered:
    """Captured rows with what is known of them, as a metric takes them."""

    answers: Answers
    rows: Rows

    @classmethod
    def of(cls, captured: Captured, truth: Truth, manifest: Manifest, yardstick: Yardstick) -> "Answered":
        """Return captured rows with their labels; raises UnfitAnswersError where the answers cannot be read."""
        answers = answers_of(
            captured.outputs,
            rows=len(captured),
            task=manifest.task,
            classes=manifest.classes or None,
            reading=manifest.signature.reading,
            keep_outputs=yardstick.reads_outputs,
        )
        groups = None if truth.groups is None else _numbered(truth.groups)
        rows = Rows(captured.inputs, truth.labels, digest="", groups=groups, weights=truth.weights)
        return cls(answers, rows)

    def take(self, indices: np.ndarray) -> "Answered":
        """Return the rows at `indices`: integers (M,) or a mask (N,)."""
        return Answered(self.answers.take(indices), self.rows.take(indices))


@dataclass(frozen=True)
class Watched:
    """What is watched, and by which settings."""

    metric: Metric
    quality: Quality
    manifest: Manifest
    yardstick: Yardstick

    def verdict(
        self, reference: tuple[Captured, Truth], window: tuple[Captured, Truth], *, notes: str
    ) -> SignalVerdict:
        """Return the verdict on a window's labelled rows; Unknown with the reason where nothing can be said.

        Args:
            reference: Labelled rows of the reference.
            window: Labelled rows of the window in the order of time.
            notes: Sentences for the end of the message.
        """
        known = len(window[0])
        refusal = self._refusal(reference[1], window[1], rows=known, notes=notes)
        if refusal is not None:
            return refusal
        try:
            before = self._evaluated(Answered.of(*reference, self.manifest, self.yardstick))
            answered = Answered.of(*window, self.manifest, self.yardstick)
            now = self._evaluated(self._independent(answered))
            loss = loss_of(self.metric, *(own_interval(evaluation)(CONFIDENCE) for evaluation in (before, now)))
        except UnfitAnswersError as error:
            return unknown(NOT_MEASURABLE, f"{self.metric} cannot be measured: {error}.{notes}", samples=known)
        if loss is None:
            words = f"{self.metric} has no interval on {known} labelled rows and the reference's.{notes}"
            return unknown(NOT_MEASURABLE, words, samples=known)
        of = "groups" if self.metric in RANKING else "independent labelled rows"
        return judge(loss, self.metric, self.quality, notes=notes, of=of)

    def _refusal(self, reference: Truth, window: Truth, *, rows: int, notes: str) -> SignalVerdict | None:
        if len(reference.labels) < LEAST_REFERENCE:
            words = f"The reference has {len(reference.labels)} labelled rows; {LEAST_REFERENCE} are needed."
            return unknown("ReferenceMissing", words)
        effective = Rows({"row": np.zeros(rows)}, None, digest="", weights=window.weights).effective if rows else 0
        if effective < self.quality.min_labels:
            counted = "rows have a label" if window.weights is None else "rows, by their weights, have a label"
            words = f"{effective} {counted}; {self.quality.min_labels} are needed.{notes}"
            return unknown("TooFewLabels", words, samples=rows)
        if (reference.weights is None) != (window.weights is None):
            which, lacking = ("labels", "reference") if reference.weights is None else ("reference", "labels")
            words = (
                f"Rows of the {which} have weights and those of the {lacking} have none: name both columns, "
                "data.*.weightColumn and production.labels.weightColumn."
            )
            return unknown(NOT_MEASURABLE, words, samples=rows)
        return None

    def _evaluated(self, answered: Answered) -> Evaluation:
        return evaluate(self.metric, answered.answers, answered.rows, yardstick=self.yardstick)

    def _independent(self, answered: Answered) -> Answered:
        """Return every k-th row, or every k-th group of a ranking metric, so that they are nearly independent."""
        if self.metric in RANKING and answered.rows.groups is not None:
            apart = stride(pd.Series(self._evaluated(answered).scores))
            return answered.take(answered.rows.groups % apart == 0)
        apart = stride(pd.Series(in_time(answered)))
        return answered.take(np.arange(0, len(answered.rows), apart))


def in_time(answered: Answered) -> Floats:
    """Return a number (N,) of each row that shows how good its answer is, and how rows resemble those before them."""
    answers, rows = answered.answers, replace(answered.rows, groups=None, weights=None)
    if answers.predictions is not None:
        return correct(answers.predictions, rows).astype(np.float64)
    if (sets := answers.label_sets) is not None:
        alike = sets.decided == rows.answers if sets.decided.shape == rows.answers.shape else sets.decided
        return np.asarray(alike.mean(axis=1))
    if answers.values is None:
        return _mean_output(answers.outputs, len(rows))
    if rows.answers.dtype.kind in "biuf" and rows.answers.shape == answers.numbers.shape:
        errors = np.abs(answers.numbers - rows.answers)
        return errors if errors.ndim == 1 else np.asarray(errors.mean(axis=1))
    return np.asarray(answers.numbers.reshape(len(rows), -1).mean(axis=1))


def _mean_output(outputs: Mapping[str, np.ndarray], rows: int) -> Floats:
    """Return the mean (N,) of all numbers that a generic model answers to a row; what is not finite counts as 0."""
    numeric = [values.reshape(rows, -1) for values in outputs.values() if values.dtype.kind in "biuf" and values.size]
    if not numeric:
        return np.zeros(rows)
    table = np.concatenate(numeric, axis=1).astype(np.float64)
    return np.asarray(np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0).mean(axis=1))


def _numbered(groups: np.ndarray) -> np.ndarray:
    """Return groups (N,) as numbers in the order in which they first come."""
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[codes])


def loss_of(metric: Metric, before: Interval, now: Interval) -> Loss | None:
    """Return the loss from the reference to the window; None where an end, or the reference's value, is missing."""
    ends = (before.low, before.high, now.low, now.high)
    if not np.isfinite(ends).all() or (not metric.is_share and before.value <= 0):
        return None
    base = 1.0 if metric.is_share else before.value
    better, worse = (before, now) if metric.higher_is_better else (now, before)
    loss = better.value - worse.value
    low = loss - math.hypot(better.value - better.low, worse.high - worse.value)
    high = loss + math.hypot(better.high - better.value, worse.value - worse.low)
    return Loss(now, before, loss / base, low / base, high / base)
