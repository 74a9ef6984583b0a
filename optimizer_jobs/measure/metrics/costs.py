"""The mean cost of a classifier's answers, by what the owner says that each kind of answer costs."""

from collections.abc import Sequence

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Predictions, spelled
from optimizer_jobs.measure.metrics.evaluation import Evaluation, mean_of
from retune.api.model import Cost


def expected_cost(predictions: Predictions, rows: Rows, costs: Sequence[Cost]) -> Evaluation:
    """Return the mean cost of a row.

    Args:
        predictions: A classifier's answers to N rows.
        rows: The rows, with labels.
        costs: What answers cost; what is not listed costs 0 where it is right, and 1 where it is wrong.
    """
    answered, true = spelled(predictions.labels), spelled(rows.answers)
    names, codes = np.unique(np.concatenate([answered, true]), return_inverse=True)
    place = {str(name): code for code, name in enumerate(names)}
    matrix = 1.0 - np.eye(len(names))
    for entry in costs:
        if entry.actual in place and entry.predicted in place:
            matrix[place[entry.actual], place[entry.predicted]] = float(entry.cost)
    return mean_of(matrix[codes[len(true) :], codes[: len(true)]], flip=float(matrix.max()))


def unknown_labels(costs: Sequence[Cost], known: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that costs name and the model does not know, in their order."""
    named = dict.fromkeys(label for entry in costs for label in (entry.actual, entry.predicted))
    return tuple(label for label in named if label not in set(known))
