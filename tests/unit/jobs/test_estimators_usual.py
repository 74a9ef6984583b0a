"""Models as many people save them that no other test has: means of regressors, searches, and texts in an ONNX file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine, make_classification
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier, GradientBoostingRegressor, RandomForestClassifier, VotingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from optimizer_jobs.machinery.compress.trees import present
from optimizer_jobs.machinery.estimators.convert import NotConvertibleError, to_onnx
from optimizer_jobs.machinery.estimators.inputs import inputs_of, original_rows, rows_of
from optimizer_jobs.models.onnx_file import check_onnx
from tests.unit.jobs.estimators_for_tests import answers, columns, matrix_input

DAYS = pd.date_range("2024-01-01", periods=30).strftime("%Y-%m-%d").to_numpy()


def test_a_mean_of_regressors_answers_as_fitted(tmp_path: Path) -> None:
    """Lines and boosted trees vote on a table whose days are text; the trees inside can be pruned."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"day": random.choice(DAYS, 400), "price": random.normal(size=400).astype(np.float32)})
    y = np.sin(frame["price"].to_numpy()) + (frame["day"] > DAYS[15]).to_numpy()
    first = ColumnTransformer(
        [("day", OneHotEncoder(handle_unknown="ignore"), ["day"]), ("rest", "passthrough", ["price"])]
    )
    voters = [("line", Ridge()), ("trees", GradientBoostingRegressor(n_estimators=20, random_state=0))]
    fitted = make_pipeline(first, VotingRegressor(voters)).fit(frame, y)
    file = columns({str(name): frame[name].to_numpy() for name in frame} | {"label": y}, tabular=True)
    inputs = inputs_of(fitted, file, label="label")
    assert [(tensor.name, tensor.dtype) for tensor in inputs] == [("day", "str"), ("price", "float32")]
    rows = rows_of(file, inputs, label="label", limit=400)
    X = original_rows(fitted, file, inputs, label="label", limit=400)
    to_onnx(fitted, inputs, target=tmp_path / "model.onnx", rows=rows, X=X)
    assert np.abs(answers(tmp_path / "model.onnx", rows)["value"][:, 0] - fitted.predict(frame)).max() < 1e-4
    assert present(onnx.load(tmp_path / "model.onnx"))


def test_the_best_of_a_search_over_support_vectors_answers_as_fitted(tmp_path: Path) -> None:
    """A finished search is delivered as it is; of two classes, labels have to agree."""
    random = np.random.default_rng(1)
    X = random.normal(size=(200, 4)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    search: Any = GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 10]}, cv=2)
    fitted = search.fit(X, y).best_estimator_
    to_onnx(fitted, matrix_input(4), target=tmp_path / "model.onnx", rows={"x": X})
    assert np.array_equal(answers(tmp_path / "model.onnx", {"x": X})["label"], fitted.predict(X))


def test_labels_of_a_discriminant_are_one_a_row(tmp_path: Path) -> None:
    """Its converter writes the labels of N rows as (1, N); the file has them as (N,), for any number of rows."""
    X, y = load_wine(return_X_y=True)
    fitted = QuadraticDiscriminantAnalysis(reg_param=0.1).fit(X, y)
    rows = {"x": X.astype(np.float32)}
    to_onnx(fitted, matrix_input(13), target=tmp_path / "model.onnx", rows=rows, X=rows["x"])
    (label, _) = onnx.load(tmp_path / "model.onnx").graph.output
    assert len(label.type.tensor_type.shape.dim) == 1
    assert np.array_equal(answers(tmp_path / "model.onnx", rows)["label"], fitted.predict(X))


def test_ties_that_the_estimator_breaks_by_other_numbers_are_no_luck(tmp_path: Path) -> None:
    """Its probabilities are equal in one row of ten, and its labels follow from scores that the file does not have."""
    X, y = make_classification(1500, n_informative=6, n_classes=3, class_sep=0.6, random_state=0)
    rows = {"x": X.astype(np.float32)}
    fitted = make_pipeline(StandardScaler(), SGDClassifier(loss="modified_huber", random_state=0)).fit(rows["x"], y)
    with pytest.raises(NotConvertibleError, match=r"SGDClassifier answers \d+ of 1500 rows differently"):
        to_onnx(fitted, matrix_input(20), target=tmp_path / "model.onnx", rows=rows, X=rows["x"])


def test_columns_chosen_by_a_classifier_come_before_another_one(tmp_path: Path) -> None:
    """What chooses columns by a classifier counts as one itself, also where it is no last step."""
    X, y = load_wine(return_X_y=True)
    chosen = RFE(LogisticRegression(), n_features_to_select=5)
    fitted = make_pipeline(StandardScaler(), chosen, RandomForestClassifier(10, random_state=0)).fit(X, y)
    rows = {"x": X.astype(np.float32)}
    to_onnx(fitted, matrix_input(13), target=tmp_path / "model.onnx", rows=rows, X=X)
    assert np.array_equal(answers(tmp_path / "model.onnx", rows)["label"], fitted.predict(X))


def test_a_file_that_answers_other_rows_than_it_was_asked_is_refused(tmp_path: Path) -> None:
    """Votes without probabilities are written with fewer numbers than rows: the model is to blame, and not the data."""
    X, y = load_wine(return_X_y=True)
    fitted = BaggingClassifier(SVC(), n_estimators=5, random_state=0).fit(X, y)
    with pytest.raises(NotConvertibleError, match=r"BaggingClassifier gives \d+ numbers for 178 rows"):
        to_onnx(fitted, matrix_input(13), target=tmp_path / "model.onnx", rows={"x": X.astype(np.float32)}, X=X)


def test_the_first_step_that_differs_is_named(tmp_path: Path) -> None:
    """Seconds since 1970 are too many digits for the scaler in single precision; the model after it is not to blame."""
    chance = np.random.default_rng(0)
    X = np.stack([1.7e9 + chance.integers(0, 2000, 500), chance.normal(size=500)], axis=1)
    y = (np.sin(X[:, 0] / 200) + X[:, 1] > 0).astype(int)
    fitted = make_pipeline(StandardScaler(), SVC(gamma=2.0)).fit(X, y)
    with pytest.raises(
        NotConvertibleError, match=r"SVC answers .*; the first to differ is step 'standardscaler' \(Sta"
    ):
        to_onnx(fitted, matrix_input(2), target=tmp_path / "model.onnx", rows={"x": X.astype(np.float32)}, X=X)


def test_texts_in_an_onnx_file_of_the_owner_run(tmp_path: Path) -> None:
    """A pipeline that its owner exported with a locale that every system has takes texts and answers class names."""
    from skl2onnx import to_onnx as exported
    from skl2onnx.common.data_types import StringTensorType

    texts = np.asarray(["refund of my card", "it crashed again", "invoice and charge", "an error on login"] * 25)
    labels = np.where(np.char.find(texts, "r") % 2 == 0, "billing", "bug")
    fitted = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    options = {id(fitted): {"zipmap": False}, id(fitted[0]): {"locale": "C.UTF-8", "tokenexp": r"[a-zA-Z0-9_]+"}}
    model = exported(fitted, initial_types=[("text", StringTensorType([None, 1]))], options=options, target_opset=17)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert check_onnx(path).words.startswith("text str (N, 1) -> label")
    got = next(iter(answers(path, {"text": texts[:, np.newaxis].astype(object)}).values()))
    assert (got == fitted.predict(texts)).mean() > 0.95
