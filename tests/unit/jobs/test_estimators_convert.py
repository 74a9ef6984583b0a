"""Estimators as ONNX: the same answers, the same names, the same bytes, or a refusal with numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from optimizer_jobs.machinery.estimators.convert import NotConvertibleError, classes_of, to_onnx
from optimizer_jobs.machinery.estimators.inputs import column_names, inputs_of, rows_of
from optimizer_jobs.models.onnx_file import check_onnx
from tests.unit.jobs.estimators_for_tests import Split, answers, columns, converted, matrix_input, split

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Feature.* constant:UserWarning"),
    pytest.mark.filterwarnings("ignore:Bins whose width are too small:UserWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),
]

_BINS = {"strategy": "quantile", "quantile_method": "averaged_inverted_cdf"}

CLASSIFIERS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "svc": make_pipeline(StandardScaler(), SVC()),
    "mlp": make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=20, random_state=0)),
    "forest": RandomForestClassifier(20, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=5, random_state=0),
    "neighbours": KNeighborsClassifier(),
    "imputation, selection, interactions": make_pipeline(
        SimpleImputer(strategy="median"),
        SelectKBest(k=6),
        PolynomialFeatures(2),
        StandardScaler(),
        LogisticRegression(),
    ),
    "pca": make_pipeline(StandardScaler(), PCA(5), LogisticRegression()),
    "bins": make_pipeline(KBinsDiscretizer(4, encode="onehot-dense", **_BINS), LogisticRegression()),
}
REGRESSORS = {
    "ridge": Ridge(),
    "svr": make_pipeline(StandardScaler(), SVR(C=100)),
    "forest": RandomForestRegressor(20, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=20, random_state=0),
    "histograms": HistGradientBoostingRegressor(max_iter=20, random_state=0),
    "neighbours": KNeighborsRegressor(),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("data", ["digits", "breast_cancer", "wine"])
def test_a_classifier_answers_the_same_as_onnx(name: str, data: str, tmp_path: Path) -> None:
    """Labels agree on rows it has not seen; there is one label a row and one score a class."""
    rows = split(data)
    estimator = CLASSIFIERS[name].fit(rows.X, rows.y)
    model = converted(estimator, rows, tmp_path / "model.onnx")
    given = answers(model, rows.validation.inputs)
    assert np.mean(given["label"] == estimator.predict(rows.unseen)) >= 0.99
    signature = check_onnx(model)
    assert [one.name for one in signature.inputs] == ["x"]
    assert signature.outputs[0].dtype == "int64"
    assert signature.outputs[1].shape == (-1, len(estimator.classes_))
    assert signature.outputs[1].name == ("probabilities" if hasattr(estimator, "predict_proba") else "scores")


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_answers_the_same_as_onnx(name: str, tmp_path: Path) -> None:
    """Numbers agree to a thousandth of their spread, as one output (N, 1)."""
    rows = split("diabetes")
    estimator = REGRESSORS[name].fit(rows.X, rows.y)
    model = converted(estimator, rows, tmp_path / "model.onnx")
    wanted = estimator.predict(rows.unseen)
    given = answers(model, rows.validation.inputs)["value"]
    assert given.shape == (len(wanted), 1)
    assert np.max(np.abs(given[:, 0] - wanted)) <= 1e-3 * np.std(wanted)


@pytest.mark.parametrize("estimator", [LinearSVC(random_state=0), RidgeClassifier()])
def test_two_classes_with_one_score_answer_labels_alone(estimator: Any, tmp_path: Path) -> None:
    """A single number for two classes is not passed off as scores, and labels stay text."""
    rows = split("breast_cancer")
    names = np.asarray(["malignant", "benign"])
    scaled = make_pipeline(StandardScaler(), estimator).fit(rows.X, names[rows.y])
    model = converted(scaled, Split(rows.X, names[rows.y], rows.unseen, rows.unseen_labels), tmp_path / "model.onnx")
    (output,) = check_onnx(model).outputs
    assert (output.name, output.dtype) == ("label", "str")
    assert classes_of(scaled) == ("benign", "malignant")


def test_the_same_estimator_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of time, memory or chance goes into the file."""
    rows = split("wine")
    made = [
        converted(CLASSIFIERS["forest"].fit(rows.X, rows.y), rows, tmp_path / f"{number}.onnx") for number in range(2)
    ]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_a_conversion_that_answers_differently_is_refused_with_numbers(tmp_path: Path) -> None:
    """Columns far from zero lose their differences in float32, and the file then answers other labels."""
    rows = split("digits")
    far = Split(rows.X + 2.0**25, rows.y, rows.unseen + 2.0**25, rows.unseen_labels)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(far.X, far.y)
    with pytest.raises(NotConvertibleError, match=r"LogisticRegression answers \d+ of 719 rows differently"):
        converted(estimator, far, tmp_path / "model.onnx")


def test_a_step_without_counterpart_is_named(tmp_path: Path) -> None:
    """A function of the user's own cannot be part of an ONNX file."""
    rows = split("wine")
    small = Split(rows.X / 1e4, rows.y, rows.unseen / 1e4, rows.unseen_labels)
    estimator = make_pipeline(FunctionTransformer(np.sinh), LogisticRegression()).fit(small.X, small.y)
    with pytest.raises(
        NotConvertibleError, match=r"step 'functiontransformer' \(FunctionTransformer\) cannot be written"
    ):
        converted(estimator, small, tmp_path / "model.onnx")


def test_several_labels_of_many_kinds_a_row_are_refused(tmp_path: Path) -> None:
    """One output holds a probability of each label, so each label is one of two."""
    rows = split("wine")
    both = np.stack([rows.y, rows.y], axis=1)
    with pytest.raises(NotConvertibleError, match="several labels a row, and not each is one of two"):
        to_onnx(
            DecisionTreeClassifier().fit(rows.X, both),
            matrix_input(rows.X.shape[1]),
            target=tmp_path / "model.onnx",
            rows=rows.validation.inputs,
        )


def test_named_columns_become_named_inputs(tmp_path: Path) -> None:
    """A pipeline fitted on a table takes its columns by their names, text as text, spaces and all."""
    pa = pytest.importorskip("pyarrow")
    rows = split("wine")
    words = np.asarray(["pale", "rosy", "deep"], dtype=object)[np.digitize(rows.X[:, 9], [3.5, 6.0])]
    table = pa.table({"total phenols": rows.X[:, 5], "proline": rows.X[:, 12], "colour": words})
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["total phenols", "proline"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
        ]
    )
    estimator = make_pipeline(prepare, LogisticRegression()).fit(table.to_pandas(), rows.y)
    file = columns({name: table[name].to_numpy() for name in table.column_names} | {"label": rows.y}, tabular=True)
    inputs = inputs_of(estimator, file, label="label")
    assert [(one.name, one.dtype) for one in inputs] == [
        ("total phenols", "float32"),
        ("proline", "float32"),
        ("colour", "str"),
    ]
    asked = rows_of(file, inputs, label="label", limit=1000)
    to_onnx(estimator, inputs, target=tmp_path / "model.onnx", rows=asked)
    assert check_onnx(tmp_path / "model.onnx").inputs == inputs
    assert column_names(estimator) == ("total phenols", "proline", "colour")
    assert np.array_equal(answers(tmp_path / "model.onnx", asked)["label"], estimator.predict(table.to_pandas()))
