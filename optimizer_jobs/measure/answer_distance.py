"""How far two sets of answers to the same rows lie apart, as a squared distance in the answers' own terms.

A squared distance, because then what columns carry of it adds up over columns that do not act together.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.measure.answers import Answers, Predictions, cosines, spelled
from optimizer_jobs.measure.unfit import UnfitAnswersError

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

_DEVIATIONS = 3.0
"""Numbers of a generic model's output count up to so many standard deviations from their mean."""


def distance_from(usual: Answers) -> Callable[[Answers, Answers], Floats]:
    """Return a function of two sets of answers to the same R rows, whose value is their distance (R,) by row.

    It is half the squared distance of probabilities, or 1 where labels differ; of several labels a row the mean over
    labels; of numbers the squared distance of their ranks among the usual answers, the mean over numbers; of embeddings
    1 minus the cosine; of a generic model's outputs the mean of what their elements differ by, in standard deviations
    of the usual ones.

    Args:
        usual: The answers to the rows as they are.
    """
    if usual.predictions is not None:
        return lambda one, other: _of_predictions(_predictions(one), _predictions(other))
    if usual.label_sets is not None:
        return lambda one, other: _squares(_labels(one), _labels(other))
    if usual.everything is not None:
        scales = {name: _scale(values) for name, values in _arrays(usual).items()}
        return lambda one, other: _of_outputs(_arrays(one), _arrays(other), scales)
    if usual.is_embedding:
        return lambda one, other: 1 - cosines(one.numbers, other.numbers)
    ordered = np.sort(_table(usual.numbers), axis=0)
    return lambda one, other: _squares(_ranks(ordered, one.numbers), _ranks(ordered, other.numbers))


def _predictions(answers: Answers) -> Predictions:
    if answers.predictions is None:
        raise UnfitAnswersError("these answers are no classes")
    return answers.predictions


def _of_predictions(one: Predictions, other: Predictions) -> Floats:
    if one.probabilities is not None and other.probabilities is not None:
        return np.asarray(((one.probabilities - other.probabilities) ** 2).sum(axis=1) / 2)
    return np.asarray(spelled(one.labels) != spelled(other.labels), dtype=np.float64)


def _labels(answers: Answers) -> Floats:
    sets = answers.label_sets
    if sets is None:
        raise UnfitAnswersError("these answers are no labels")
    return np.asarray(sets.decided if sets.probabilities is None else sets.probabilities, dtype=np.float64)


def _squares(one: Floats, other: Floats) -> Floats:
    return np.asarray(((one - other) ** 2).mean(axis=1))


def _table(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _ranks(ordered: Floats, values: Floats) -> Floats:
    """Return the ranks (R, K) of numbers (R,) or (R, K) among the usual ones (M, K), from 0 to 1."""
    table = _table(values)
    pairs = list(zip(ordered.T, table.T, strict=True))
    ends = [
        np.searchsorted(column, numbers, "left") + np.searchsorted(column, numbers, "right")
        for column, numbers in pairs
    ]
    return np.stack(ends, axis=1) / (2 * len(ordered))


def _arrays(answers: Answers) -> Mapping[str, Array]:
    everything = answers.everything
    arrays = {} if everything is None else everything.arrays
    if everything is None or arrays.keys() != everything.values.keys():
        raise UnfitAnswersError("the rows of an output differ in shape")
    return arrays


def _scale(values: Array) -> tuple[Floats, Floats] | None:
    """Return mean and standard deviation of each element of an output of floats; None for everything else."""
    if values.dtype.kind != "f":
        return None
    table = _table(values.astype(np.float64))
    return table.mean(axis=0), np.maximum(table.std(axis=0), np.finfo(np.float64).tiny)


def _of_outputs(
    one: Mapping[str, Array], other: Mapping[str, Array], scales: Mapping[str, tuple[Floats, Floats] | None]
) -> Floats:
    return np.asarray(np.mean([_of_output(one[name], other[name], scale) for name, scale in scales.items()], axis=0))


def _of_output(one: Array, other: Array, scale: tuple[Floats, Floats] | None) -> Floats:
    if one.shape != other.shape:
        raise UnfitAnswersError("the rows of an output differ in shape")
    if scale is None:
        return np.asarray((one != other).reshape(len(one), -1).mean(axis=1))
    return _squares(_standard(one, scale), _standard(other, scale))


def _standard(values: Array, scale: tuple[Floats, Floats]) -> Floats:
    table = (_table(values.astype(np.float64)) - scale[0]) / scale[1]
    return np.clip(table, -_DEVIATIONS, _DEVIATIONS)
