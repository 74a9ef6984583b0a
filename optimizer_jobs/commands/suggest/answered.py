"""How unsure a model was of the answers that were captured, whatever is known of the model.

Where a bundle says how outputs are read, that counts; else what the spec says, and what the numbers look like.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.answers import Predictions, predictions_of
from optimizer_jobs.measure.label_sets import label_sets_of
from optimizer_jobs.measure.scales import ROUNDING, can_be_probabilities
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Model, Task

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_CLASSES = 100
"""Of more, answers are no part of where a row lies."""
_EVEN = 0.5
_TABLE_AXES = 2
_TWO = 2


@dataclass(frozen=True)
class Known:
    """What is known of how a model answers."""

    task: Task | None = None
    """None: it is guessed."""
    reading: Reading | None = None
    """None: it is guessed."""
    label: str | None = None
    """Output with classes, as the spec names it."""
    scores: str | None = None
    """Output with scores, as the spec names it."""
    threshold: float | None = None
    classes: tuple[int | str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest | None, model: Model | None) -> "Known":
        """Return what a bundle says, or else what a spec says."""
        if manifest is not None:
            reading = manifest.signature.reading
            threshold = None if reading is None else reading.threshold
            return cls(manifest.task, reading, threshold=threshold, classes=manifest.classes)
        if model is None:
            return cls()
        threshold = None if model.threshold is None else float(model.threshold)
        return cls(model.task, None, model.outputs.label, model.outputs.scores, threshold)


@dataclass(frozen=True)
class Answered:
    """What the answers to N rows say of them."""

    unsure: Floats | None = None
    """(N,): how unsure the model was, NaN of rows without an answer; None where that is not known of any."""
    shares: Floats | None = None
    """(N, C): the answers as numbers from 0 to 1; None where they are no part of where a row lies."""
    note: str = ""
    """Why it is not known, as a sentence."""


def answered(outputs: Mapping[str, Array], known: Known, *, rows: int) -> Answered:
    """Return what outputs (N, ...) by name say of N rows."""
    task = known.task or _task(outputs, rows)
    if task not in {Task.CLASSIFICATION, Task.MULTI_LABEL}:
        words = "A regression" if task is Task.REGRESSION else f"A model of task {task}"
        return Answered(
            note=f"{words} does not say how unsure it is: rows are chosen by where nothing has been judged."
        )
    sound = _sound(outputs, rows)
    if not sound.any():
        return Answered(note="No captured answer has numbers: rows are chosen by where nothing has been judged.")
    kept = {name: values[sound] for name, values in outputs.items()}
    try:
        read = _several if task is Task.MULTI_LABEL else _single
        found = read(kept, known, int(sound.sum()))
    except UnfitAnswersError as error:
        return Answered(
            note=f"The captured answers cannot be read ({error}): rows are chosen by where nothing has been judged."
        )
    unsure, shares = (None if part is None else _spread(part, sound) for part in found)
    if unsure is None:
        words = "The captured answers have no scores, so nothing says how unsure they are."
        return Answered(shares=shares, note=words)
    missing = rows - int(sound.sum())
    words = f"{missing} rows have answers without a number, and count as sure ones." if missing else ""
    return Answered(unsure, shares, words)


def _single(outputs: Mapping[str, Array], known: Known, rows: int) -> tuple[Floats | None, Floats | None]:
    """Return uncertainty (N,) and answers (N, C) of one class a row."""
    reading = known.reading or _guessed(outputs, known, rows)
    read = predictions_of(outputs, rows=rows, classes=known.classes or None, reading=reading)
    shares = _probabilities(read)
    if shares is None:
        return None, _one_hot(read.labels)
    if known.threshold is not None and shares.shape[1] == _TWO:
        unsure = 1 - np.abs(2 * _centred(shares[:, 1], known.threshold) - 1)
    elif shares.shape[1] == 1:
        unsure = np.zeros(rows)
    else:
        likeliest = np.partition(shares, (-2, -1), axis=1)
        unsure = 1 - (likeliest[:, -1] - likeliest[:, -2])
    return unsure, shares if shares.shape[1] <= MOST_CLASSES else None


def _several(outputs: Mapping[str, Array], known: Known, rows: int) -> tuple[Floats | None, Floats | None]:
    """Return uncertainty (N,), of the least sure label, and answers (N, L) of several labels a row."""
    reading = known.reading or _guessed(outputs, known, rows, several=True)
    read = label_sets_of(outputs, rows=rows, reading=reading)
    few = read.decided.shape[1] <= MOST_CLASSES
    if read.probabilities is None:
        return None, read.decided.astype(np.float64) if few else None
    centred = _centred(read.probabilities, _EVEN if known.threshold is None else known.threshold)
    unsure = (1 - np.abs(2 * centred - 1)).max(axis=1, initial=0.0)
    return unsure, read.probabilities if few else None


def _guessed(outputs: Mapping[str, Array], known: Known, rows: int, *, several: bool = False) -> Reading:
    """Return how outputs are probably read: the first that look like classes, and like scores."""
    table = [name for name, values in outputs.items() if values.ndim <= _TABLE_AXES and len(values) == rows]
    floats = [
        name for name in table if outputs[name].dtype.kind == "f" and (outputs[name].ndim == _TABLE_AXES or not several)
    ]
    others = [name for name in table if outputs[name].dtype.kind != "f" and (several or outputs[name].size == rows)]
    label, scores = known.label or next(iter(others), None), known.scores or next(iter(floats), None)
    scale = None if scores is None or scores not in outputs else _scale(outputs[scores], several=several)
    return Reading(label=label, scores=scores, scale=scale, threshold=known.threshold)


def _scale(scores: Array, *, several: bool) -> Scale:
    single = several or scores.ndim == 1 or scores.shape[1] == 1
    whole = single or bool(np.allclose(scores.sum(axis=1), 1.0, atol=ROUNDING))
    return Scale.PROBABILITIES if can_be_probabilities(scores) and whole else Scale.LOGITS


def _task(outputs: Mapping[str, Array], rows: int) -> Task:
    """Return what the model probably does: one number a row beyond 0 to 1 alone is a regression."""
    single = [values for values in outputs.values() if values.size == rows]
    if len(outputs) == 1 and single and single[0].dtype.kind == "f":
        known = single[0][np.isfinite(single[0])]
        return Task.CLASSIFICATION if can_be_probabilities(known) else Task.REGRESSION
    return Task.CLASSIFICATION


def _sound(outputs: Mapping[str, Array], rows: int) -> NDArray[np.bool_]:
    """Return which rows (N,) have a number wherever the model answers numbers."""
    sound = np.ones(rows, dtype=np.bool_)
    for values in outputs.values():
        if values.dtype.kind == "f" and len(values) == rows:
            sound &= np.isfinite(values.reshape(rows, -1)).all(axis=1)
    return sound


def _probabilities(read: Predictions) -> Floats | None:
    """Return the probabilities (N, C), those of scores without a scale by softmax; None of labels alone."""
    if read.probabilities is not None or read.scores is None:
        return read.probabilities
    scores = np.asarray(read.scores, dtype=np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _centred(shares: Floats, threshold: float) -> Floats:
    """Return probabilities moved so that the threshold is a half, and 0 and 1 stay where they are."""
    clipped = np.clip(threshold, 1e-6, 1 - 1e-6)
    below, above = shares / (2 * clipped), _EVEN + (shares - clipped) / (2 * (1 - clipped))
    return np.asarray(np.where(shares < clipped, below, above))


def _one_hot(labels: Sequence[Any] | Array) -> Floats | None:
    names, places = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    return np.eye(len(names))[places] if len(names) <= MOST_CLASSES else None


def _spread(values: Floats, sound: NDArray[np.bool_]) -> Floats:
    """Return values of the sound rows (M, ...) at their places among all (N, ...), NaN of the others."""
    spread = np.full((len(sound), *values.shape[1:]), np.nan)
    spread[sound] = values
    return spread
