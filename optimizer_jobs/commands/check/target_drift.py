"""Drift of the labels themselves (target drift), whether or not the model follows it.

It is reported with the columns and on the page, and may explain a loss of quality. It does not count for the verdict on
drift: labels arrive late and often for some rows only, and what they prove is judged as quality.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.drift import TARGET, Compared, compare_targets
from optimizer_jobs.commands.check.drift_verdict import column_words
from optimizer_jobs.commands.check.guard import guarded
from optimizer_jobs.commands.check.quality_verdict import Labelled
from optimizer_jobs.commands.check.sources import Tables
from optimizer_jobs.production.reference import Reference
from retune.api.model import Task
from retune.api.monitoring import Drift

Array = NDArray[Any]

_COMPARED = (Task.CLASSIFICATION, Task.MULTI_LABEL, Task.REGRESSION)
_SHOWN = 3
"""Labels that a sentence names."""


@dataclass(frozen=True)
class TargetDrift:
    """Labels of the reference and of the labelled window, and their comparison."""

    reference: pd.DataFrame
    """M rows: a column `label`, or `label[k]` for each of several labels or numbers."""
    current: pd.DataFrame
    """N rows with the same columns."""
    comparisons: tuple[Compared, ...]
    broken: str = ""
    """Why labels could not be compared, as a sentence; empty where they could."""

    @property
    def drifted(self) -> tuple[Compared, ...]:
        """The labels that drifted, the farthest first."""
        return tuple(sorted((label for label in self.comparisons if label.drifted), key=lambda label: -label.size))

    @property
    def words(self) -> str:
        """A sentence if labels drifted, otherwise nothing."""
        shown = "; ".join(map(column_words, self.drifted[:_SHOWN]))
        return f" The labels themselves drifted: {shown}." if shown else f" {self.broken}".rstrip()

    def called_as_of(self, window: int) -> "TargetDrift":
        """Return the same with columns whose names say which window they are of: labels arrive late."""
        names = {str(name): f"{name} of window {window}" for name in self.reference}
        return replace(
            self,
            reference=self.reference.rename(columns=names),
            current=self.current.rename(columns=names),
            comparisons=tuple(replace(one, name=names[one.name]) for one in self.comparisons),
        )

    def joined_to(self, both: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return both tables with a column of labels; if labels arrive late, they belong to rows of another window."""
        return _joined(both.reference, self.reference), _joined(both.current, self.current)


def target_drift(
    task: Task, reference: Reference | None, labelled: Labelled | None, drift: Drift | None
) -> TargetDrift | None:
    """Compare the labels of the labelled window with those of the reference; None when either has none or too few."""
    return guarded(
        partial(_compared, task, reference, labelled, drift),
        lambda words: TargetDrift(pd.DataFrame(), pd.DataFrame(), (), f"{words}."),
        what="Drift of the labels could not be judged",
    )


def _compared(
    task: Task, reference: Reference | None, labelled: Labelled | None, drift: Drift | None
) -> TargetDrift | None:
    if reference is None or labelled is None or drift is None or task not in _COMPARED:
        return None
    before, now = (_columns(labels, task) for labels in (reference.labels, labelled.truth.labels))
    if list(before) != list(now):
        return None
    comparisons = compare_targets(before, now, drift)
    return TargetDrift(before, now, comparisons) if comparisons else None


def _columns(labels: Array, task: Task) -> pd.DataFrame:
    """Return labels (N,) or (N, L) as columns."""
    if labels.ndim == 1:
        return _column(labels, task).to_frame(TARGET)
    return pd.DataFrame(
        {f"{TARGET}[{place}]": column for place, column in enumerate(labels.reshape(len(labels), -1).T)}
    )


def _column(labels: Array, task: Task) -> pd.Series:
    """Return labels (N,) as a column, classes as text, so that 1, 1.0 and "1" are the same class."""
    if task is not Task.CLASSIFICATION:
        return pd.Series(labels)
    whole = [int(label) if isinstance(label, float) and label.is_integer() else label for label in labels.tolist()]
    return pd.Series([str(label) for label in whole], dtype=object)


def _joined(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=list(labels), errors="ignore").join(labels, how="outer")
