"""The verdict on a window's quality: from labels if there are any, or else estimated from the model's confidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check import labelled_quality
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.estimated_quality import judge_confidence
from optimizer_jobs.commands.check.result import unknown
from optimizer_jobs.commands.check.sources import answers
from optimizer_jobs.commands.check.watched_quality import NOT_MEASURABLE, Watched
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import CONFIDENCE, PREDICTION
from optimizer_jobs.production.labels import Truth, join
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from retune.api.metrics import CUSTOM, Metric
from retune.api.model import Task
from retune.api.monitoring import Quality
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

_LABELS = 2_000_000


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
    rows = current if window == check.request.window else check.rows(window)
    return Labelled(rows, *join(rows, labels, into=check.scratch / "labels", limit=_LABELS))


def judge_quality(
    check: Check,
    reference: Reference | None,
    current: Captured,
    labelled: Labelled | None,
    *,
    drifted: bool,
    notes: str = "",
) -> dict[str, Any]:
    """Return the fields `quality` and `labelled_window` of the result.

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
    if metric is not None and metric not in CUSTOM and (several := _several(check.manifest)) is not None:
        return {"quality": unknown(NOT_MEASURABLE, several)}
    if metric is None:
        words = f"Labels say nothing about {settings.metric or 'the quality'} of a model of task {check.manifest.task}."
        return {"quality": unknown(NOT_MEASURABLE, words)}
    window = check.request.labelled
    measured = None if labelled is None else _measured(check, labelled, metric, reference, notes=notes)
    if measured is None or (measured.verdict is Verdict.UNKNOWN and measured.reason != NOT_MEASURABLE):
        estimated = _estimated(check.manifest, settings, reference, current)
        if estimated is not None and drifted and estimated.verdict is Verdict.CLEAR:
            estimated = estimated.model_copy(update={"verdict": Verdict.BETWEEN, "reason": "EstimateUncertain"})
        measured = estimated or measured or unknown("NoLabels", "No window with labels is due, and none is estimated.")
    say(f"  {measured.verdict}: {measured.message}")
    return {"quality": measured, "labelled_window": None if window is None else window.index}


def _several(manifest: Manifest) -> str | None:
    """Return why labels of production do not measure a regression of several numbers a row, or None."""
    score = manifest.signature.score_output
    if manifest.task is not Task.REGRESSION or score is None or score.row_size <= 1:
        return None
    return f"The model answers {score.row_size} numbers a row, and a row of production.labels has one label."


def _measured(
    check: Check, labelled: Labelled, metric: Metric, reference: Reference | None, *, notes: str
) -> SignalVerdict:
    manifest, settings = check.manifest, check.request.quality or Quality()
    skipped = "".join(f" {count} {why}." for why, count in sorted(labelled.set_aside.items())[:2])
    notes = notes + _coverage(manifest, labelled.rows, labelled.known) + skipped
    if not _by_formula(metric, reference, labelled):
        watched = Watched(metric, settings, manifest, Yardstick.of(check.request))
        return watched.verdict(_labelled_part(reference, labelled), (labelled.known, labelled.truth), notes=notes)
    before = None if reference is None else _reference_scores(manifest, metric, reference)
    now = _scores(manifest, metric, labelled.known, labelled.truth.labels)
    return labelled_quality.judge_labels(
        settings,
        metric,
        reference=before,
        current=np.zeros(0) if now is None else now,
        notes=notes,
    )


def _by_formula(metric: Metric, reference: Reference | None, labelled: Labelled) -> bool:
    """Return whether rows count alike and stand alone, and the metric is one of those that formulas are known for."""
    beside = (labelled.truth.groups, labelled.truth.weights, reference.weights if reference else None)
    return metric in labelled_quality.BY_FORMULA and all(values is None for values in beside)


def _labelled_part(reference: Reference | None, labelled: Labelled) -> tuple[Captured, Truth]:
    """Return the rows of a reference that have a label, and what is known of them; none where there is no reference."""
    if reference is None:
        return labelled.known.take(np.arange(0)), Truth(np.zeros(0))
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
    known = set(zip(labelled.request_ids.tolist(), labelled.rows.tolist(), strict=True))
    keys = zip(rows.request_ids.tolist(), rows.rows.tolist(), strict=True)
    mask = np.fromiter((key in known for key in keys), np.bool_, len(rows))
    predictions = answers(rows, manifest).get(PREDICTION, pd.Series(np.zeros(len(rows))))
    return labelled_quality.coverage(predictions[mask], predictions[~mask])


def _estimated(
    manifest: Manifest, settings: Quality, reference: Reference | None, current: Captured
) -> SignalVerdict | None:
    """Return a classifier's estimated accuracy, or None when it has no confidence or the reference has no labels."""
    classifies = manifest.task is Task.CLASSIFICATION
    if settings.estimate == "Never" or not classifies or reference is None or not len(current):
        return None
    before, now = answers(reference.rows.take(reference.labelled), manifest), answers(current, manifest)
    right = _reference_scores(manifest, Metric.ACCURACY, reference)
    if right is None or CONFIDENCE not in before or CONFIDENCE not in now:
        return None
    return judge_confidence(
        settings,
        reference_confidence=before[CONFIDENCE].to_numpy(np.float64),
        reference_right=right,
        confidence=now[CONFIDENCE].to_numpy(np.float64),
    )
