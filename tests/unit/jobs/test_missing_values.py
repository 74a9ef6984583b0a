"""Missing values are fine for a model that deals with them, and refused by name for every other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.commands.baseline import run
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.missing import accepts_missing
from retune.api.model import Data, Model
from retune.contract.requests import BaselineRequest
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims

SPLITS = {"training": slice(0, 250), "validation": slice(250, 400), "test": slice(400, 569)}
PIPELINES: dict[str, Callable[[], object]] = {
    "imputed": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "plain": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "half": lambda: make_pipeline(
        make_column_transformer((SimpleImputer(), slice(0, 15)), ("passthrough", slice(15, 30))),
        StandardScaler(),
        LogisticRegression(),
    ),
}

Deliver = Callable[..., BaselineRequest]


@pytest.fixture
def deliver(claims: Claims, store: str) -> Deliver:
    """Write a fitted pipeline as ONNX, and its data with holes in one column of every tenth row."""

    def write(pipeline: str, *, column: int, value: float = np.nan) -> BaselineRequest:
        from skl2onnx import to_onnx

        X, y = load_breast_cancer(return_X_y=True)
        X = X.astype(np.float32)
        fitted = PIPELINES[pipeline]().fit(X[SPLITS["training"]], y[SPLITS["training"]])  # type: ignore[attr-defined]
        model = to_onnx(fitted, X[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
        folder = claims.root / "digits"
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        X[::10, column] = value
        for split, rows in SPLITS.items():
            np.savez(folder / f"{split}.npz", x=X[rows], label=y[rows])
        return BaselineRequest(
            resource="ml/cancer",
            spec_hash="abc",
            model=Model(uri="pvc://digits/model.onnx"),
            store=store,
            threads=1,
            data=Data.model_validate({split: {"uri": f"pvc://digits/{split}.npz"} for split in SPLITS}),
        )

    return write


def refused(request: BaselineRequest, claims: Claims) -> JobError:
    """Run a request that must fail, and return why; nothing may have been published."""
    with pytest.raises(JobError) as caught:
        run(request)
    assert not list(claims.path("pvc://retune-artifacts").rglob("*"))
    return caught.value


def test_a_model_that_deals_with_holes_may_have_them(deliver: Deliver) -> None:
    """The bundle remembers it, and golden requests are rows that JSON can say."""
    result = run(deliver("imputed", column=3))
    bundle = open_bundle(result.bundle.uri, digest=result.bundle.digest)
    assert bundle.manifest.accepts_missing
    assert len(bundle.golden.requests) == 8
    json.dumps([each.body() for each in bundle.golden.requests], allow_nan=False)
    assert float(next(each.value for each in result.metrics if each.name == "accuracy")) > 0.85


def test_a_model_that_does_not_is_told_how_many_rows(deliver: Deliver, claims: Claims) -> None:
    """Nothing is filled in silently."""
    error = refused(deliver("plain", column=3), claims)
    assert error.reason is Reason.DATA_INVALID
    assert "missing or infinite in" in error.message


def test_an_imputer_for_other_columns_does_not_help(deliver: Deliver, claims: Claims) -> None:
    """What counts is the answer on the very rows; the message names the column and the split."""
    error = refused(deliver("half", column=20), claims)
    assert (error.reason, error.object) == (Reason.DATA_INVALID, "pvc://digits/training.npz")
    assert "column 20" in error.message
    assert "25 of 250 rows" in error.message


@pytest.mark.parametrize(
    "operator,attributes,expected",
    [
        ("TreeEnsembleRegressor", {"nodes_missing_value_tracks_true": [0, 1]}, True),
        ("TreeEnsembleRegressor", {"nodes_missing_value_tracks_true": [0, 0]}, False),
        ("Imputer", {"imputed_value_floats": [0.0]}, True),
        ("Scaler", {}, False),
    ],
)
def test_a_graph_says_whether_it_treats_missing_values(
    tmp_path: Path, operator: str, attributes: dict[str, Any], *, expected: bool
) -> None:
    """Trees count only where a branch takes what is missing."""
    node = helper.make_node(operator, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [])), tmp_path / "model.onnx")
    assert accepts_missing(tmp_path / "model.onnx") is expected


def test_infinite_values_are_no_holes(deliver: Deliver, claims: Claims) -> None:
    """No imputer fills an infinity."""
    assert "infinite" in refused(deliver("imputed", column=3, value=np.inf), claims).message


def test_an_ordinary_bundle_says_nothing_of_holes(claims: Claims, data: Data, store: str) -> None:
    """A field that is not needed is not there."""
    request = BaselineRequest(
        resource="ml/digits",
        spec_hash="abc",
        model=Model(uri="pvc://digits/mlp.onnx"),
        data=data,
        store=store,
        threads=1,
    )
    assert (claims.root / "digits").is_dir()
    folder = Path(open_bundle(run(request).bundle.uri).folder)
    assert "fillsHoles" not in json.loads((folder / "bundle.json").read_text())
