"""Which column holds the labels and what a model does, and that every guess says why."""

from collections.abc import Mapping

import numpy as np
import pytest

from optimizer_jobs.commands.inspection.guesses import (
    Label,
    from_labels,
    inputs_in,
    label_by_inputs,
    label_by_name,
    labels_by_number,
    labels_by_width,
    labels_together,
    of_outputs,
    values_of,
)
from optimizer_jobs.data.readers import Columns
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Task

DRAW = np.random.default_rng(0)
LABEL = Label("y", "column 'y', because of its name")


def table(values: Mapping[str, np.ndarray], *, tabular: bool = True) -> Columns:
    """Return these columns as an open file."""
    return Columns(names=tuple(values), read=values.__getitem__, tabular=tabular)


def model(*outputs: tuple[str, tuple[int, ...]], inputs: tuple[str, ...] = ("x",)) -> Signature:
    """Return a signature with outputs of these element types and shapes."""
    return Signature(
        inputs=tuple(TensorSpec(name=name, dtype="float32", shape=(-1, 4)) for name in inputs),
        outputs=tuple(TensorSpec(name=f"o{n}", dtype=kind, shape=shape) for n, (kind, shape) in enumerate(outputs)),
    )


SCORES, NUMBER = model(("float32", (-1, 10))), model(("float32", (-1, 1)))


@pytest.mark.parametrize(
    ("labels", "signature", "task", "says"),
    [
        (np.arange(1000) % 10, SCORES, Task.CLASSIFICATION, "labels are whole numbers below 10"),
        (np.arange(1000) % 10 / 1.0, SCORES, Task.CLASSIFICATION, "labels are whole numbers below 10"),
        (np.arange(1000) % 5, NUMBER, Task.REGRESSION, "one number a row, and labels have more than two values"),
        (np.arange(1000) % 2, NUMBER, Task.CLASSIFICATION, "2 different whole numbers in 1000 rows"),
        (DRAW.integers(0, 400, 500), NUMBER, Task.REGRESSION, "too many for classes"),
        (DRAW.normal(size=50), NUMBER, Task.REGRESSION, "fractions"),
        (DRAW.normal(size=(50, 24)), model(("float32", (-1, 24))), Task.REGRESSION, "24 numbers a row"),
        (np.array(["cat", "dog"] * 5, object), SCORES, Task.CLASSIFICATION, "text"),
        (None, SCORES, Task.EMBEDDING, "no column holds labels"),
        (DRAW.integers(0, 90, 100), model(("int64", (-1,))), Task.CLASSIFICATION, "is one label a row"),
    ],
)
def test_the_task_follows_from_labels_and_outputs(
    labels: np.ndarray | None, signature: Signature, task: Task, says: str
) -> None:
    """Few whole numbers are classes unless the model answers one number; the reason has the numbers in it."""
    guess = of_outputs(signature, labels, LABEL)
    assert guess.task is task
    assert says in guess.because


@pytest.mark.parametrize(
    ("different", "rows", "task"),
    [
        (3, 20, Task.CLASSIFICATION),
        (20, 25, Task.REGRESSION),
        (60, 1000, Task.REGRESSION),
        (100, 10_000, Task.CLASSIFICATION),
        (2000, 1_000_000, Task.REGRESSION),
    ],
)
def test_whole_numbers_are_classes_only_where_few_rows_differ(different: int, rows: int, task: Task) -> None:
    """Ages, counts and prices are whole numbers too."""
    assert from_labels(np.arange(rows) % different, LABEL).task is task


def test_a_usual_name_shows_the_label_whatever_its_capitals() -> None:
    """The most usual name wins."""
    found = label_by_name([table({"a": np.zeros(3), "Y": np.zeros(3), "Target": np.zeros(3)})])
    assert found == Label("Target", "column 'Target', because of its name")
    assert label_by_name([table({"a": np.zeros(3)})]) is None


def test_the_only_column_that_is_no_input_holds_the_labels() -> None:
    """Inputs by name, or one array `x` in an NPZ file; a table of features for one input does not tell."""
    two = model(("float32", (-1, 1)), inputs=("a", "b"))
    rows = {"a": np.zeros(3), "b": np.zeros(3), "price": np.ones(3)}
    assert label_by_inputs([table(rows)], two).column == "price"
    assert label_by_inputs([table({"x": np.zeros((3, 4)), "z": np.ones(3)}, tabular=False)], NUMBER).column == "z"
    assert label_by_inputs([table(rows)], NUMBER).column is None
    assert label_by_inputs([table({"x": np.zeros(3)}, tabular=False)], NUMBER).because.endswith("input of the model")


def test_an_input_that_is_called_like_a_label_is_none() -> None:
    """Coordinates are called x and y, and classes of tickets are features; a table for one matrix has no such names."""
    rows = table(dict.fromkeys(("x", "y", "target_1", "target_2", "price"), np.zeros(3)))
    inputs = inputs_in([rows], model(("float32", (-1, 1)), inputs=("x", "y", "target_1", "target_2")))
    assert inputs == {"x", "y", "target_1", "target_2"}
    assert label_by_name([rows], aside=inputs) is None
    assert labels_by_number([rows], aside=inputs) is None
    assert inputs_in([rows], model(("float32", (-1, 1)), inputs=("y",))) == frozenset()


def test_labels_come_from_the_first_file_that_has_them() -> None:
    """Training rows may lack them."""
    tables = {"training": table({"x": np.zeros(3)}), "test": table({"x": np.zeros(3), "y": np.ones(3)})}
    values = values_of(LABEL, tables)
    assert values is not None
    assert values.tolist() == [1, 1, 1]
    assert values_of(Label(None, "none"), tables) is None


def test_what_a_tokenizer_makes_is_no_label() -> None:
    """A model that takes fewer of its arrays leaves one over, which says nothing of an answer."""
    rows = table(
        {name: np.zeros((3, 4), int) for name in ("input_ids", "attention_mask", "token_type_ids")}, tabular=False
    )
    signature = model(("float32", (-1, 10)), inputs=("input_ids", "attention_mask"))
    assert label_by_inputs([rows], signature).column is None


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("a", "y_0", "y_1", "y_2"), ("y_0", "y_1", "y_2")),
        (("Target 2", "Target 1", "a"), ("Target 1", "Target 2")),
        ((*(f"label{n:02d}" for n in range(1, 12)), "a"), tuple(f"label{n:02d}" for n in range(1, 12))),
        (("a", "y_1", "y_3"), None),
        (("a", "y_2", "y_3"), None),
        (("a", "y_1"), None),
        (("a_1", "a_2"), None),
        (("y_1", "y_2", "class_1", "class_2"), None),
    ],
)
def test_numbered_columns_of_a_usual_name_are_the_labels(names: tuple[str, ...], parts: tuple[str, ...] | None) -> None:
    """Counted from 0 or 1 without a gap, in the order of their numbers, and only where there is one such series."""
    label = labels_by_number([table(dict.fromkeys(names, np.zeros(3)))])
    assert (label.parts if label else None) == parts


def test_columns_that_inputs_leave_are_labels_where_an_output_has_as_many() -> None:
    """Of a matrix, the only numbered ones that fit; of inputs by name, all others; else none."""
    matrix = model(("float32", (-1, 3)))
    rows = dict.fromkeys(("a", "b", "c", "d", "h1", "h2", "h3"), np.zeros(3))
    assert labels_by_width([table(rows)], matrix) == labels_together(
        ("h1", "h2", "h3"), "because input x float32 (N, 4) leaves them, and output o0 float32 (N, 3) has as many"
    )
    assert labels_by_width([table(rows | {"when": np.zeros(3)})], matrix, aside={"when"}) is not None
    assert labels_by_width([table(rows | {"id": np.zeros(3)})], matrix) is None
    assert labels_by_width([table(rows)], model(("float32", (-1, 2)))) is None
    two_series = dict.fromkeys(("a", "h1", "h2", "h3", "k1", "k2", "k3"), np.zeros(3))
    assert labels_by_width([table(two_series)], matrix) is None
    named = model(("float32", (-1, 2)), inputs=("a", "b"))
    by_name = dict.fromkeys(("a", "b", "low", "high"), np.zeros(3))
    label = labels_by_width([table(by_name)], named)
    assert label is not None
    assert label.parts == ("low", "high")
    assert labels_by_width([table(by_name | {"id": np.zeros(3)})], named) is None
    classes = model(("int64", (-1,)), ("float32", (-1, 2)), inputs=("a", "b"))
    assert labels_by_width([table(by_name)], classes) is None
