"""Recalibrate an ONNX file: fit a correction on the validation rows, and write it where it keeps its promise.

The validation rows are those that a search compares candidates on. The judge never uses them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.recalibration.corrections import (
    Columns,
    Evidence,
    Floats,
    Method,
    UnfitRowsError,
    fit_of,
    log_scores,
)
from optimizer_jobs.machinery.recalibration.graph import Outputs, correct
from optimizer_jobs.machinery.recalibration.promise import promise
from optimizer_jobs.measure.answers import outputs_of, spelled
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Scale, Signature
from optimizer_jobs.technique import Applied, Context, Skipped, Subject
from retune.api.model import Task

Array = NDArray[Any]

_MOST_NUMBERS = 4_000_000
"""Rows times classes that are fitted on, at most."""
_BATCH, _TWO = 256, 2
_TIE = 1e-4
"""Difference of the two largest scores up to which rounding may decide which class comes first."""
_NOT_FOR: Mapping[Task, str] = {
    Task.REGRESSION: "a regression answers numbers, and no probabilities that could be corrected",
    Task.EMBEDDING: "an embedding answers no probabilities that could be corrected",
    Task.GENERIC: "nothing says that a generic model answers probabilities that could be corrected",
    Task.MULTI_LABEL: "probabilities are corrected where a row has one label, and here it has several",
}


def unavailable(subject: Subject) -> str | None:
    """Return why the probabilities of this model cannot be corrected, in words, or None."""
    if subject.task in _NOT_FOR:
        return _NOT_FOR[subject.task]
    signature = subject.signature
    scores = signature.score_output
    if scores is None:
        return "the model answers labels without scores, so there are no probabilities to correct"
    if signature.score_scale is None:
        return "nothing says whether the scores are probabilities or logits: set model.outputs.scale"
    if len(scores.shape) > _TWO or signature.output_axes[scores.name] != 0:
        return f"output {scores.words} does not have the scores of a row in a line"
    return None


def has_two_classes(signature: Signature) -> bool:
    """Return whether a classifier may have two classes, as far as its outputs say."""
    scores = signature.score_output
    return scores is not None and (len(scores.shape) == 1 or scores.shape[1] in {-1, 1, _TWO})


def recalibrate(model: Path, method: Method, context: Context) -> Applied | Skipped:
    """Write the file with corrected probabilities; skipped where rows that are left out do not gain.

    Args:
        model: The ONNX file.
        method: How probabilities are corrected.
        context: The validation rows, and where the new file goes.
    """
    try:
        return _recalibrated(model, method, context)
    except UnfitRowsError as reason:
        return Skipped(reason=str(reason))


def _recalibrated(model: Path, method: Method, context: Context) -> Applied | Skipped:
    rows = context.validation
    if rows is None or rows.labels is None:
        raise UnfitRowsError("there are no labelled rows for validation")
    answered = _Answered(model, context, _some(rows, context))
    context.check_time()
    evidence = answered.evidence()
    fit = fit_of(method, evidence, before=_shares(context, answered.classes))
    kept = promise(evidence, fit, seed=context.seed)
    context.check_time()
    correction = fit(evidence)
    if not kept.is_kept:
        return Skipped(reason=f"{correction.words} gains nothing that is more than chance: {kept.words}")
    outputs = answered.outputs(relabel=correction.moves_labels)
    corrected = correct(onnx.load(model), outputs, correction)
    target = context.workdir / "model.onnx"
    target.write_bytes(corrected.SerializeToString(deterministic=True))
    return Applied(model=target, summary=f"{correction.words}, {kept.words}")


def _some(rows: Rows, context: Context) -> Rows:
    """Return the rows, or as many of them, drawn by the seed, as can be fitted on in seconds."""
    scores = context.signature.score_output
    most = _MOST_NUMBERS // (scores.row_size if scores is not None else 1)
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(np.random.default_rng(context.seed).permutation(len(rows))[:most]))


def _shares(context: Context, classes: tuple[int | str, ...]) -> Floats | None:
    """Return how frequent classes are in the training rows (C,); None without labelled training rows."""
    rows = context.training
    if rows is None or rows.labels is None:
        return None
    columns = _columns(rows.labels, classes)
    known = columns >= 0
    weights = np.ones(len(rows)) if rows.weights is None else rows.weights
    counts = np.bincount(columns[known], weights=weights[known], minlength=len(classes))
    return np.asarray(counts / max(counts.sum(), 1))


def _columns(labels: Array, classes: tuple[int | str, ...]) -> Columns:
    """Return the column (N,) of each label, -1 for one that is no class."""
    names = {str(name): column for column, name in enumerate(spelled(np.asarray(classes)))}
    return np.asarray([names.get(str(name), -1) for name in spelled(labels)], dtype=np.int64)


class _Answered:
    """What a model answers to rows."""

    def __init__(self, model: Path, context: Context, rows: Rows) -> None:
        signature = context.signature
        scores, label = signature.score_output, signature.label_output
        if scores is None:
            raise UnfitRowsError("the model answers no scores")
        batch = 1 if signature.reading is not None and signature.reading.singly else _BATCH
        session = open_model(model, EngineOptions(threads=context.threads, spinning=False))
        answers = outputs_of(session, rows, batch, only={scores.name, label.name if label else None})
        self._names, self._rows = (scores.name, label.name if label else None), rows
        self._label, self._axes = answers[label.name] if label else None, answers[scores.name].ndim
        self._table: Floats = answers[scores.name].astype(np.float64).reshape(len(rows), -1)
        self._are_logits = signature.score_scale is Scale.LOGITS
        self._named = context.classes
        self._logs = log_scores(self._table, are_logits=self._are_logits)
        if not np.isfinite(self._logs).all():
            raise UnfitRowsError("some rows for validation have scores without a value")

    @property
    def classes(self) -> tuple[int | str, ...]:
        """The label of each class."""
        return self._named or tuple(range(self._logs.shape[1]))

    def evidence(self) -> Evidence:
        """Return the rows whose label is one of the classes, as evidence; raises UnfitRowsError where there is none."""
        columns = _columns(self._rows.answers, self.classes)
        known, number = columns >= 0, np.arange(len(columns))
        weights = np.ones(len(columns)) if self._rows.weights is None else self._rows.weights
        groups = self._rows.groups
        blocks = number if groups is None else np.unique(groups, return_inverse=True)[1]
        if not weights[known].any():
            raise UnfitRowsError("no row for validation has a label that is one of the classes")
        return Evidence(self._logs, columns, weights, np.asarray(blocks, dtype=np.int64)).take(known)

    def outputs(self, *, relabel: bool) -> Outputs:
        """Return what is corrected; raises UnfitRowsError where the label cannot follow."""
        scores, label = self._names
        if relabel and label is not None:
            self._check_label()
        return Outputs(
            scores=scores,
            are_logits=self._are_logits,
            width=self._table.shape[1],
            axes=self._axes,
            label=label if relabel else None,
            label_axes=1 if self._label is None else self._label.ndim,
            classes=self._named,
        )

    def _check_label(self) -> None:
        """Refuse a label that is not the class of the largest score, where rounding does not decide."""
        if self._label is None:
            return
        first, second = np.sort(self._logs, axis=1)[:, :-3:-1].T
        own = _columns(self._label.reshape(len(self._rows)), self.classes)
        if ((own != self._logs.argmax(axis=1)) & (first - second > _TIE)).any():
            raise UnfitRowsError("the model's label is not the class of its largest score, so that it could not follow")
