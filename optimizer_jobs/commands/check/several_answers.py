"""Models with several answers a row, as columns whose drift is measured: one for each label or number.

Label k, counted from 0, is `prediction[k]`, and how probable it is `confidence[k]`; number k of a regression is
`prediction[k]`. Where they are many, and where the numbers of a row are one answer, they are one wide column.
"""

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.answers import answers_of
from optimizer_jobs.measure.label_sets import LabelSets
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.production.features import CONFIDENCE, PREDICTION, WIDE
from optimizer_jobs.production.windows import Captured
from retune.api.model import Task

Array = NDArray[np.generic]

_VECTORS = (Task.EMBEDDING, Task.GENERIC)


def columns_of(rows: Captured, manifest: Manifest) -> dict[str, Array]:
    """Return the answers (N,) by column; empty for models of one answer a row, of wide ones, and of unfit answers."""
    parts = _parts(rows, manifest)
    return {} if any(table.shape[1] > WIDE for table in parts.values()) else dict(_named(parts))


def wide_of(rows: Captured, manifest: Manifest) -> dict[str, Array]:
    """Return the answers (N, ...) that are compared by their components, by column."""
    if manifest.task is Task.EMBEDDING:
        vectors = [values for values in rows.outputs.values() if values.dtype.kind == "f"]
        return {PREDICTION: vectors[0]} if vectors else {}
    if manifest.task is Task.GENERIC:
        return {f"{PREDICTION}[{name}]": out for name, out in rows.outputs.items() if out.dtype.kind in "biuf"}
    return {name: table for name, table in _parts(rows, manifest).items() if table.shape[1] > WIDE}


def _parts(rows: Captured, manifest: Manifest) -> dict[str, Array]:
    """Return tables (N, K) of K answers a row, by what they say."""
    if manifest.task not in {Task.MULTI_LABEL, Task.REGRESSION} or not len(rows):
        return {}
    try:
        answers = answers_of(rows.outputs, rows=len(rows), task=manifest.task, reading=manifest.signature.reading)
    except UnfitAnswersError:
        return {}
    if answers.label_sets is not None:
        return _of_sets(answers.label_sets)
    return {PREDICTION: answers.numbers} if answers.numbers.ndim > 1 else {}


def _of_sets(sets: LabelSets) -> dict[str, Array]:
    """Return zeros and ones as numbers, since both are known whether or not the reference has them."""
    decided: dict[str, Array] = {PREDICTION: sets.decided.astype(np.int8)}
    return decided if sets.probabilities is None else decided | {CONFIDENCE: sets.probabilities}


def _named(parts: dict[str, Array]) -> list[tuple[str, Array]]:
    return [(f"{name}[{place}]", column) for name, table in parts.items() for place, column in enumerate(table.T)]
