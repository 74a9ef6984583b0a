"""Labels of a data set as its task has them: classes, numbers, zeros and ones; or a sentence on what is wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.cells import as_text, column_of, missing_of, spelled
from optimizer_jobs.data.readers import Columns, UnreadableDataError
from optimizer_jobs.signature import TEXT, Signature
from retune.api.model import Task

Array = NDArray[Any]

_TABLE_AXES, _LEAST_CLASSES = 2, 2
_NO_LABELS = "Name the column in labelColumn, or set spec.model.task: Embedding or Generic, which need no labels."


def labels_of(
    columns: Columns, *, name: str, signature: Signature, task: Task, parts: Sequence[str] = ()
) -> Array | None:
    """Return the labels of all rows in the form of the task; None where a task needs none and there are none.

    Args:
        columns: The data file.
        name: The label column.
        signature: Inputs and outputs of the model, which may rule labels out.
        task: What the labels mean.
        parts: Columns that the label column was put together from.

    Raises:
        UnreadableDataError: The labels are missing, or of another form; the sentence names column and rows.
    """
    if not task.has_labels and name not in columns.names:
        return None
    values = _values(columns, name)
    if task is Task.GENERIC or (task is Task.EMBEDDING and _are_arrays(values)):
        return values
    if task is Task.MULTI_LABEL:
        return _as_sets(values, name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == _TABLE_AXES and task is Task.REGRESSION:
        names = parts if len(parts) == values.shape[1] else [f"{name}[{place}]" for place in range(values.shape[1])]
        return np.stack([_as_numbers(*pair) for pair in zip(values.T, names, strict=True)], axis=1)
    if values.ndim != 1:
        several = f"label column {name!r} has shape {values.shape}; task {task} needs one label a row."
        raise UnreadableDataError(several, _task_of_several(values))
    if not len(values):
        raise UnreadableDataError("the data set has no rows.")
    if task is Task.REGRESSION:
        return _as_numbers(spelled(values, f"label column {name!r}"), name)
    labels = _as_labels(values, name, task=task)
    return _as_classes(labels, name, signature=signature) if task.has_labels else labels


def _values(columns: Columns, name: str) -> Array:
    """Return the label column, and say where a model without labels is told of."""
    try:
        return column_of(columns, name)
    except UnreadableDataError as error:
        absent = name not in columns.names
        raise UnreadableDataError(str(error), _NO_LABELS if absent else error.next_step) from error


def _set_task(task: Task, has: str) -> str:
    return f"Set spec.model.task: {task} where a row {has}; else correct the file."


def _task_of_several(values: Array) -> str | None:
    """Return what to do about several labels or numbers a row that a task does not have."""
    if values.ndim != _TABLE_AXES or values.dtype.kind not in "biuf":
        return None
    if np.isin(values, (0, 1)).all():
        return _set_task(Task.MULTI_LABEL, "has any number of several labels")
    return _set_task(Task.REGRESSION, "has several numbers to predict")


def _as_classes(labels: Array, name: str, *, signature: Signature) -> Array:
    """Return labels of at least two classes that the model can answer."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise UnreadableDataError(
            f"label column {name!r} has one class only ({classes[0]!s}) in all {len(labels)} rows."
        )
    _check_classes(classes, name, signature=signature)
    return labels


def _are_arrays(values: Array) -> bool:
    """Whether labels are boxes, masks or sequences, which only a metric of the owner's own can read."""
    return values.ndim > 1 and values.shape[1:] != (1,) and values.dtype.kind in "biufUS"


def _as_sets(values: Array, name: str) -> Array:
    """Return zeros and ones (N, L) as int64; refuse another shape and other values."""
    if values.ndim != _TABLE_AXES or values.dtype.kind not in "biuf":
        raise UnreadableDataError(
            f"label column {name!r} has type {values.dtype} and shape {values.shape}; several labels a row are numbers "
            "of shape (rows, labels).",
            _set_task(Task.CLASSIFICATION, "has one label") if values.ndim == 1 else None,
        )
    others = int((~np.isin(values, (0, 1))).any(axis=1).sum())
    if others:
        raise UnreadableDataError(f"label column {name!r} is neither 0 nor 1 in {others} of {len(values)} rows.")
    return values.astype(np.int64)


def _as_numbers(values: Array, name: str) -> Array:
    """Return the numbers to predict as float64; refuse other types, missing values and a single constant."""
    if values.dtype.kind not in "biuf":
        raise UnreadableDataError(
            f"label column {name!r} has type {values.dtype}; a regression predicts numbers.",
            _set_task(Task.CLASSIFICATION, "has a class as its label"),
        )
    numbers = values.astype(np.float64)
    missing = int((~np.isfinite(numbers)).sum())
    if missing:
        raise UnreadableDataError(f"label column {name!r} is missing or infinite in {missing} of {len(values)} rows.")
    if numbers.min() == numbers.max():
        raise UnreadableDataError(f"label column {name!r} is {numbers[0]:g} in all {len(values)} rows.")
    return numbers


def _as_labels(values: Array, name: str, *, task: Task) -> Array:
    """Return labels as int64 or text; refuse missing values and fractions."""
    missing = missing_of(values)
    if missing.any():
        raise UnreadableDataError(
            f"label column {name!r} is missing (empty or NaN) in {missing.sum()} of {len(values)} rows."
        )
    if values.dtype.kind in "OUS":
        return np.asarray([as_text(text) for text in values])
    if values.dtype.kind not in "biuf":
        raise UnreadableDataError(f"label column {name!r} has type {values.dtype}; a label is a whole number or text.")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    fractional = whole != values
    if fractional.any():
        raise UnreadableDataError(
            f"label column {name!r} is not a whole number in {fractional.sum()} of {len(values)} rows, and the task is "
            f"{task}.",
            _set_task(Task.REGRESSION, "has a number to predict"),
        )
    return whole


def _check_classes(classes: Array, name: str, *, signature: Signature) -> None:
    """Refuse labels that the model can never answer: text instead of numbers, or a class without a score."""
    answer = signature.label_output
    widths = {spec.shape[-1] for spec in signature.outputs if spec.is_float and len(spec.shape) == _TABLE_AXES}
    textual = classes.dtype.kind == "U"
    if answer is not None and (answer.dtype == TEXT) != textual:
        wanted = "text" if answer.dtype == TEXT else "whole numbers"
        raise UnreadableDataError(f"label column {name!r} holds {classes.dtype}, but the model answers {wanted}.")
    if answer is not None or textual or not widths or min(widths) < _LEAST_CLASSES:
        return
    widest = max(widths)
    if len(classes) > widest or (len(classes) not in widths and not (classes[0] >= 0 and classes[-1] < widest)):
        raise UnreadableDataError(
            f"label column {name!r} has {len(classes)} classes from {classes[0]} to {classes[-1]}, but the model "
            f"scores 0 to {widest - 1}: name the classes in model.classes."
        )
