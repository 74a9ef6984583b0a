"""Columns of a data set that are neither input nor label: the groups and the weights of its rows."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import open_delivered
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Dataset, Model, ModelFormat
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims

TWO = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 2)),),
    outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, 2)),),
)
TABLE = pd.DataFrame(
    {
        "a": [0.5, 1.5, 2.5, 3.5],
        "b": [1.0, 2.0, 3.0, 4.0],
        "label": [0, 1, 0, 1],
        "user": list("kkmm"),
        "w": [1, 0, 2, 3],
    }
)


def read(table: pd.DataFrame, claims: Claims, tmp_path: Path, **fields: Any) -> Rows:
    """Read a table as CSV with users as groups and column `w` as weights."""
    table.to_csv(claims.root / "digits" / "rows.csv", index=False)
    columns = {"group_column": "user", "weight_column": "w"}
    spec = Dataset(uri="pvc://digits/rows.csv", **(columns | fields))
    return read_dataset(spec, TWO, into=tmp_path / "in")


def test_groups_and_weights_are_beside_the_inputs(claims: Claims, tmp_path: Path) -> None:
    """The model's two inputs are what is left of the table; rows that are taken keep their weights."""
    rows = read(TABLE, claims, tmp_path)

    assert rows.inputs["x"].shape == (4, 2)
    assert rows.weights is not None
    assert rows.weights.tolist() == [1.0, 0.0, 2.0, 3.0]
    taken = rows.take(np.asarray([3, 0])).weights
    assert taken is not None
    assert taken.tolist() == [3.0, 1.0]
    assert rows.effective == 2  # 36 / 14


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([1.0, -0.5, 2.0, 3.0], "weight column 'w' is missing, infinite or below 0 in 1 of 4 rows, first in line 3"),
        ([1.0, 1.0, None, None], "weight column 'w' is missing, infinite or below 0 in 2 of 4 rows, first in line 4"),
        ([0, 0, 0, 0], "weight column 'w' is 0 in all 4 rows, so nothing counts"),
        (["much", "x", "y", "z"], "weight column 'w' has type"),
    ],
)
def test_weights_that_cannot_count_are_refused_with_file_and_column(
    weights: list[Any], sentence: str, claims: Claims, tmp_path: Path
) -> None:
    """Negative, missing, all 0, or no numbers: one sentence."""
    with pytest.raises(JobError) as caught:
        read(TABLE.assign(w=weights), claims, tmp_path)

    assert caught.value.reason is Reason.DATA_INVALID
    assert "pvc://digits/rows.csv" in str(caught.value)
    assert sentence in str(caught.value)


def test_a_weight_column_that_is_not_there_is_named(claims: Claims, tmp_path: Path) -> None:
    """With the columns that are."""
    with pytest.raises(JobError, match=r"column 'much' is missing; found: a, b, label, user, w"):
        read(TABLE, claims, tmp_path, weight_column="much")


def test_a_pipeline_is_converted_beside_columns_that_it_was_not_fitted_on(claims: Claims, tmp_path: Path) -> None:
    """Groups and weights in the table are not taken for columns of the model."""
    pytest.importorskip("skops.io")
    many = pd.concat([TABLE] * 20, ignore_index=True)
    many.to_csv(claims.root / "digits" / "rows.csv", index=False)
    joblib.dump(LogisticRegression().fit(many[["a", "b"]], many["label"]), tmp_path / "model.joblib")
    model = Model(uri="pvc://digits/model.joblib", format=ModelFormat.JOBLIB, trust="RunsCodeFromFile")
    path = tmp_path / "model.joblib"
    file = Fetched(path=path, digest=file_digest(path), size=path.stat().st_size)
    spec = Dataset(uri="pvc://digits/rows.csv", group_column="user", weight_column="w")

    opened = open_delivered(model, file, spec, scratch=tmp_path / "scratch")

    assert len(read_dataset(spec, opened.signature, into=tmp_path / "in")) == 80
