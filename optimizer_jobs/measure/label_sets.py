"""The answers of a model that gives a row any number of several labels: which labels, and how probable each is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.scales import can_be_probabilities
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.signature import Reading, Scale

Array = NDArray[np.generic]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

_EVEN = 0.5
_TABLE_AXES = 2


@dataclass(frozen=True)
class LabelSets:
    """Answers to N rows, each of which may have any of L labels."""

    decided: BoolArray
    """(N, L): whether the row is given the label."""
    scores: Floats | None = None
    """(N, L) as the model gives them, probabilities or logits; None when it gives labels only."""
    probabilities: Floats | None = None
    """(N, L): of each label by itself; None when the model gives labels only."""

    def take(self, indices: Array) -> "LabelSets":
        """Return the answers to the rows at `indices`: integers (M,) or a mask (N,)."""
        scores = None if self.scores is None else self.scores[indices]
        probabilities = None if self.probabilities is None else self.probabilities[indices]
        return LabelSets(self.decided[indices], scores, probabilities)


def true_sets(labels: Array) -> BoolArray:
    """Return labels (N, L) as truth values.

    Raises:
        UnfitAnswersError: They are no zeros and ones, one for each label.
    """
    if labels.ndim != _TABLE_AXES:
        raise UnfitAnswersError(f"labels have shape {list(labels.shape)}, and several a row are (rows, labels)")
    others = int((~np.isin(labels, (0, 1))).any(axis=1).sum())
    if others:
        raise UnfitAnswersError(f"labels of {others} of {len(labels)} rows are not all 0 or 1")
    return labels.astype(np.bool_)


def label_sets_of(outputs: Mapping[str, Array], *, rows: int, reading: Reading) -> LabelSets:
    """Read the answers from the outputs that `reading` names.

    Without a threshold, the model's own labels count, or else what is more probable than not.

    Args:
        outputs: Values of every output by name.
        rows: Number of rows.
        reading: Which outputs hold zeros and ones, and scores.

    Raises:
        UnfitAnswersError: An output is missing or has another form.
    """
    scores = None if reading.scores is None else _scores(_table(outputs, reading.scores, rows), reading)
    own = None if reading.label is None else _table(outputs, reading.label, rows)
    if scores is None and own is None:
        raise UnfitAnswersError("no output has a zero or one, or a score, for each of several labels")
    probabilities = None if scores is None else _probabilities(scores, reading.scale)
    if own is not None and (reading.threshold is None or probabilities is None):
        return LabelSets(own.astype(np.bool_), scores, probabilities)
    if probabilities is None:
        raise UnfitAnswersError("model.threshold is of probabilities, and this model answers labels only")
    threshold = reading.threshold
    decided = probabilities > _EVEN if threshold is None else probabilities >= threshold
    return LabelSets(decided, scores, probabilities)


def _table(outputs: Mapping[str, Array], name: str, rows: int) -> Array:
    if name not in outputs:
        raise UnfitAnswersError(f"output {name} is missing; the model has {', '.join(outputs)}")
    values = outputs[name]
    if values.ndim != _TABLE_AXES or len(values) != rows:
        raise UnfitAnswersError(f"output {name} has shape {list(values.shape)}, and labels are (rows, labels)")
    return values


def _scores(values: Array, reading: Reading) -> Floats:
    scores: Floats = values.astype(np.float64)
    if not np.isfinite(scores).all():
        raise UnfitAnswersError(f"{int((~np.isfinite(scores)).any(axis=1).sum())} rows have scores without a value")
    if reading.scale is Scale.PROBABILITIES and not can_be_probabilities(scores):
        raise UnfitAnswersError("scores that are read as probabilities are not between 0 and 1")
    return scores


def _probabilities(scores: Floats, scale: Scale | None) -> Floats:
    return np.clip(scores, 0.0, 1.0) if scale is Scale.PROBABILITIES else np.asarray(0.5 * (1 + np.tanh(scores / 2)))
