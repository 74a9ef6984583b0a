"""Several columns that are together the labels of a row, in every format, and what is refused of them by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_linnerud

from optimizer_jobs.data.datasets import Rows, open_dataset, read_dataset
from optimizer_jobs.errors import JobError
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Dataset, Task
from tests.unit.jobs.conftest import Claims

BUNCH = load_linnerud(as_frame=True)
TABLE: pd.DataFrame = pd.concat([BUNCH.target, BUNCH.data], axis=1)
TARGETS = ("Pulse", "Weight", "Waist")
"""Not in the order of the table."""
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="value", dtype="float32", shape=(-1, 3)),),
)
Read = Callable[..., Rows]


def written(table: pd.DataFrame, path: Path) -> None:
    """Write a table in the format of the path; in an NPZ file, the inputs are the array `x`."""
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        labels = {name: table[name].to_numpy()[:, np.newaxis] for name in BUNCH.target.columns}
        np.savez(path, x=table[BUNCH.data.columns].to_numpy(), **labels)


@pytest.fixture
def read(claims: Claims, tmp_path: Path) -> Read:
    """Write a table and read it with label columns."""

    def read_it(
        table: pd.DataFrame = TABLE,
        *,
        labels: tuple[str, ...] = TARGETS,
        name: str = "set.csv",
        task: Task = Task.REGRESSION,
    ) -> Rows:
        written(table, claims.root / "digits" / name)
        spec = Dataset(uri=f"pvc://digits/{name}", label_columns=labels)
        return read_dataset(spec, SIGNATURE, into=tmp_path / "in", task=task)

    return read_it


@pytest.mark.parametrize("name", ["set.csv", "set.parquet", "set.npz"])
def test_label_columns_are_one_array_in_the_order_that_is_named(read: Read, name: str) -> None:
    """They are no inputs, and what is left is the input, as with a single label."""
    rows = read(name=name)
    np.testing.assert_array_equal(rows.answers, TABLE[list(TARGETS)].to_numpy(np.float64))
    np.testing.assert_array_equal(rows.inputs["x"], TABLE[list(BUNCH.data.columns)].to_numpy(np.float32))


@pytest.mark.parametrize("words", [(1, 0), (True, False), ("yes", "no")])
def test_columns_of_zeros_and_ones_are_several_labels(read: Read, words: tuple[Any, Any]) -> None:
    """However yes and no are written."""
    high = TABLE[list(TARGETS)] > TABLE[list(TARGETS)].median()
    table = TABLE.assign(**{name: np.where(high[name], *words) for name in TARGETS})
    rows = read(table, task=Task.MULTI_LABEL)
    assert rows.answers.dtype == np.int64
    np.testing.assert_array_equal(rows.answers, high.to_numpy(np.int64))


@pytest.mark.parametrize(
    ("change", "labels", "says"),
    [
        ({}, ("Weight", "Wist"), "column 'Wist' is missing; found: Weight, Waist, Pulse"),
        ({}, ("A", "B"), "column 'A, ..., B' is missing"),
        ({}, ("Weight", "Waist", "Weight"), "label column 'Weight' is named twice"),
        ({"Waist": "wide"}, TARGETS, "label column 'Waist' has type object"),
        (
            {"Waist": [np.nan, *range(19)]},
            TARGETS,
            "'Waist' is missing or infinite in 1 of 20 rows, the first in line 2",
        ),
        ({"Waist": [*range(19), np.inf]}, TARGETS, "'Waist' is missing or infinite in 1 of 20 rows"),
        ({"Waist": 36}, TARGETS, "label column 'Waist' is 36 in all 20 rows"),
        ({"Weight, ..., Pulse": 1.5}, ("Weight", "Pulse"), "has the name that several label columns get"),
    ],
)
def test_a_label_column_that_cannot_be_one_is_named(
    read: Read, change: dict[str, Any], labels: tuple[str, ...], says: str
) -> None:
    """The sentence has the column's own name, not that of all of them."""
    with pytest.raises(JobError) as caught:
        read(TABLE.assign(**change), labels=labels)
    assert says in caught.value.message


def test_arrays_of_several_numbers_are_no_label_column(claims: Claims, tmp_path: Path) -> None:
    """In an NPZ file, an array (rows, 2) is labels by itself."""
    np.savez(claims.root / "digits" / "set.npz", x=np.zeros((4, 3)), a=np.zeros((4, 2)), b=np.arange(4.0))
    spec = Dataset(uri="pvc://digits/set.npz", label_columns=("a", "b"))
    with pytest.raises(JobError, match=r"'a' has shape \(4, 2\); each of several label columns needs one number a row"):
        read_dataset(spec, SIGNATURE, into=tmp_path / "in", task=Task.REGRESSION)


def test_a_class_is_one_label(read: Read) -> None:
    """Columns of a classification are refused in words."""
    with pytest.raises(JobError, match="needs one label a row"):
        read(TABLE.astype(int), task=Task.CLASSIFICATION)


def test_a_model_without_labels_needs_none(read: Read) -> None:
    """As with a single label column that is not there."""
    rows = read(TABLE[list(BUNCH.data.columns)], task=Task.EMBEDDING)
    assert rows.labels is None


def test_an_open_file_shows_the_columns_as_one(claims: Claims, tmp_path: Path) -> None:
    """Whoever looks for inputs in it finds no label."""
    written(TABLE, claims.root / "digits" / "set.csv")
    columns = open_dataset(Dataset(uri="pvc://digits/set.csv", label_columns=TARGETS), into=tmp_path)
    assert columns.names == (*BUNCH.data.columns, "Pulse, ..., Waist")
