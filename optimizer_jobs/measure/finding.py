"""Find which outputs of a model are its answer, what its scores mean, and which class each column stands for.

What the spec names is taken; the rest is found from the outputs and labels of real rows. Where two outputs could be the
answer and nothing tells them apart, the model is refused with the field to set: a model judged by the wrong output
would be a verdict about nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.all_outputs import answers_singly
from optimizer_jobs.measure.answers import Answers, Array, answers_of, outputs_of, predictions_of, spelled
from optimizer_jobs.measure.chance import no_better_than_chance
from optimizer_jobs.measure.label_sets import label_sets_of
from optimizer_jobs.measure.scales import can_be_probabilities
from optimizer_jobs.measure.unfit import NotUnderstoodError, UnfitAnswersError
from optimizer_jobs.models.engine import Session
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Model, Task

Classes = tuple[int | str, ...]

RARE = 0.1
"""Share of the rows below which one of two classes is rare, and so the one that matters."""
_MOST_ROWS = 5000
_TWO = 2
_TABLE_AXES = 2
_ALMOST_ALL = 0.95
"""Share of the rows on which the label output must be the class of the largest score."""
_NAMES = {
    Task.CLASSIFICATION: re.compile(r"prob|score|logit|class|cls|pred", re.IGNORECASE),
    Task.REGRESSION: re.compile(r"pred|value|variable|output|^y|regress|forecast", re.IGNORECASE),
    Task.EMBEDDING: re.compile(r"embed|pool|feature|vector|sentence", re.IGNORECASE),
    Task.MULTI_LABEL: re.compile(r"prob|score|logit|label|class|pred|tag", re.IGNORECASE),
}


@dataclass(frozen=True)
class Found:
    """How a model's outputs are read."""

    reading: Reading
    classes: Classes
    """Label of each score column; empty means that the column's number is the label."""
    notes: tuple[str, ...]
    """What was found rather than told, in words."""


@dataclass(frozen=True)
class _Seen:
    """What is known about a model before its outputs are read."""

    spec: Model
    outputs: Mapping[str, Array]
    rows: Rows
    hint: Classes
    """Label of each score column as the delivered file says; it may be about something else."""

    @property
    def classes(self) -> Classes:
        """The classes that the spec names."""
        return tuple(self.spec.classes or ())


def find_reading(session: Session, spec: Model, rows: Rows, *, classes: Classes = (), batch: int = 256) -> Found:
    """Return how the outputs of a model are read.

    Args:
        session: The open model.
        spec: What the spec says about the model.
        rows: Rows with labels; an embedding needs none.
        classes: Label of each score column, where the delivered file says so.
        batch: Rows of one call.

    Raises:
        UnfitAnswersError: No output is an answer of the task, or several could be; the message says what to set.
    """
    if spec.task is Task.GENERIC:
        return _generic(session, rows)
    some = _spread(rows)
    seen = _Seen(spec, outputs_of(session, some, batch), some, classes)
    _check_names(seen)
    if spec.task is Task.CLASSIFICATION:
        return _classifier(seen)
    if spec.task is Task.MULTI_LABEL:
        return _label_sets(seen)
    scores = spec.outputs.scores or _only(seen, _numbers(seen))
    answers_of(seen.outputs, rows=len(some), task=spec.task, reading=Reading(scores=scores))
    return Found(Reading(scores=scores), (), _chosen(seen, scores))


def _generic(session: Session, rows: Rows) -> Found:
    """Return that all outputs count, and whether rows are asked one by one."""
    singly = answers_singly(session, rows)
    words = "rows are asked one by one, because outputs have no entry for each row of a request"
    notes = (words,) if singly and session.signature.batch is None else ()
    return Found(Reading(singly=True if singly else None), (), notes)


def _spread(rows: Rows) -> Rows:
    """Return some rows from beginning to end: a file may be sorted by its labels."""
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, num=min(_MOST_ROWS, len(rows))).astype(np.int64)))


def _check_names(seen: _Seen) -> None:
    for field, name in (("label", seen.spec.outputs.label), ("scores", seen.spec.outputs.scores)):
        if name is not None and name not in seen.outputs:
            raise UnfitAnswersError(f"model.outputs.{field} names {name}, but the outputs are {_listed(seen.outputs)}")


def _classifier(seen: _Seen) -> Found:
    asked = seen.spec.outputs
    label = asked.label or next((name for name, values in seen.outputs.items() if _is_label(values, seen.rows)), None)
    scores = asked.scores or _scores(seen, label)
    if label is None and scores is None:
        raise NotUnderstoodError(
            f"outputs are neither one label a row nor scores of classes: {_shapes(seen)}{_one_number(seen)}"
        )
    classes = (seen.classes or seen.hint) if scores is None else _classes(seen, scores)
    scale = None if scores is None else Scale(asked.scale) if asked.scale else _scale(seen.outputs[scores])
    reading = Reading(label=label, scores=scores, scale=scale, threshold=_threshold(seen, scores))
    shares = np.unique(spelled(seen.rows.answers), return_counts=True)[1] / len(seen.rows)
    facts = {"positive": _positive(seen, classes, reading), "rarest": round(float(shares.min()), 4)}
    reading = reading.model_copy(update=facts)
    if label is not None and scores is not None and not _agree(seen, reading, classes):
        words = f"{scores} does not score the labels of {label}, so the model is judged by its labels alone"
        return Found(reading.model_copy(update={"scores": None, "scale": None}), classes, (words,))
    notes = [*_chosen(seen, scores), *([f"{scores} is read as {scale}".lower()] if scale and not asked.scale else [])]
    return Found(reading, classes, tuple(notes))


def _one_number(seen: _Seen) -> str:
    """Return which task a model has that answers one number a row where labels are numbers, as words to append."""
    rows, labels = len(seen.rows), seen.rows.answers
    single = any(values.dtype.kind == "f" and values.size == rows for values in seen.outputs.values())
    return (
        "; one number a row is an answer of spec.model.task: Regression" if single and labels.dtype.kind == "i" else ""
    )


def _label_sets(seen: _Seen) -> Found:
    """Return how the outputs of a model are read that has a zero or one, or a score, for each of several labels."""
    asked = seen.spec.outputs
    fitting = {name: values for name, values in seen.outputs.items() if values.shape == seen.rows.answers.shape}
    label = asked.label or next((name for name, values in fitting.items() if values.dtype.kind in "iub"), None)
    tables = [name for name, values in fitting.items() if values.dtype.kind == "f"]
    scores = asked.scores or (_only(seen, tables) if tables or label is None else None)
    scale = None if scores is None else Scale(asked.scale) if asked.scale else _scale(seen.outputs[scores])
    threshold = None if seen.spec.threshold is None else float(seen.spec.threshold)
    reading = Reading(label=label, scores=scores, scale=scale, threshold=threshold)
    label_sets_of(seen.outputs, rows=len(seen.rows), reading=reading)
    if label is not None and scores is not None and not _score_labels(seen, reading):
        words = f"{scores} does not score the labels of {label}, so the model is judged by its labels alone"
        return Found(Reading(label=label), (), (words,))
    notes = [*_chosen(seen, scores), *([f"{scores} is read as {scale}".lower()] if scale and not asked.scale else [])]
    return Found(reading, (), tuple(notes))


def _score_labels(seen: _Seen, reading: Reading) -> bool:
    """Return whether almost all labels of the label output are those that are more probable than not by the scores."""
    rows = len(seen.rows)
    by_scores = reading.model_copy(update={"label": None, "threshold": None})
    own, scored = (
        label_sets_of(seen.outputs, rows=rows, reading=how) for how in (Reading(label=reading.label), by_scores)
    )
    return float((own.decided == scored.decided).mean()) >= _ALMOST_ALL


def _scores(seen: _Seen, label: str | None) -> str | None:
    """Return the output with scores of the classes, or None where only labels are answered."""
    labels = len(set(spelled(seen.rows.answers)))
    tables = {
        name: values.size // len(seen.rows)
        for name, values in seen.outputs.items()
        if values.dtype.kind == "f" and values.ndim <= _TABLE_AXES and len(values) == len(seen.rows)
    }
    known = len(seen.classes)
    exact = [name for name, width in tables.items() if width == (known or labels)]
    fitting = exact or [name for name, width in tables.items() if width > max(1, labels - 1)]
    single = [name for name, width in tables.items() if width == 1] if max(labels, known) == _TWO else []
    candidates = [*dict.fromkeys([*fitting, *single])]
    return _only(seen, candidates, needed=label is None) if candidates else None


def _numbers(seen: _Seen) -> list[str]:
    """Return outputs that may be the numbers to predict or the embedding."""
    rows = len(seen.rows)
    floats = [name for name, values in seen.outputs.items() if values.dtype.kind == "f" and len(values) == rows]
    if seen.spec.task is Task.REGRESSION:
        return [name for name in floats if seen.outputs[name].size == seen.rows.answers.size]
    vectors = [name for name in floats if seen.outputs[name].ndim == _TABLE_AXES]
    return vectors or floats


def _only(seen: _Seen, candidates: Sequence[str], *, needed: bool = True) -> str:
    """Return the one candidate that is the answer: by its name, or else because it alone knows the labels.

    Raises:
        UnfitAnswersError: None or several remain.
    """
    if not candidates:
        raise NotUnderstoodError(f"no output answers task {seen.spec.task} for these labels: {_shapes(seen)}")
    named = [name for name in candidates if _NAMES[seen.spec.task].search(name)]
    for chosen in (candidates, named):
        if len(chosen) == 1:
            return chosen[0]
    knowing = [name for name in candidates if _knows(seen, name)]
    if len(knowing) == 1 or (knowing and not needed):
        return knowing[0]
    words = f"outputs {', '.join(candidates)} could each be the answer"
    raise UnfitAnswersError(f"{words}: name one in model.outputs.scores")


def _knows(seen: _Seen, name: str) -> bool:
    """Return whether an output, read as the answer, is better than chance on the rows."""
    if seen.rows.labels is None:
        return False
    try:
        classes = _classes(seen, name) if seen.spec.task is Task.CLASSIFICATION else ()
        reading = Reading(scores=name, scale=_scale(seen.outputs[name]))
        rows = len(seen.rows)
        answers: Answers = answers_of(
            seen.outputs, rows=rows, task=seen.spec.task, classes=classes or None, reading=reading
        )
        return no_better_than_chance(answers, seen.rows) is None
    except UnfitAnswersError:
        return False


def _scale(values: Array) -> Scale:
    """Return what scores are: probabilities where all are between 0 and 1 but for rounding, else logits.

    Where a row's sum is not 1, as of one sigmoid for each class, its probabilities are the shares of the sum.
    """
    return Scale.PROBABILITIES if can_be_probabilities(values.astype(np.float64)) else Scale.LOGITS


def _classes(seen: _Seen, scores: str) -> Classes:
    """Return the label of each score column: as named, else the numbers of the columns, else the sorted labels."""
    width = max(seen.outputs[scores].size // len(seen.rows), _TWO)
    if seen.classes:
        if len(seen.classes) != width:
            raise UnfitAnswersError(f"{len(seen.classes)} classes are named, but {scores} has {width} columns")
        return seen.classes
    if len(seen.hint) == width:
        return () if seen.hint == tuple(range(width)) else seen.hint
    labels = np.unique(seen.rows.answers)
    if labels.dtype.kind != "U" and labels[0] >= 0 and labels[-1] < width:
        return ()
    if len(labels) != width:
        raise UnfitAnswersError(
            f"the data has {len(labels)} classes and {scores} {width} columns: name the classes in model.classes"
        )
    return tuple(str(name) if labels.dtype.kind == "U" else int(name) for name in labels)


def _threshold(seen: _Seen, scores: str | None) -> float | None:
    threshold = seen.spec.threshold
    if threshold is None:
        return None
    if scores is None or max(seen.outputs[scores].size // len(seen.rows), _TWO) != _TWO:
        raise UnfitAnswersError("model.threshold is of two classes with scores, and this model has no such scores")
    return float(threshold)


def _positive(seen: _Seen, classes: Classes, reading: Reading) -> int | str | None:
    """Return the positive class: as named, else of two classes the rare one, else the second."""
    true = spelled(seen.rows.answers)
    names, counts = np.unique(true, return_counts=True)
    known = [str(name) for name in classes] or [str(name) for name in spelled(np.unique(seen.rows.answers))]
    asked = seen.spec.positive_label
    if asked is not None:
        if asked not in {*known, *names}:
            raise UnfitAnswersError(f"model.positiveLabel {asked} is no class; the classes are {_listed(known)}")
        return asked
    if len(names) != _TWO or (reading.scores is not None and len(known) != _TWO):
        return None
    return str(names[counts.argmin()] if counts.min() < RARE * len(true) else known[-1])


def _agree(seen: _Seen, reading: Reading, classes: Classes) -> bool:
    """Return whether the label output is the class of the largest score on almost all rows."""
    rows = len(seen.rows)
    try:
        by_scores = predictions_of(
            seen.outputs, rows=rows, classes=classes or None, reading=reading.model_copy(update={"label": None})
        )
    except UnfitAnswersError:
        return False
    labels: NDArray[np.str_] = spelled(seen.outputs[reading.label or ""].reshape(rows))
    return reading.threshold is not None or float(np.mean(labels == spelled(by_scores.labels))) >= _ALMOST_ALL


def _chosen(seen: _Seen, scores: str | None) -> tuple[str, ...]:
    several = sum(values.dtype.kind == "f" for values in seen.outputs.values()) > 1
    return (f"{scores} is the answer",) if scores and several and not seen.spec.outputs.scores else ()


def _is_label(values: Array, rows: Rows) -> bool:
    return values.size == len(rows) and values.dtype.kind in "iuOUSb"


def _shapes(seen: _Seen) -> str:
    return ", ".join(f"{name} {values.dtype}{list(values.shape)}" for name, values in seen.outputs.items())


def _listed(names: Sequence[object] | Mapping[str, Array]) -> str:
    return ", ".join(str(name) for name in list(names)[:20])


def classes_of_graph(graph: onnx.ModelProto) -> Classes:
    """Return the class labels that an ONNX file itself names, in the order of score columns; () when it names none."""
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name in {"classlabels_strings", "classlabels_int64s", "classlabels_ints"}:
                return tuple(name.decode() for name in attribute.strings) or tuple(attribute.ints)
    return ()
