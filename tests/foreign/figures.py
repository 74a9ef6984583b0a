"""The figures of a verdict, computed from answers and labels by scikit-learn and NumPy.

They are defined as the documentation defines them. Nothing of Retune is imported here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from tests.foreign.answers import Outputs
from tests.foreign.delivered import Array, Delivered

Floats = NDArray[np.float64]
RARE, RARE_OF_MANY = 0.1, 0.02
"""Shares of the rows below which one of two classes, or of many, is rare."""
_TABLE = 2
FIDELITY = "fidelity"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A model's answers to N rows, read as its task says."""

    labels: Array | None = None
    probabilities: Floats | None = None
    """(N, classes)."""
    numbers: Floats | None = None
    """(N, ...) of a regression or an embedding."""
    classes: Array | None = None
    outputs: Outputs | None = None
    """Every output, of a model without labels."""

    def take(self, rows: NDArray[np.int64]) -> "Reading":
        """Return the answers to these rows."""
        return Reading(
            labels=None if self.labels is None else self.labels[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            numbers=None if self.numbers is None else self.numbers[rows],
            classes=self.classes,
        )

    @property
    def spread(self) -> float:
        """How much the answers vary from row to row: root of the mean variance over columns."""
        answers = self.numbers if self.probabilities is None else self.probabilities
        if answers is None:
            return float(self.labels is not None and len(np.unique(self.labels)) > 1)
        return float(np.sqrt(answers.reshape(len(answers), -1).var(axis=0).mean()))


@dataclass(frozen=True)
class Limit:
    """What a spec without objectives holds a model to, as the documentation has it."""

    metric: str
    allowed: Callable[[float], float]
    """The worst value that is allowed, from the champion's."""
    higher_is_better: bool = True

    def kept(self, champion: float, candidate: float, *, slack: float = 0.0) -> bool:
        """Whether the candidate's value keeps the limit."""
        distance = candidate - self.allowed(champion)
        return (distance if self.higher_is_better else -distance) >= -slack


def is_text(values: Array) -> bool:
    """Whether an array holds text."""
    return values.dtype.kind in "OUS"


def read(outputs: Outputs, delivered: Delivered) -> Reading:
    """Return the answers in the outputs of a model."""
    rows = len(next(iter(delivered.rows.values())))
    floats = [values for values in outputs.values() if values.dtype.kind == "f" and len(values) == rows]
    scores = outputs[delivered.answer] if delivered.answer else (floats[0] if floats else None)
    if delivered.task != "Classification":
        if scores is None:
            raise ValueError("no output holds numbers")
        everything = outputs if delivered.labels is None else None
        return Reading(numbers=np.asarray(scores, np.float64), outputs=everything)
    named = [
        values.reshape(rows) for values in outputs.values() if values.dtype.kind in "iuOUS" and values.size == rows
    ]
    if scores is None:
        return Reading(labels=named[0])
    probabilities = _probabilities(np.asarray(scores, np.float64).reshape(rows, -1))
    classes = _classes(delivered, probabilities.shape[1])
    labels = named[0] if named else classes[probabilities.argmax(axis=1)]
    return Reading(labels=labels, probabilities=probabilities, classes=classes)


def _probabilities(scores: Floats) -> Floats:
    """Return (N, classes): scores between 0 and 1 are probabilities, others logits; one column is the second class."""
    within = bool(((scores >= 0) & (scores <= 1)).all())
    if scores.shape[1] == 1:
        second = scores if within else 1 / (1 + np.exp(-scores))
        return np.hstack([1 - second, second])
    if within:
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _classes(delivered: Delivered, columns: int) -> Array:
    labels = np.unique(_labels(delivered))
    return labels if is_text(labels) or len(labels) == columns else np.arange(columns)


def _labels(delivered: Delivered) -> Array:
    if delivered.labels is None:
        raise ValueError("there are no labels")
    return delivered.labels


def limits(delivered: Delivered, *, is_generic: bool = False) -> list[Limit]:
    """Return what the documentation says a model is held to where a spec names no objectives.

    Args:
        delivered: The model.
        is_generic: Whether a model without labels is taken for a generic one, and not for an embedding.
    """
    if is_generic:
        return [Limit(FIDELITY, lambda _: 0.95)]
    if delivered.task == "Embedding":
        return [Limit("neighbor_agreement", lambda _: 0.95)]
    if delivered.task == "Regression":
        return [Limit("rmse", lambda champion: 1.01 * champion, higher_is_better=False)]
    shares = np.unique(_labels(delivered), return_counts=True)[1] / len(_labels(delivered))
    precision = Limit("d2_brier_score", lambda champion: 0.95 * champion)
    accuracy = Limit("accuracy", lambda champion: champion - 0.01)
    if len(shares) == _TABLE and shares.min() < RARE:
        order = Limit("average_precision", lambda champion: 0.95 * champion)
        return [order, precision, Limit("recall", lambda champion: champion - 0.05)]
    if len(shares) > _TABLE and shares.min() < RARE_OF_MANY:
        return [accuracy, precision, Limit("balanced_accuracy", lambda champion: champion - 0.03)]
    return [accuracy, precision]


def figure(metric: str, answers: Reading, delivered: Delivered, *, reference: Reading | None = None) -> float | None:
    """Return a figure of all test rows, or None where this module does not know the metric.

    Args:
        metric: Name of the metric.
        answers: A model's answers.
        delivered: The model as delivered, with its labels.
        reference: Answers of the model as delivered, for figures of likeness.
    """
    if metric == FIDELITY and answers.outputs is not None and reference is not None and reference.outputs is not None:
        return _fidelity(answers.outputs, reference.outputs)
    if metric in _OF_LIKENESS and answers.numbers is not None and reference is not None:
        return _OF_LIKENESS[metric](_flat(answers), _flat(reference))
    if metric in _OF_NUMBERS and answers.numbers is not None:
        return _OF_NUMBERS[metric](_labels(delivered), answers.numbers.reshape(_labels(delivered).shape))
    if metric in _OF_CLASSES:
        return _OF_CLASSES[metric](_labels(delivered), answers)
    return None


def drawn(metric: str, answers: Reading, labels: Array, rows: NDArray[np.int64]) -> float:
    """Return a figure of rows drawn with replacement; likeness is no such figure."""
    some = answers.take(rows)
    if some.numbers is not None:
        return _OF_NUMBERS[metric](labels[rows], some.numbers.reshape(labels[rows].shape))
    return _OF_CLASSES[metric](labels[rows], some)


def _flat(answers: Reading) -> Floats:
    if answers.numbers is None:
        raise ValueError("these answers are no numbers")
    return answers.numbers.reshape(len(answers.numbers), -1)


def _fidelity(answers: Outputs, reference: Outputs) -> float:
    """Return the mean over rows of the likeness of the worst output."""
    worst = np.min([_likeness(answers[name], values) for name, values in reference.items()], axis=0)
    return float(np.mean(worst))


def _likeness(answers: Array, reference: Array) -> Floats:
    """Return for each row 1 minus the distance, in units of the reference's spread; of no floats, the share alike."""
    if answers.shape != reference.shape:
        return np.zeros(len(reference))
    mine, theirs = (values.reshape(len(values), -1) for values in (answers, reference))
    if theirs.dtype.kind != "f":
        return np.asarray((mine == theirs).mean(axis=1))
    mine, theirs = mine.astype(np.float64), theirs.astype(np.float64)
    spread = np.sqrt(np.square(theirs - theirs.mean(axis=0)).sum(axis=1).mean())
    return np.asarray(np.clip(1 - np.linalg.norm(mine - theirs, axis=1) / spread, 0.0, 1.0))


def _rmse(labels: Array, numbers: Floats) -> float:
    return float(sk.root_mean_squared_error(labels, numbers))


def _neighbors(vectors: Floats) -> NDArray[np.int64]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(alike.argmax(axis=1))


def _cosine(vectors: Floats, reference: Floats) -> float:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((vectors * reference).sum(axis=1) / lengths).mean())


def _positive(labels: Array) -> object:
    """Return the class that matters: the rare one of two, else the second."""
    classes, counts = np.unique(labels, return_counts=True)
    return classes[counts.argmin()] if counts.min() < RARE * len(labels) else classes[-1]


def _second(answers: Reading, labels: Array) -> Floats:
    """Return the probabilities (N,) of the class that matters."""
    if answers.probabilities is None or answers.classes is None:
        raise ValueError("these answers have no probabilities")
    column = list(answers.classes).index(_positive(labels))
    return answers.probabilities[:, column]


def _brier(labels: Array, answers: Reading) -> float:
    """Return the share of the squared error that the probabilities take away from always answering the shares."""
    if answers.probabilities is None or answers.classes is None:
        raise ValueError("these answers have no probabilities")
    hit = (labels[:, np.newaxis] == answers.classes[np.newaxis, :]).astype(np.float64)
    error = ((answers.probabilities - hit) ** 2).sum()
    return float(1 - error / ((hit.mean(axis=0) - hit) ** 2).sum())


def _recall(labels: Array, answers: Reading) -> float:
    """Return the share of the rows of the class that matters that are called so."""
    return float((np.asarray(answers.labels) == labels)[labels == _positive(labels)].mean())


_OF_CLASSES: Mapping[str, Callable[[Array, Reading], float]] = {
    "accuracy": lambda labels, answers: float((labels == answers.labels).mean()),
    "balanced_accuracy": lambda labels, answers: float(sk.balanced_accuracy_score(labels, answers.labels)),
    "recall": _recall,
    "average_precision": lambda labels, answers: float(
        sk.average_precision_score(labels == _positive(labels), _second(answers, labels))
    ),
    "d2_brier_score": _brier,
}
_OF_NUMBERS: Mapping[str, Callable[[Array, Floats], float]] = {
    "rmse": _rmse,
    "mae": lambda labels, numbers: float(sk.mean_absolute_error(labels, numbers)),
}
_OF_LIKENESS: Mapping[str, Callable[[Floats, Floats], float]] = {
    "neighbor_agreement": lambda one, other: float((_neighbors(one) == _neighbors(other)).mean()),
    "cosine": _cosine,
}
