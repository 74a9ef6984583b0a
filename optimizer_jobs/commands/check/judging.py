"""Quality of a window from what a check has: labels where they came, else the model's confidence, else why neither."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check import quality as labelled_quality
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.estimate import judge_confidence
from optimizer_jobs.commands.check.sources import answers
from optimizer_jobs.commands.check.verdict import unknown
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import CONFIDENCE, PREDICTION
from optimizer_jobs.production.labels import join
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say
from retune.api.monitoring import Quality
from retune.api.objectives import Metric
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

_LABELS = 2_000_000


@dataclass(frozen=True)
class Labelled:
    """Rows of the newest window whose labels are due, and what is true of those that have a label."""

    rows: Captured
    known: Captured
    truth: NDArray[Any]
    """(M,) of `known`."""
    set_aside: Mapping[str, int]


def labelled_of(check: Check, current: Captured) -> Labelled | None:
    """Return the labelled rows; None where no window's labels are due.

    Raises:
        JobError: The folder of labels cannot be listed or its server not be read.
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
    """Return `quality` of the newest labelled window, or an estimate of this one's, and which window it is of.

    `notes` are sentences on the labels that belong to the former.
    """
    settings = check.request.quality or Quality()
    metric = labelled_quality.metric_of(check.manifest.task, settings)
    if metric is None:
        words = f"Labels say nothing about {settings.metric or 'the quality'} of a model of task {check.manifest.task}."
        return {"quality": unknown("NotMeasurable", words)}
    window = check.request.labelled
    measured = None if labelled is None else _measured(check, labelled, metric, reference, notes=notes)
    if measured is None or measured.verdict is Verdict.UNKNOWN:
        estimated = _estimated(check.manifest, settings, metric, reference, current)
        if estimated is not None and drifted and estimated.verdict is Verdict.CLEAR:
            estimated = estimated.model_copy(update={"verdict": Verdict.BETWEEN, "reason": "EstimateUncertain"})
        measured = estimated or measured or unknown("NoLabels", "No window with labels is due, and none is estimated.")
    say(f"  {measured.verdict}: {measured.message}")
    return {"quality": measured, "labelled_window": None if window is None else window.index}


def _measured(
    check: Check, labelled: Labelled, metric: Metric, reference: Reference | None, *, notes: str
) -> SignalVerdict:
    manifest, settings = check.manifest, check.request.quality or Quality()
    before = (
        None
        if reference is None
        else _scores(manifest, metric, reference.rows.take(reference.labelled), reference.labels)
    )
    now = _scores(manifest, metric, labelled.known, labelled.truth)
    passed = "".join(f" {count} {why}." for why, count in sorted(labelled.set_aside.items())[:2])
    return labelled_quality.judge_labels(
        settings,
        metric,
        reference=before,
        current=np.zeros(0) if now is None else now,
        notes=notes + _coverage(manifest, labelled.rows, labelled.known) + passed,
    )


def _scores(manifest: Manifest, metric: Metric, rows: Captured, truth: Any) -> Any:
    """Return each row's score; None where the answers cannot be read, or are of another type than the labels."""
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
    told = answers(rows, manifest).get(PREDICTION, pd.Series(np.zeros(len(rows))))
    return labelled_quality.coverage(told[mask], told[~mask])


def _estimated(
    manifest: Manifest, settings: Quality, metric: Metric, reference: Reference | None, current: Captured
) -> SignalVerdict | None:
    """Return the estimate, or None where confidence says nothing or there is nothing to correct it by."""
    if settings.estimate == "Never" or metric is not Metric.ACCURACY or reference is None or not len(current):
        return None
    known = reference.rows.take(reference.labelled)
    before, now = answers(known, manifest), answers(current, manifest)
    right = _scores(manifest, metric, known, reference.labels)
    if right is None or CONFIDENCE not in before or CONFIDENCE not in now:
        return None
    return judge_confidence(
        settings,
        reference_confidence=before[CONFIDENCE].to_numpy(np.float64),
        reference_right=right,
        confidence=now[CONFIDENCE].to_numpy(np.float64),
    )
