"""The verdict on a window's quality: from labels if there are any, or else estimated from the model's confidence."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check import labelled_quality, result
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.estimated_quality import Seen, Unlabelled, untrusted
from optimizer_jobs.commands.check.guard import FAILED, guarded
from optimizer_jobs.commands.check.result import NOT_MEASURABLE, unknown
from optimizer_jobs.commands.check.selection import Selection, selection_of
from optimizer_jobs.commands.check.sources import answers, tables
from optimizer_jobs.measure.answers import Answers, answers_of
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import PREDICTION, is_wide
from optimizer_jobs.production.labels import OTHERS, Truth, join
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.monitoring import Quality
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

_LABELS = 2_000_000
_TOLD = frozenset({NOT_MEASURABLE, FAILED})
"""Reasons why labels do not tell the quality that an estimate must not hide."""


@dataclass(frozen=True)
class Labelled:
    """Rows of the newest window whose labels are due."""

    rows: Captured
    """All rows of the window."""
    known: Captured
    """The M rows that have a label."""
    truth: Truth
    """What is known of the rows in `known`."""
    set_aside: Mapping[str, int]
    """How many labels or files were not used, by reason."""

    def until(self, end: int) -> "Labelled":
        """Return what is of before a moment, in seconds since 1970."""
        rows, known = (part.times < np.datetime64(end, "s") for part in (self.rows, self.known))
        return Labelled(self.rows.take(rows), self.known.take(known), self.truth.take(known), self.set_aside)

    @property
    def count(self) -> int:
        """How many rows of the window have a label, as far as those tell that were drawn from it."""
        return round(len(self.known) / max(1, len(self.rows)) * self.rows.seen)


def labelled_of(check: Check, current: Captured) -> Labelled | None:
    """Return the rows of the newest window whose labels are due, or None when there is no such window.

    Args:
        check: The check.
        current: Rows of the window that is checked, which may be the same window.

    Raises:
        JobError: The folder of labels cannot be listed, or its server cannot be read.
    """
    window, labels = check.request.labelled, check.production.labels
    if window is None or labels is None:
        return None
    return labelled_among(check, current if window == check.request.window else check.rows(window), folder="labels")


def labelled_among(check: Check, rows: Captured, *, folder: str) -> Labelled:
    """Return rows of the champion with the labels that are known by now.

    Args:
        check: The check.
        rows: Captured rows.
        folder: Name of a folder for private copies.

    Raises:
        JobError: The folder of labels cannot be listed, or its server cannot be read.
    """
    labels = check.production.labels
    if labels is None:
        raise ValueError("no labels are given")
    return Labelled(rows, *join(rows, labels, into=check.scratch / folder, limit=_LABELS))


def judge_quality(
    check: Check,
    reference: Reference | None,
    current: Captured,
    labelled: Labelled | None,
    *,
    drifted: bool,
    notes: str = "",
) -> dict[str, Any]:
    """Return the fields `quality`, `labelled_window` and `labelled_rows` of the result.

    The quality is that of the newest labelled window, or else an estimate for the window that is checked.

    Args:
        check: The check.
        reference: The reference, if there is one.
        current: Rows of the window that is checked.
        labelled: Rows of the newest window whose labels are due, if there is one.
        drifted: Whether the inputs of the window have drifted.
        notes: Sentences about the labels that are added to the message of a labelled window.
    """
    settings = check.request.quality or Quality()
    metric = labelled_quality.metric_of(check.manifest.task, settings, check.request.objectives)
    if metric is None:
        words = f"Labels say nothing about {settings.metric or 'the quality'} of a model of task {check.manifest.task}."
        return {"quality": unknown(NOT_MEASURABLE, words)}
    window = check.request.labelled
    measured = None if labelled is None else _tried(check, labelled, metric, reference, notes=notes)
    if measured is None or (measured.verdict is Verdict.UNKNOWN and measured.reason not in _TOLD):
        estimated = guarded(
            partial(_estimated, check, metric, reference, current),
            lambda words: untrusted(FAILED, f"{words}.", samples=len(current)),
            what="The estimate broke",
        )
        if estimated is not None and drifted and estimated.verdict is Verdict.CLEAR:
            estimated = estimated.model_copy(update={"verdict": Verdict.BETWEEN, "reason": "EstimateUncertain"})
        measured = estimated or measured or unknown("NoLabels", "No window with labels is due, and none is estimated.")
    say(f"  {measured.verdict}: {measured.message}")
    return {
        "quality": measured,
        "labelled_window": None if window is None else window.index,
        "labelled_rows": None if labelled is None else labelled.count,
    }


def _tried(
    check: Check, labelled: Labelled, metric: Metric, reference: Reference | None, *, notes: str
) -> SignalVerdict:
    """Return what `_measured` does; where it breaks, that it is not known and why."""
    return guarded(
        partial(_measured, check, labelled, metric, reference, notes=notes),
        lambda words: unknown(FAILED, f"{words}.{notes}", samples=len(labelled.known)),
        what=f"{metric} could not be measured",
    )


def _measured(
    check: Check, labelled: Labelled, metric: Metric, reference: Reference | None, *, notes: str
) -> SignalVerdict:
    manifest, settings = check.manifest, check.request.quality or Quality()
    skipped = "".join(f" {count} {why}." for why, count in sorted(labelled.set_aside.items())[:2])
    notes = notes + _coverage(manifest, labelled.rows, labelled.known) + skipped
    others = labelled.set_aside.get(OTHERS, 0)
    if manifest.task is Task.MULTI_LABEL and others:
        words = (
            f"{others} labels have another form than most; each is a zero or one for every label of the model.{notes}"
        )
        return unknown(NOT_MEASURABLE, words, samples=len(labelled.known))
    selection, broken = _selection(check, labelled)
    notes = notes + broken
    if selection is not None:
        notes = notes + selection.words
        if selection.wild:
            words = f"The labels are not representative of the window, so nothing is judged by them.{notes}"
            return result.untrusted("LabelsNotRepresentative", words, samples=len(labelled.known))
        reference, labelled = _weighted(reference, labelled, selection.weights)
    if not _by_formula(manifest.task, metric, reference, labelled):
        from optimizer_jobs.commands.check.watched_quality import Watched  # brings scikit-learn, which few windows need

        watched = Watched(metric, settings, manifest, Yardstick.of(check.request))
        return watched.verdict(_before(reference, labelled), (labelled.known, labelled.truth), notes=notes)
    before = None if reference is None else _reference_scores(manifest, metric, reference)
    now = _scores(manifest, metric, labelled.known, labelled.truth.labels)
    return labelled_quality.judge_labels(
        settings,
        metric,
        reference=before,
        current=np.zeros(0) if now is None else now,
        notes=notes,
    )


def _selection(check: Check, labelled: Labelled) -> tuple[Selection | None, str]:
    """Return how labelled rows speak for their window, by the inputs that are few enough and by the answers.

    Where that cannot be told, they count as they are, and the sentence beside it says why.
    """
    rows, manifest = labelled.rows, check.manifest
    narrow = [spec for spec in manifest.signature.inputs if not is_wide(rows.inputs[spec.name])]
    table, known = answers(rows, manifest, narrow), _with_label(rows, labelled.known)
    return guarded(
        lambda: (selection_of(table, known, seed=check.request.seed), ""),
        lambda words: (None, f" {words}."),
        what="Whether labelled rows are like the others could not be judged",
    )


def _weighted(
    reference: Reference | None, labelled: Labelled, weights: NDArray[np.float64]
) -> tuple[Reference | None, Labelled]:
    """Return both with weights: those of labelled rows multiplied by these (M,)."""
    given = labelled.truth.weights
    truth = replace(labelled.truth, weights=weights if given is None else given * weights)
    if reference is not None and reference.weights is None and given is None:
        reference = replace(reference, weights=np.ones(len(reference.rows)))
    return reference, replace(labelled, truth=truth)


def _by_formula(task: Task, metric: Metric, reference: Reference | None, labelled: Labelled) -> bool:
    """Return whether rows count alike and stand alone, and the metric is one of those that formulas are known for.

    Formulas are of one answer a row.
    """
    beside = (labelled.truth.groups, labelled.truth.weights, reference.weights if reference else None)
    labels = (labelled.truth.labels, np.zeros(0) if reference is None else reference.labels)
    single = task is not Task.MULTI_LABEL and all(values.ndim == 1 for values in labels)
    return single and metric in labelled_quality.BY_FORMULA and all(values is None for values in beside)


def _before(reference: Reference | None, labelled: Labelled) -> tuple[Captured, Truth]:
    """Return what a window is compared with; no rows where there is no reference."""
    if reference is None:
        return labelled.known.take(np.arange(0)), Truth(np.zeros(0))
    return labelled_part(reference)


def labelled_part(reference: Reference) -> tuple[Captured, Truth]:
    """Return the rows of a reference that have a label, and what is known of them."""
    mask = reference.labelled
    groups = None if reference.groups is None else reference.groups[mask]
    weights = None if reference.weights is None else reference.weights[mask]
    return reference.rows.take(mask), Truth(reference.labels, groups, weights)


def _reference_scores(manifest: Manifest, metric: Metric, reference: Reference) -> Any:
    return _scores(manifest, metric, reference.rows.take(reference.labelled), reference.labels)


def _scores(manifest: Manifest, metric: Metric, rows: Captured, truth: Any) -> Any:
    """Return the scores (N,) of the rows; None when the answers cannot be read, or labels have another type."""
    table = answers(rows, manifest)
    if PREDICTION not in table or not len(truth):
        return None
    predicted = table[PREDICTION].to_numpy()
    if metric is Metric.ACCURACY:
        return labelled_quality.scores(metric, predicted.astype(str), truth)
    return labelled_quality.scores(metric, predicted, truth) if truth.dtype.kind in "biuf" else None


def _coverage(manifest: Manifest, rows: Captured, labelled: Captured) -> str:
    mask = _with_label(rows, labelled)
    table = answers(rows, manifest)
    named = [name for name in table if str(name).startswith(PREDICTION)]
    predictions = table[named] if named else pd.DataFrame(index=range(len(rows)))
    return labelled_quality.coverage(predictions[mask], predictions[~mask])


def _with_label(rows: Captured, labelled: Captured) -> NDArray[np.bool_]:
    """Return a mask (N,) of the rows that have a label."""
    known = set(zip(labelled.request_ids.tolist(), labelled.rows.tolist(), strict=True))
    keys = zip(rows.request_ids.tolist(), rows.rows.tolist(), strict=True)
    return np.fromiter((key in known for key in keys), np.bool_, len(rows))


def _estimated(check: Check, metric: Metric, reference: Reference | None, current: Captured) -> SignalVerdict | None:
    """Return what is estimated of a classifier, or None when it has no confidence or the reference has no labels."""
    manifest, settings = check.manifest, check.request.quality or Quality()
    classifies = manifest.task is Task.CLASSIFICATION
    if settings.estimate == "Never" or not classifies or reference is None or not len(current):
        return None
    if reference.weights is not None:
        words = "Rows count by weights, which only labels tell."
        return untrusted("NotEstimable", words, samples=len(current))
    both = tables(reference, current, manifest, seed=check.request.seed)
    seed = (check.request.seed + check.request.window.index) % (1 << 32)
    watched = Unlabelled(metric, settings, Yardstick.of(check.request), seed)
    known = np.flatnonzero(reference.labelled)
    inputs = [name for name in both.names if name not in both.answered]
    try:
        before, now = (
            Seen(frame[[name for name in inputs if name in frame]], _read(rows, manifest))
            for frame, rows in ((both.reference, reference.rows), (both.current, current))
        )
        return watched.verdict(before.take(known), reference.labels, now)
    except UnfitAnswersError:
        return None


def _read(rows: Captured, manifest: Manifest) -> Answers:
    reading, classes = manifest.signature.reading, manifest.classes or None
    return answers_of(rows.outputs, rows=len(rows), task=manifest.task, classes=classes, reading=reading)
