"""Data of every task and shape: numbers to predict, no labels at all, columns of text, tokens, and holes."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.errors import JobError
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Dataset, Task
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims

Read = Callable[..., Rows]
TEN = (("x", "float32", (-1, 10)),)


def signature(*inputs: tuple[str, str, tuple[int, ...]], outputs: int = 1) -> Signature:
    """Return a signature with these inputs and one float output."""
    return Signature(
        inputs=tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in inputs),
        outputs=(TensorSpec(name="value", dtype="float32", shape=(-1, outputs)),),
    )


@pytest.fixture
def read(claims: Claims, tmp_path: Path) -> Read:
    """Write arrays or a table as a data set, and read it against inputs."""

    def read_it(
        content: Mapping[str, Any] | pd.DataFrame,
        *inputs: tuple[str, str, tuple[int, ...]],
        task: Task,
        missing: bool = False,
    ) -> Rows:
        if isinstance(content, pd.DataFrame):
            name = "set.parquet"
            content.to_parquet(claims.root / "digits" / name)
        else:
            name = "set.npz"
            np.savez(claims.root / "digits" / name, **content)
        spec = Dataset(uri=f"pvc://digits/{name}")
        return read_dataset(spec, signature(*inputs), into=tmp_path / "in", task=task, missing=missing)

    return read_it


@pytest.fixture
def refused(read: Read) -> Callable[..., str]:
    """Read what must be refused as DataInvalid, and return the sentence."""

    def sentence(*arguments: Any, **fields: Any) -> str:
        with pytest.raises(JobError) as caught:
            read(*arguments, **fields)
        assert caught.value.reason is Reason.DATA_INVALID
        return caught.value.message

    return sentence


def test_numbers_to_predict_keep_their_fractions(read: Read) -> None:
    """A regression's labels are numbers, whole or not, one a row or one column."""
    X, y = load_diabetes(return_X_y=True)
    targets = y / 7
    for labels in (targets, targets[:, None]):
        rows = read({"x": X, "label": labels}, *TEN, task=Task.REGRESSION)
        assert rows.answers.dtype == np.float64
        np.testing.assert_array_equal(rows.answers, targets)


@pytest.mark.parametrize(
    "spoil,says",
    [
        (lambda y: np.where(np.arange(len(y)) < 3, np.nan, y), "missing or infinite in 3 of 442 rows"),
        (lambda y: np.where(np.arange(len(y)) < 1, np.inf, y), "missing or infinite in 1 of 442 rows"),
        (lambda y: y.astype(str), "a regression predicts numbers"),
        (lambda y: np.full(len(y), 3.0), "is 3 in all 442 rows"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    refused: Callable[..., str], spoil: Callable[[Any], Any], says: str
) -> None:
    """Each with the column and how many rows."""
    X, y = load_diabetes(return_X_y=True)
    message = refused({"x": X, "label": spoil(y)}, *TEN, task=Task.REGRESSION)
    assert says in message
    assert "'label'" in message


@pytest.mark.parametrize(
    ("task", "labels", "says"),
    [
        (Task.CLASSIFICATION, np.linspace(0, 1, 442), "Set spec.model.task: Regression where a row has a number to"),
        (Task.CLASSIFICATION, np.eye(442)[:, :3], "Set spec.model.task: MultiLabel where"),
        (Task.CLASSIFICATION, np.ones((442, 3)) / 3, "Set spec.model.task: Regression where a row has several numbers"),
        (Task.REGRESSION, np.asarray(["a", "b"] * 221), "Set spec.model.task: Classification where"),
        (Task.MULTI_LABEL, np.arange(442) % 2, "Set spec.model.task: Classification where"),
        (Task.CLASSIFICATION, None, "or set spec.model.task: Embedding or Generic, which need no labels"),
    ],
)
def test_labels_of_another_task_say_which_it_is(
    read: Read, task: Task, labels: np.ndarray[Any, Any] | None, says: str
) -> None:
    """Whoever left the task out learns of the option in the sentence that refuses the data."""
    X, _ = load_diabetes(return_X_y=True)
    with pytest.raises(JobError, match=re.escape(says)):
        read({"x": X} | ({} if labels is None else {"label": labels}), *TEN, task=task)


def test_an_embedding_needs_no_labels(read: Read) -> None:
    """Rows without labels are rows; taken apart, they stay without."""
    X, _ = load_diabetes(return_X_y=True)
    rows = read({"x": X}, *TEN, task=Task.EMBEDDING)
    assert rows.labels is None
    assert len(rows) == len(rows.take(slice(0, len(X)))) == len(X)
    assert rows.take(slice(0, 3)).labels is None


def test_an_embedding_keeps_labels_that_are_there(read: Read) -> None:
    """One class only is fine, because nothing is classified."""
    X, _ = load_diabetes(return_X_y=True)
    assert set(read({"x": X, "label": np.ones(len(X), int)}, *TEN, task=Task.EMBEDDING).answers) == {1}


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.REGRESSION])
def test_other_tasks_do_need_labels(refused: Callable[..., str], task: Task) -> None:
    """What is judged by labels says which column it misses."""
    X, _ = load_diabetes(return_X_y=True)
    assert "'label'" in refused({"x": X}, *TEN, task=task)


def test_columns_of_numbers_and_text_feed_a_model_column_by_column(read: Read) -> None:
    """A pipeline with one input a column gets each (N, 1) in its own type, whatever the order of the file."""
    data = load_breast_cancer(as_frame=True).frame
    table = pd.DataFrame(
        {
            "label": data["target"],
            "radius": data["mean radius"],
            "size": np.where(data["mean area"] > 650, "large", "small"),
            "points": data["mean area"].astype(int),
        }
    )
    rows = read(
        table,
        ("size", "str", (-1, 1)),
        ("radius", "float32", (-1, 1)),
        ("points", "int64", (-1, 1)),
        task=Task.CLASSIFICATION,
    )
    assert {name: values.shape for name, values in rows.inputs.items()} == dict.fromkeys(
        ("size", "radius", "points"), (569, 1)
    )
    assert list(rows.inputs) == ["size", "radius", "points"]
    assert rows.inputs["size"][:, 0].tolist() == table["size"].tolist()
    assert rows.inputs["points"].dtype == np.int64


def test_tokens_are_whole_numbers_of_any_length(read: Read, refused: Callable[..., str]) -> None:
    """Several arrays of tokens become several inputs; a fraction is no token."""
    tokens = np.arange(60).reshape(10, 6)
    inputs = (("input_ids", "int64", (-1, -1)), ("attention_mask", "int64", (-1, -1)))
    rows = read(
        {"input_ids": tokens.astype(np.int32), "attention_mask": np.ones_like(tokens)}, *inputs, task=Task.EMBEDDING
    )
    assert rows.inputs["input_ids"].dtype == np.int64
    np.testing.assert_array_equal(rows.inputs["input_ids"], tokens)
    halves = {"input_ids": tokens + 0.5, "attention_mask": tokens}
    assert "do not fit the model's int64" in refused(halves, *inputs, task=Task.EMBEDDING)


def test_inputs_of_different_length_are_refused(refused: Callable[..., str]) -> None:
    """Without labels, too, a row is a row of every input."""
    inputs = (("a", "float32", (-1, 2)), ("b", "float32", (-1, 2)))
    message = refused({"a": np.ones((3, 2)), "b": np.ones((4, 2))}, *inputs, task=Task.EMBEDDING)
    assert "different numbers of rows" in message


def test_sequences_keep_their_shape(read: Read) -> None:
    """An array with more axes feeds an input with as many."""
    series = np.random.default_rng(0).normal(size=(5, 12, 3))
    rows = read({"x": series}, ("x", "float32", (-1, -1, 3)), task=Task.EMBEDDING)
    assert rows.inputs["x"].shape == (5, 12, 3)


@pytest.mark.parametrize("as_table", [True, False])
def test_holes_pass_only_where_the_model_fills_them(read: Read, refused: Callable[..., str], *, as_table: bool) -> None:
    """They arrive as NaN; otherwise column or input and rows are named. An infinity never passes."""
    X, y = load_diabetes(return_X_y=True)
    X[:4, 2] = np.nan

    def content(values: Any) -> Any:
        table = pd.DataFrame(values, columns=[f"c{number}" for number in range(10)]).assign(label=y)
        return table if as_table else {"x": values, "label": y}

    rows = read(content(X), *TEN, task=Task.REGRESSION, missing=True)
    np.testing.assert_array_equal(np.argwhere(np.isnan(rows.inputs["x"])), [[row, 2] for row in range(4)])
    message = refused(content(X), *TEN, task=Task.REGRESSION)
    assert ("column 'c2'" if as_table else "input 'x'") in message
    assert "in 4 of 442 rows" in message
    X[0, 2] = np.inf
    assert "infinite" in refused(content(X), *TEN, task=Task.REGRESSION, missing=True)
