"""Drift of the labels themselves: what is true has changed, whether the model follows or not.

It is told beside the columns and on the page, and says why quality is lost. It counts for no verdict: labels come late
and often of some rows only, and what they prove is judged as quality.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.commands.check.drift import TARGET, Compared, compare_target
from optimizer_jobs.commands.check.judging import Labelled
from optimizer_jobs.commands.check.sources import Tables
from optimizer_jobs.commands.check.verdict import column_words
from optimizer_jobs.production.reference import Reference
from retune.api.model import Task
from retune.api.monitoring import Drift

Array = NDArray[Any]


@dataclass(frozen=True)
class Target:
    """Labels of the reference and of the labelled window, and what comparing them says."""

    reference: pd.Series
    current: pd.Series
    found: Compared

    @property
    def words(self) -> str:
        """A sentence where they drifted, else nothing."""
        return f" The labels themselves drifted: {column_words(self.found)}." if self.found.drifted else ""

    def beside(self, both: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return both tables with a column of labels, which are of other rows than the rest where they come late."""
        return _with(both.reference, self.reference), _with(both.current, self.current)


def target_of(task: Task, reference: Reference | None, labelled: Labelled | None, drift: Drift | None) -> Target | None:
    """Return what the labels say of themselves; None where there are none on either side, or too few."""
    if reference is None or labelled is None or drift is None or task is Task.EMBEDDING:
        return None
    before, now = (_column(values, task) for values in (reference.labels, labelled.truth))
    found = compare_target(before, now, drift)
    return None if found is None else Target(before, now, found)


def _column(values: Array, task: Task) -> pd.Series:
    """Return labels as a column, classes as what they spell: 1, 1.0 and "1" are the same one."""
    if task is not Task.CLASSIFICATION:
        return pd.Series(values)
    spelt = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values.tolist()]
    return pd.Series([str(value) for value in spelt], dtype=object)


def _with(table: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    return table.drop(columns=TARGET, errors="ignore").join(labels.rename(TARGET), how="outer")
