"""Delivered estimators and the tables beside them: what fits, what is missing, and what is too much, in a sentence."""

from pathlib import Path

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.data.readers import open_columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.estimators import convert
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import check_onnx
from retune.api.model import DatasetFormat, ModelFormat, Task
from retune.contract.results import Reason

CHANCE = np.random.default_rng(0)
TABLE = pd.DataFrame(CHANCE.normal(size=(80, 3)), columns=["a", "b", "c"])
LABEL = (TABLE.a > 0).astype(int)


def deliver(estimator: object, table: pd.DataFrame, folder: Path) -> Converted:
    """Convert an estimator that is delivered with joblib, beside a CSV file."""
    joblib.dump(estimator, folder / "model.joblib")
    table.to_csv(folder / "validation.csv", index=False)
    return convert(
        Delivered(
            native=Native(folder / "model.joblib", ModelFormat.JOBLIB),
            uri="pvc://models/model.joblib",
            task=Task.CLASSIFICATION,
            columns=open_columns(folder / "validation.csv", DatasetFormat.CSV, limit_bytes=1 << 20),
            label="label",
            data="pvc://models/validation.csv",
        ),
        into=folder,
    )


def refused(table: pd.DataFrame, folder: Path) -> JobError:
    """Return the refusal of a classifier that was fitted on columns a, b and c."""
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE, LABEL)
    with pytest.raises(JobError) as caught:
        deliver(fitted, table, folder)
    return caught.value


def test_columns_that_the_data_lacks_are_named_with_those_that_it_has(tmp_path: Path) -> None:
    """Which column, of which file, and what there is instead."""
    error = refused(TABLE.drop(columns="b").assign(size=1.0, label=LABEL), tmp_path)
    assert (error.reason, error.object) == (Reason.DATA_INVALID, "pvc://models/validation.csv")
    assert "the data lacks: b; it has a, c, size, label" in error.message


def test_columns_that_were_not_fitted_are_named(tmp_path: Path) -> None:
    """An id in the table is said to be too much, instead of a failure about numbers of columns."""
    error = refused(TABLE.assign(customer=range(80), label=LABEL), tmp_path)
    assert "was not fitted on customer" in error.message
    assert "Leave these columns out" in error.next_step


def test_another_order_of_columns_is_told(tmp_path: Path) -> None:
    """A matrix knows no names, so every answer would be wrong."""
    assert "another order" in refused(TABLE[["b", "a", "c"]].assign(label=LABEL), tmp_path).message


def test_a_locale_that_the_image_lacks_is_told(tmp_path: Path) -> None:
    """Texts are made small by the rules of a locale, and slim images have few of them."""
    text = helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [None])
    small = helper.make_tensor_value_info("small", onnx.TensorProto.STRING, [None])
    node = helper.make_node("StringNormalizer", ["text"], ["small"], case_change_action="LOWER", locale="xx_XX.none")
    graph = helper.make_graph([node], "g", [text], [small])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")
    with pytest.raises(JobError, match="asks for a locale that this image does not have") as caught:
        check_onnx(tmp_path / "model.onnx")
    assert "C.UTF-8" in caught.value.next_step
