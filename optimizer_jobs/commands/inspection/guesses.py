"""Guess which column holds the labels and what a model does, and say why in words that a person can check.

A guess is made from names, shapes and values that are there. Where they do not tell, it says so.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optimizer_jobs.data.cells import listed
from optimizer_jobs.data.datasets import SINGLE_INPUT, Array
from optimizer_jobs.data.readers import Columns
from optimizer_jobs.signature import Signature
from retune.api.model import Task, called

LABELS = ("label", "labels", "target", "targets", "y", "class", "outcome")
"""Usual names of a label column, the most likely first; capitals do not matter."""

_OF_TOKENIZERS = frozenset(
    {"attention_mask", "offset_mapping", "position_ids", "special_tokens_mask", "token_type_ids"}
)
"""Columns that tokenizers make besides the tokens, whatever of them a model takes."""
_FEW = 20
"""Different whole numbers that are classes even where rows are few."""
_ROWS_OF_A_CLASS = 50
"""Rows for each different whole number from which on many of them are classes, too."""
_MOST_CLASSES = 1000
_COUNTED = re.compile(r"(?P<stem>.*?[^0-9])0*(?P<number>[0-9]+)")
_UNLABELLED = "no column holds labels: answers are compared with those of the model as delivered"


@dataclass(frozen=True)
class Label:
    """The column that holds the labels; None where there is none."""

    column: str | None
    because: str
    """Why, as words without a full stop."""
    parts: tuple[str, ...] = ()
    """Columns that are together the labels, where there are several; `column` is what they are called."""

    @property
    def names(self) -> frozenset[str]:
        """The columns of the tables as they are written."""
        return frozenset(self.parts or ([] if self.column is None else [self.column]))

    @property
    def where(self) -> str:
        """The column, or the columns, in words."""
        return f"columns {self.column}" if self.parts else f"column {self.column!r}"

    @property
    def holds(self) -> str:
        """The verb after `where`."""
        return "hold" if self.parts else "holds"


@dataclass(frozen=True)
class Guess:
    """What a model does."""

    task: Task
    because: str
    """Why, as words without a full stop."""


def inputs_in(tables: Collection[Columns], signature: Signature) -> frozenset[str]:
    """Return the columns that are inputs of the model by name; those of a table may be one input without names."""
    first, names = signature.inputs[0], {tensor.name for tensor in signature.inputs}
    is_matrix = len(signature.inputs) == 1 and len(first.shape) == 2 and first.shape[1] != 1
    named = [columns for columns in tables if not (is_matrix and columns.tabular)]
    return frozenset(name for columns in named for name in columns.names if name in names)


def label_by_name(tables: Sequence[Columns], *, aside: Collection[str] = ()) -> Label | None:
    """Return the first column whose name says that it holds labels, or None; columns in `aside` are no labels."""
    for usual in LABELS:
        for columns in tables:
            names = (name for name in columns.names if name not in aside)
            name = next((name for name in names if name.lower() == usual), None)
            if name is not None:
                return Label(name, f"column {name!r}, because of its name")
    return None


def labels_by_number(tables: Sequence[Columns], *, aside: Collection[str] = ()) -> Label | None:
    """Return the only numbered columns that are named like labels, such as target_1 and target_2, or None.

    None of them may be in `aside`.
    """
    series = [parts for stem, parts in _numbered(tables) if stem in LABELS and not set(aside).intersection(parts)]
    return labels_together(series[0], "because of their names") if len(series) == 1 else None


def labels_by_width(tables: Sequence[Columns], signature: Signature, *, aside: Collection[str] = ()) -> Label | None:
    """Return the columns that can only be the labels, because an output has a number for each; None where others may.

    In a table for one input, they are the only numbered columns, such as h1 to h24, that leave the input's width. Where
    inputs have names, they are all columns that are no input. Columns in `aside` are no labels. A model that answers
    one label a row has one label column, however many scores it gives.
    """
    if signature.label_output is not None:
        return None
    wide = {spec.shape[1]: spec.words for spec in signature.outputs if len(spec.shape) == 2 and spec.shape[1] > 1}
    if not tables or not all(columns.tabular for columns in tables):
        return None
    present = [name for name in tables[0].names if name not in aside]
    if len(signature.inputs) == 1 and len(signature.inputs[0].shape) == 2 and signature.inputs[0].shape[1] > 1:
        count = len(present) - signature.inputs[0].shape[1]
        series = [parts for _, parts in _numbered(tables) if len(parts) == count]
        if len(series) != 1 or count not in wide:
            return None
        return labels_together(
            series[0], f"because input {signature.inputs[0].words} leaves them, and output {wide[count]} has as many"
        )
    inputs = {tensor.name for tensor in signature.inputs}
    others = tuple(name for name in present if name not in inputs)
    if len(others) not in wide:
        return None
    return labels_together(others, f"because they are no input, and output {wide[len(others)]} has as many")


def labels_together(parts: Sequence[str], because: str) -> Label:
    """Return several columns as the labels, with the reason."""
    return Label(called(parts), f"columns {listed([repr(part) for part in parts])}, {because}", tuple(parts))


def _numbered(tables: Sequence[Columns]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the columns of all tables that are counted from 0 or 1 without a gap, by the small letters before."""
    shared = [name for name in tables[0].names if all(name in columns.names for columns in tables)] if tables else []
    series: dict[str, dict[int, str]] = {}
    for name in shared:
        if match := _COUNTED.fullmatch(name):
            series.setdefault(match["stem"].lower(), {})[int(match["number"])] = name
    return [
        (stem.rstrip("_.- "), tuple(numbers[number] for number in sorted(numbers)))
        for stem, numbers in series.items()
        if len(numbers) > 1 and sorted(numbers) in [list(range(first, first + len(numbers))) for first in (0, 1)]
    ]


def label_by_inputs(tables: Sequence[Columns], signature: Signature, *, aside: Collection[str] = ()) -> Label:
    """Return the only column that is no input of the model, where there is one; columns in `aside` are no labels.

    In a table of features for one input, any column may be the one.
    """
    inputs = {tensor.name for tensor in signature.inputs} | {SINGLE_INPUT, *aside, *_OF_TOKENIZERS}
    others: list[str] = []
    for columns in tables:
        others = [name for name in columns.names if name not in inputs]
        if len(others) == 1 and not (columns.tabular and len(signature.inputs) == 1):
            return Label(others[0], f"column {others[0]!r}, because it is the only one that is no input")
    if not others:
        return Label(None, "none, because every column is an input of the model")
    left = f"; {listed(others)} are no input, and --label may name one" if len(signature.inputs) > 1 else ""
    return Label(None, f"none, because no column is named like one ({', '.join(LABELS)}){left}")


def from_labels(labels: Array | None, label: Label) -> Guess:
    """Return what the labels alone say, where a model's outputs are not known yet.

    Args:
        labels: Labels (N,) or (N, K); None where there are none.
        label: Where they are.
    """
    if labels is None:
        return Guess(Task.EMBEDDING, _UNLABELLED)
    where = label.where
    several = labels.shape[1] if labels.ndim == 2 else 1
    if several > 1 and labels.dtype.kind in "biuf" and bool(np.isin(labels, (0, 1)).all()):
        return Guess(Task.MULTI_LABEL, f"{where} {label.holds} {several} zeros and ones a row")
    if several > 1:
        return Guess(Task.REGRESSION, f"{where} {label.holds} {several} numbers a row")
    if labels.dtype.kind not in "iuf":
        return Guess(Task.CLASSIFICATION, f"{where} holds {'truth values' if labels.dtype.kind == 'b' else 'text'}")
    values = labels.astype(np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    if (values != np.round(values)).any():
        return Guess(Task.REGRESSION, f"{where} holds numbers with fractions")
    different = len(np.unique(values))
    counted = f"{where} holds {different} different whole numbers in {len(values)} rows"
    if _are_classes(different, len(values)):
        return Guess(Task.CLASSIFICATION, counted)
    return Guess(Task.REGRESSION, f"{counted}, too many for classes")


def _are_classes(different: int, rows: int) -> bool:
    if different <= 2:
        return True
    few = different <= _FEW or different * _ROWS_OF_A_CLASS <= rows
    return few and 2 * different <= rows and different <= _MOST_CLASSES


def of_outputs(signature: Signature, labels: Array | None, label: Label) -> Guess:
    """Return what outputs and labels together say.

    Args:
        signature: Inputs and outputs of the model.
        labels: Labels (N,) or (N, K); None where there are none.
        label: Where they are.
    """
    if labels is None:
        return _unlabelled(signature)
    if signature.states:
        words = f"{', '.join(signature.states)} is carried from call to call, and labels say nothing of how it goes on"
        return Guess(Task.GENERIC, words)
    answer, scores = signature.label_output, signature.score_output
    if answer is not None:
        return Guess(Task.CLASSIFICATION, f"output {answer.words} is one label a row")
    guess = from_labels(labels, label)
    if scores is None or labels.ndim == 2 or labels.dtype.kind not in "iuf":
        return guess
    width = scores.shape[-1] if len(scores.shape) == 2 else scores.row_size
    return _by_width(guess, labels, width=width, words=scores.words)


def _unlabelled(signature: Signature) -> Guess:
    """Return what a model without labels is: an embedding where it answers one vector a row, and nothing else."""
    others = [spec.words for spec in signature.outputs if not spec.is_float or len(spec.shape) > 2]
    floats = [spec for spec in signature.outputs if spec.is_float]
    if others or len(floats) != 1 or not signature.is_rows_first:
        words = ", ".join(others or [spec.words for spec in floats])
        return Guess(Task.GENERIC, f"{_UNLABELLED}, and outputs {words} are not one vector a row")
    return Guess(Task.EMBEDDING, _UNLABELLED)


def _by_width(guess: Guess, labels: Array, *, width: int, words: str) -> Guess:
    """Return the guess, corrected by the number of scores: one for each class, or one number."""
    values = labels[np.isfinite(labels)]
    whole = bool((values == np.round(values)).all())
    if width > 1 and whole and len(values) and values.min() >= 0 and values.max() < width:
        return Guess(Task.CLASSIFICATION, f"labels are whole numbers below {width}, and output {words} scores each")
    if width == 1 and guess.task is Task.CLASSIFICATION and len(np.unique(values)) > 2:
        return Guess(Task.REGRESSION, f"output {words} is one number a row, and labels have more than two values")
    return guess


def values_of(label: Label, tables: Mapping[str, Columns]) -> Array | None:
    """Return the labels of the first table that has them, or None."""
    holder = next((columns for columns in tables.values() if label.column in columns.names), None)
    return holder.read(label.column) if holder is not None and label.column is not None else None
