"""Version 1 answers as the delivered estimator: in probabilities, with missing values, and with unseen categories."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from optimizer_jobs.machinery.estimators.comparing import CLOSE, FAR, Answers, difference
from optimizer_jobs.machinery.estimators.convert import DiffersError, NotConvertibleError, to_onnx
from optimizer_jobs.machinery.estimators.inputs import asked_with, inputs_of, original_rows, rows_of
from optimizer_jobs.machinery.estimators.missing_routes import route_missing
from optimizer_jobs.machinery.estimators.rounding import Rounding, rounded
from optimizer_jobs.signature import TensorSpec
from tests.unit.jobs.estimators_for_tests import answers, columns

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = 400


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Fit and ask on one thread: with more, small trees wait for each other on a busy machine."""
    with threadpool_limits(1):
        yield


def table() -> pd.DataFrame:
    """Return a table as shops have them: numbers, texts with empty cells, codes and a truth value."""
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "price": np.exp(chance.normal(3, 1, ROWS)),
            "weight": np.where(chance.random(ROWS) < 0.1, np.nan, chance.normal(0, 1, ROWS)),
            "plan": chance.choice(np.asarray(["basic", "plus", None], dtype=object), ROWS),
            "city": chance.choice([f"c{number}" for number in range(9)], ROWS),
            "region": chance.integers(1, 5, ROWS),
            "autopay": chance.random(ROWS) < 0.5,
        }
    )


TABLE = table()
CHURN = np.asarray((TABLE.price > 20).astype(int) + (TABLE.plan == "plus"))
SPENT = np.asarray(np.log(TABLE.price) + TABLE.region * 0.5)
UNKNOWN = {"handle_unknown": "use_encoded_value", "unknown_value": -1}


def prepared(*steps: Any, remainder: str = "drop") -> ColumnTransformer:
    """Return a first step for the table."""
    return ColumnTransformer([(str(number), *step) for number, step in enumerate(steps)], remainder=remainder)


NUMBERS = (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["price", "weight"])
ONE_HOT = (OneHotEncoder(handle_unknown="ignore"), ["plan", "city", "region"])
TABLES: dict[str, Any] = {
    "remainder passed through": make_pipeline(
        prepared((OneHotEncoder(handle_unknown="ignore"), ["plan", "city"]), remainder="passthrough"),
        RandomForestClassifier(20, random_state=0),
    ),
    "infrequent categories": make_pipeline(
        prepared((OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=45), ["city"])),
        LogisticRegression(),
    ),
    "a dropped category": make_pipeline(
        prepared((OneHotEncoder(drop="first", handle_unknown="ignore"), ["plan", "city"]), NUMBERS),
        LogisticRegression(),
    ),
    "codes of missing cells": make_pipeline(
        prepared((OrdinalEncoder(encoded_missing_value=-2, **UNKNOWN), ["plan", "region", "autopay"])),
        DecisionTreeClassifier(max_depth=4),
    ),
    "targets of several classes": make_pipeline(prepared((TargetEncoder(), ["plan", "city"])), LogisticRegression()),
    "filled texts": make_pipeline(
        prepared(
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["plan"]),
            NUMBERS,
        ),
        LogisticRegression(),
    ),
    "categories inside of boosting": HistGradientBoostingClassifier(
        max_iter=10, categorical_features=["plan", "city", "region"]
    ),
    "bins and a function": make_pipeline(
        prepared((KBinsDiscretizer(4), ["price"]), (FunctionTransformer(np.log1p), ["region"]), ONE_HOT),
        LogisticRegression(),
    ),
    "calibrated": CalibratedClassifierCV(make_pipeline(prepared(ONE_HOT, NUMBERS), LinearSVC()), cv=2),
    "by vote": VotingClassifier(
        [("a", make_pipeline(prepared(NUMBERS), GaussianNB())), ("b", make_pipeline(prepared(NUMBERS), SVC()))]
    ),
    "transformed target": TransformedTargetRegressor(
        make_pipeline(prepared(NUMBERS, (OneHotEncoder(), ["region"])), Ridge()), func=np.log1p, inverse_func=np.expm1
    ),
    "boosting on passed numbers": make_pipeline(
        prepared((TargetEncoder(), ["city"]), ("passthrough", ["price", "weight"])),
        HistGradientBoostingRegressor(max_iter=10),
    ),
}


def of_table(estimator: Any, frame: pd.DataFrame, labels: Any, target: Path) -> Mapping[str, Any]:
    """Fit on the table, write as ONNX, and return the rows by input name."""
    fitted = estimator.fit(frame, labels)
    file = columns({str(name): frame[name].to_numpy() for name in frame} | {"label": labels}, tabular=True)
    inputs = inputs_of(fitted, file, label="label")
    rows = rows_of(file, inputs, label="label", limit=1000)
    to_onnx(fitted, inputs, target=target, rows=rows, X=original_rows(fitted, file, inputs, label="label", limit=1000))
    return rows


def last(model: Path, rows: Mapping[str, Any]) -> Any:
    """Return the last output of a file: probabilities, scores or values."""
    return list(answers(model, rows).values())[-1]


@pytest.mark.parametrize("name", TABLES)
def test_a_pipeline_on_a_table_answers_as_fitted(name: str, tmp_path: Path) -> None:
    """Numbers are the estimator's own on the frame that it was fitted with, empty cells and all."""
    estimator = clone(TABLES[name])
    labels = CHURN if is_classifier(estimator) else SPENT
    rows = of_table(estimator, TABLE, labels, tmp_path / "model.onnx")
    given_answers = answers(tmp_path / "model.onnx", rows)
    if hasattr(estimator, "predict_proba"):
        assert np.abs(given_answers["probabilities"] - estimator.predict_proba(TABLE)).max() < CLOSE
    else:
        numbers = given_answers["label" if is_classifier(estimator) else "value"].ravel()
        assert np.abs(numbers - estimator.predict(TABLE)).max() < CLOSE


def test_columns_that_the_first_step_drops_are_no_inputs(tmp_path: Path) -> None:
    """Whoever asks the model need not send what it does not read, such as ids and dates."""
    frame = TABLE.assign(id=[f"u{number}" for number in range(ROWS)], when="2026-01-01")
    rows = of_table(make_pipeline(prepared(ONE_HOT), LogisticRegression()), frame, CHURN, tmp_path / "model.onnx")
    assert set(rows) == {"plan", "city", "region"}


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=0),
        ExtraTreesClassifier(20, random_state=0),
        DecisionTreeClassifier(random_state=0),
        HistGradientBoostingClassifier(max_iter=10),
        RandomForestRegressor(20, random_state=0),
        CalibratedClassifierCV(RandomForestClassifier(10, random_state=0), cv=2),
    ],
)
def test_trees_send_missing_values_where_scikit_learn_does(estimator: Any, tmp_path: Path) -> None:
    """Fault of the converter: it sends every missing value to the right, whatever the tree has learned."""
    chance = np.random.default_rng(1)
    X = chance.normal(size=(500, 5)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
    X[chance.random(X.shape) < 0.2] = np.nan
    fitted = clone(estimator).fit(X, y)
    to_onnx(fitted, matrix(5), target=tmp_path / "model.onnx", rows={"x": X})
    wanted = fitted.predict_proba(X) if is_classifier(fitted) else fitted.predict(X)[:, np.newaxis]
    assert np.abs(last(tmp_path / "model.onnx", {"x": X}) - wanted).max() < CLOSE


def matrix(width: int, dtype: str = "float32") -> tuple[TensorSpec, ...]:
    """Return the input of an estimator that takes a matrix."""
    return (TensorSpec(name="x", dtype=dtype, shape=(-1, width)),)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), holes=st.sampled_from([0.0, 0.3]))
def test_trees_decide_alike_at_their_thresholds(seed: int, holes: float, tmp_path: Path) -> None:
    """Property: for numbers at and beside every threshold, single precision takes the same branches."""
    chance = np.random.default_rng(seed)
    X = chance.normal(size=(60, 3))
    y = (X[:, 0] > X[:, 1]).astype(int)
    y[0] = 1 - y[1]
    X[chance.random(X.shape) < holes] = np.nan
    tree = DecisionTreeClassifier(random_state=seed).fit(X, y)
    to_onnx(tree, matrix(3), target=tmp_path / "model.onnx", rows={"x": X.astype(np.float32)}, X=X)
    inner = (tree.tree_.children_left != -1) & np.isfinite(tree.tree_.threshold)
    near = tree.tree_.threshold[inner].astype(np.float32)
    at = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))])
    probe = np.repeat(X[:1].astype(np.float32), len(at), axis=0)
    probe[np.arange(len(at)), np.tile(tree.tree_.feature[inner], 3)] = at
    assert np.array_equal(last(tmp_path / "model.onnx", {"x": probe}).argmax(1), tree.predict_proba(probe).argmax(1))


def test_numbers_that_single_precision_cannot_tell_apart_are_refused_or_doubled(tmp_path: Path) -> None:
    """Seconds since 1970 differ by less than float32 holds: inputs of float64 answer right, of float32 are refused."""
    chance = np.random.default_rng(2)
    X = np.stack([1.7e9 + chance.integers(0, 2000, 500), chance.normal(size=500)], axis=1)
    y = np.sin(X[:, 0] / 200) + X[:, 1]
    fitted = HistGradientBoostingRegressor(max_iter=20).fit(X, y)
    with pytest.raises(DiffersError, match=r"answers \d+ of 500 rows differently, by up to .* standard deviations"):
        to_onnx(fitted, matrix(2), target=tmp_path / "model.onnx", rows={"x": X.astype(np.float32)}, X=X)
    to_onnx(fitted, matrix(2, "float64"), target=tmp_path / "model.onnx", rows={"x": X}, X=X)
    wanted = fitted.predict(X)[:, np.newaxis]
    assert np.abs(last(tmp_path / "model.onnx", {"x": X}) - wanted).max() < CLOSE


def test_computed_numbers_on_a_threshold_take_the_branch_of_most() -> None:
    """Two numbers of double precision that are one of single precision, as sums in another order are."""
    X = np.repeat([[0.3], [0.3 + 1e-12], [1.0]], [90, 30, 60], axis=0)
    y = np.repeat([0, 1, 1], [90, 30, 60])
    trees = HistGradientBoostingClassifier(max_iter=5, learning_rate=1.0)
    steps = make_pipeline(FunctionTransformer(), trees).fit(X, y)
    assert steps.predict(X[89:91]).tolist() == [0, 1]
    by_rows = rounded(steps, Rounding.BY_ROWS, X)
    assert by_rows.predict(X.astype(np.float32)[[0, 100, 170]]).tolist() == [0, 0, 1]


def test_a_file_that_routes_missing_values_otherwise_is_found_by_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No given row has a missing value, and the difference is found all the same."""
    chance = np.random.default_rng(3)
    X = chance.normal(size=(300, 4)).astype(np.float32)
    forest = RandomForestClassifier(10, random_state=0).fit(X, (X[:, 0] > 0).astype(int))
    module = "optimizer_jobs.machinery.estimators.convert.route_missing"
    monkeypatch.setattr(module, lambda _model, _estimator: None)
    with pytest.raises(DiffersError, match="rows with missing values differently"):
        to_onnx(forest, matrix(4), target=tmp_path / "model.onnx", rows={"x": X})
    monkeypatch.setattr(module, route_missing)
    to_onnx(forest, matrix(4), target=tmp_path / "model.onnx", rows={"x": X})


MATRICES: dict[str, Any] = {
    "stacked": StackingClassifier(
        [("forest", RandomForestClassifier(10, random_state=0)), ("line", LogisticRegression())], cv=2
    ),
    "calibrated by steps": CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
    "support vectors of two classes": make_pipeline(StandardScaler(), SVC()),
}


@pytest.mark.parametrize("name", MATRICES)
def test_ensembles_of_other_classifiers_answer_as_fitted(name: str, tmp_path: Path) -> None:
    """Scores too, whose sign and steps the converter of skl2onnx would change."""
    chance = np.random.default_rng(4)
    X = chance.normal(size=(300, 4)).astype(np.float32)
    fitted = clone(MATRICES[name]).fit(X, (X[:, 0] + chance.normal(0, 0.3, 300) > 0).astype(int))
    to_onnx(fitted, matrix(4), target=tmp_path / "model.onnx", rows={"x": X})
    proba = hasattr(fitted, "predict_proba")
    wanted = fitted.predict_proba(X)[:, 1] if proba else fitted.decision_function(X)
    assert np.abs(last(tmp_path / "model.onnx", {"x": X})[:, 1] - wanted).max() < 10 * CLOSE


def test_an_isotonic_regression_draws_lines_between_its_points(tmp_path: Path) -> None:
    """It takes a single column, and numbers beyond its ends are those of its ends."""
    chance = np.random.default_rng(5)
    X = chance.uniform(0, 10, 300).astype(np.float32)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(X, np.sqrt(X) + chance.normal(0, 0.2, 300))
    asked = np.concatenate([X, [-5.0, 50.0]]).astype(np.float32)[:, np.newaxis]
    to_onnx(fitted, matrix(1), target=tmp_path / "model.onnx", rows={"x": asked})
    assert np.abs(last(tmp_path / "model.onnx", {"x": asked})[:, 0] - fitted.predict(asked[:, 0])).max() < CLOSE


@pytest.mark.parametrize(
    "estimator",
    [
        MultiOutputClassifier(LogisticRegression()),
        RandomForestClassifier(5, random_state=0),
        RandomForestRegressor(5, random_state=0),
        LinearRegression(),
    ],
)
def test_several_targets_have_one_output(estimator: Any, tmp_path: Path) -> None:
    """A number of each target, or the probability of each label, (N, K)."""
    chance = np.random.default_rng(6)
    X = chance.normal(size=(300, 4)).astype(np.float32)
    y = (X[:, :3] > 0).astype(int)
    fitted = clone(estimator).fit(X, y)
    to_onnx(fitted, matrix(4), target=tmp_path / "model.onnx", rows={"x": X})
    (output,) = onnx.load(tmp_path / "model.onnx").graph.output
    assert [size.dim_value for size in output.type.tensor_type.shape.dim] == [0, 3]
    if is_classifier(fitted):
        wanted = np.stack([scores[:, 1] for scores in fitted.predict_proba(X)], axis=1)
    else:
        wanted = fitted.predict(X)
    assert np.abs(last(tmp_path / "model.onnx", {"x": X}) - wanted).max() < CLOSE


TEXTS = ["A good Ärger", "bad été day", "", "the GOOD naïve one", "x1 isn't bad", "straße good"] * 20


def test_texts_are_split_as_python_splits_them(tmp_path: Path) -> None:
    """Capitals, accents and words of one letter, in every alphabet; the locale of the machine does not matter."""
    labels = np.asarray(["good" in text.lower() for text in TEXTS]).astype(int)
    fitted = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(TEXTS, labels)
    file = columns({"review": np.asarray(TEXTS, dtype=object), "label": labels}, tabular=True)
    inputs = inputs_of(fitted, file, label="label")
    assert [(tensor.name, tensor.dtype) for tensor in inputs] == [("review", "str")]
    rows = rows_of(file, inputs, label="label", limit=1000)
    to_onnx(fitted, inputs, target=tmp_path / "model.onnx", rows=rows)
    assert np.abs(last(tmp_path / "model.onnx", rows) - fitted.predict_proba(TEXTS)).max() < CLOSE


def test_the_step_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Name and class, as the pipeline has them."""
    fitted = make_pipeline(HashingVectorizer(n_features=32), LogisticRegression()).fit(TEXTS, [0, 1] * 60)
    text = (TensorSpec(name="review", dtype="str", shape=(-1, 1)),)
    rows = {"review": np.asarray(TEXTS, dtype=object)[:, np.newaxis]}
    with pytest.raises(NotConvertibleError, match=r"step 'hashingvectorizer' \(HashingVectorizer\) cannot be written"):
        to_onnx(fitted, text, target=tmp_path / "model.onnx", rows=rows)


def test_frames_have_the_columns_and_cells_that_were_fitted() -> None:
    """Names in their order, empty texts as what the encoder has seen as missing, unused columns empty."""
    estimator = make_pipeline(prepared(ONE_HOT), LogisticRegression()).fit(TABLE, CHURN)
    rows = {"city": ["c1"], "plan": [""], "region": [2.0]}
    frame = asked_with(estimator, {name: np.asarray(cells, dtype=object)[:, None] for name, cells in rows.items()})
    assert list(frame) == list(TABLE)
    assert frame.plan[0] is None or frame.plan[0] != frame.plan[0]
    assert frame.price.isna().all()


@pytest.mark.parametrize(
    ("off", "rows", "jumps", "tolerable"),
    [
        (CLOSE / 2, 500, False, True),
        (FAR / 2, 1, False, True),
        (FAR / 2, 3, False, False),
        (2 * FAR, 1, False, False),
        (2 * FAR, 1, True, True),
        (2 * FAR, 3, True, False),
    ],
)
def test_a_difference_is_tolerable_by_how_far_and_how_many(
    off: float, rows: int, *, jumps: bool, tolerable: bool
) -> None:
    """Little on all rows, more on a thousandth of them, much only where the last digit decides."""
    scores = np.tile([0.2, 0.8], (1500, 1))
    other = scores.copy()
    other[:rows, 0] += off
    apart = difference([Answers(None, scores, probabilities=True)], Answers(None, other, probabilities=True))
    assert apart.is_tolerable(jumps=jumps) is tolerable
