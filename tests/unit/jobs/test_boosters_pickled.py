"""Objects of XGBoost, LightGBM and CatBoost in pickles, alone and as steps of scikit-learn pipelines."""

from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.estimators.convert import to_onnx
from optimizer_jobs.models.native import Native
from optimizer_jobs.signature import TensorSpec
from optimizer_jobs.technique import Applied, Context, TrainingPlan
from retune.api.model import ModelFormat, Task
from retune.api.techniques import TechniqueType
from tests.unit.jobs.boosters_for_tests import Array, answers, columns, delivered, rows

_FEW: dict[str, Any] = {"n_estimators": 5, "n_jobs": 1}
_QUIET: dict[str, Any] = {**_FEW, "verbose": -1}
_INPUT = (TensorSpec(name="x", dtype="float32", shape=(-1, 5)),)
TEXTS = np.array(["high", "low", "mid"])


def _classes() -> tuple[Array, Array]:
    X, numbers = rows()
    return X, np.digitize(numbers, [0, 1])


def _to_onnx(estimator: Any, target: Path) -> dict[str, Array]:
    """Return what the file of a fitted estimator answers to the rows."""
    X, _ = rows()
    to_onnx(estimator, _INPUT, target=target, rows={"x": X})
    return answers(target, {"x": X})


@pytest.mark.parametrize(
    "classifier",
    [xgboost.XGBClassifier(**_FEW), xgboost.XGBRFClassifier(**_FEW), lightgbm.LGBMClassifier(**_QUIET)],
    ids=lambda model: type(model).__name__,
)
def test_a_classifier_answers_the_same_alone_imputed_and_calibrated(classifier: Any, tmp_path: Path) -> None:
    """Probabilities agree to single precision, missing values included, whatever scikit-learn calibrates by."""
    X, y = _classes()
    imputed = make_pipeline(SimpleImputer(), classifier)
    for estimator in (classifier, imputed, CalibratedClassifierCV(classifier, cv=2)):
        estimator.fit(X, y)
        given = _to_onnx(estimator, tmp_path / "model.onnx")
        assert np.abs(given["probabilities"] - estimator.predict_proba(X)).max() < 1e-5
        assert (given["label"] == estimator.predict(X)).mean() > 0.999


@pytest.mark.parametrize("labels", [TEXTS, np.array([3, 5, 9])], ids=["text", "numbers"])
def test_labels_are_those_that_it_was_fitted_on(labels: Array, tmp_path: Path) -> None:
    """LightGBM takes any labels; the file answers them, in a pipeline too."""
    X, y = _classes()
    estimator = make_pipeline(SimpleImputer(), lightgbm.LGBMClassifier(**_QUIET)).fit(X, labels[y])
    given = _to_onnx(estimator, tmp_path / "model.onnx")
    assert given["label"].tolist() == estimator.predict(X).tolist()


@pytest.mark.parametrize(
    "regressor",
    [xgboost.XGBRegressor(**_FEW), lightgbm.LGBMRegressor(**_QUIET, objective="tweedie")],
    ids=lambda model: type(model).__name__,
)
def test_a_regressor_in_a_pipeline_answers_the_same(regressor: Any, tmp_path: Path) -> None:
    """One number a row, as (N, 1)."""
    X, numbers = rows()
    estimator = make_pipeline(SimpleImputer(), regressor).fit(X, np.abs(numbers))
    given = _to_onnx(estimator, tmp_path / "model.onnx")["value"]
    assert np.abs(given[:, 0] - estimator.predict(X)).max() < 1e-5 * np.abs(numbers).max()


def _boosters() -> dict[str, Any]:
    """Return objects that have no place in a pipeline, by what they are."""
    X, y = _classes()
    table = pd.DataFrame(X[:, :2], columns=["a", "b"]).assign(c=pd.Categorical(TEXTS[y]))
    train: dict[str, Any] = {"verbose": -1, "objective": "multiclass", "num_class": 3}
    return {
        "xgboost.Booster": xgboost.train({"objective": "multi:softprob", "num_class": 3}, xgboost.DMatrix(X, y), 3),
        "lightgbm.Booster": lightgbm.train(train, lightgbm.Dataset(X, y), 3),
        "pandas categories": lightgbm.LGBMClassifier(**_QUIET).fit(table, TEXTS[y]),
    }


@pytest.mark.parametrize("kind", ["xgboost.Booster", "lightgbm.Booster", "pandas categories"])
def test_what_has_no_place_in_a_pipeline_goes_by_the_file_of_its_library(kind: str, tmp_path: Path) -> None:
    """The Job keeps that file to train on; a pickle of categories answers labels as fitted."""
    X, y = _classes()
    model = _boosters()[kind]
    joblib.dump(model, tmp_path / "m.joblib")
    table = {"a": X[:, 0], "b": X[:, 1], "c": TEXTS[y].astype(object)} if kind == "pandas categories" else {"x": X}
    data = columns({**table, "label": y}, tabular="a" in table)
    made = delivered(tmp_path / "m.joblib", data, format_=ModelFormat.JOBLIB, task=Task.CLASSIFICATION)
    library = ModelFormat.XGBOOST if kind.startswith("xgboost") else ModelFormat.LIGHTGBM
    assert made.native is not None
    assert (made.native.format, made.native.path.exists()) == (library, True)
    if "a" not in table:
        return
    inputs = {name: values[:, np.newaxis] for name, values in table.items()}
    frame = pd.DataFrame(table).assign(c=pd.Categorical(table["c"], categories=sorted(TEXTS)))
    assert answers(made.model, inputs)["label"].tolist() == model.predict(frame).tolist()
    assert made.classes == tuple(sorted(TEXTS))


def test_another_number_for_missing_values_is_refused(tmp_path: Path) -> None:
    """A file has no such number, so that every row with it would be answered otherwise."""
    X, y = _classes()
    ranker = xgboost.XGBRanker(**_FEW, missing=0.0).fit(np.nan_to_num(X), y, group=[len(X)])
    joblib.dump(ranker, tmp_path / "m.joblib")
    with pytest.raises(JobError, match="takes 0 for a missing value"):
        delivered(tmp_path / "m.joblib", columns({"x": X, "label": y}), format_=ModelFormat.JOBLIB)


@pytest.mark.torch
def test_skops_keeps_boosted_trees_of_a_pipeline(tmp_path: Path) -> None:
    """The file is data, and its pipeline can be trained again."""
    io = pytest.importorskip("skops.io")
    from optimizer_jobs.machinery.estimators.load import load

    X, y = _classes()
    for classifier in (xgboost.XGBClassifier(**_FEW), lightgbm.LGBMClassifier(**_QUIET)):
        estimator = make_pipeline(SimpleImputer(), classifier).fit(X, y)
        io.dump(estimator, tmp_path / "m.skops")
        loaded = load(Native(tmp_path / "m.skops", ModelFormat.SKOPS)).estimator
        assert (loaded.predict(X) == estimator.predict(X)).all()
        made = delivered(tmp_path / "m.skops", columns({"x": X, "label": y}), format_=ModelFormat.SKOPS)
        assert made.native is not None
        assert made.native.format is ModelFormat.SKOPS


@pytest.mark.torch
@pytest.mark.parametrize("library", ["XGBoost", "LightGBM"])
def test_a_pickled_classifier_is_trained_again(library: str, tmp_path: Path) -> None:
    """With parameters of its own names, and fewer trees; the file answers as the new estimator does."""
    pytest.importorskip("skops.io")
    from optimizer_jobs.machinery.training import estimator_spaces, estimators

    X, y = _classes()
    model = xgboost.XGBClassifier(n_jobs=1) if library == "XGBoost" else lightgbm.LGBMClassifier(n_jobs=1, verbose=-1)
    joblib.dump(model.fit(X, y), tmp_path / "m.joblib")
    made = delivered(tmp_path / "m.joblib", columns({"x": X, "label": y}), format_=ModelFormat.JOBLIB)
    assert made.native is not None
    spaces = [space(made.native, None) for space in (estimator_spaces.hyperparameters, estimator_spaces.architecture)]
    names = {parameter.name for space in spaces for parameter in space.parameters}
    assert {"learning_rate", "colsample_bytree", "n_estimators"} <= names
    kept = Rows(inputs={"x": X}, labels=y, digest="training")
    (tmp_path / "work").mkdir()
    context = Context(
        workdir=tmp_path / "work",
        signature=made.signature,
        native=made.native,
        training=kept,
        validation=kept,
        seed=0,
        cpu_flags=frozenset(),
    )
    plan: TrainingPlan = {
        TechniqueType.HYPERPARAMETER_TUNING: {"learning_rate": 0.3},
        TechniqueType.ARCHITECTURE: {"n_estimators": 10},
    }
    trained = estimators.fit(made.model, plan, context)
    assert isinstance(trained, Applied), trained
    assert trained.model.stat().st_size < made.model.stat().st_size


_TRAINING: dict[str, Any] = {"iterations": 5, "depth": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("Logloss", "probabilities"),
        ("MultiClass", "probabilities"),
        ("MultiClassOneVsAll", "probabilities"),
        ("RMSE", "value"),
        ("Poisson", "value"),
        ("Quantile:alpha=0.9", "value"),
    ],
)
def test_catboost_answers_the_same_as_onnx(loss: str, output: str, tmp_path: Path) -> None:
    """The conversion compares with CatBoost itself, also where CatBoost's own export is wrong."""
    catboost = pytest.importorskip("catboost")
    X, numbers = rows()
    y = np.abs(numbers) if output == "value" else np.digitize(numbers, [0] if loss == "Logloss" else [0, 1])
    model = catboost.CatBoost({"loss_function": loss, **_TRAINING}).fit(X, y)
    model.save_model(str(tmp_path / "m.cbm"))
    made = delivered(tmp_path / "m.cbm", columns({"x": X, "label": y}), format_=ModelFormat.CATBOOST)
    kind = "Exponent" if loss == "Poisson" else "RawFormulaVal" if output == "value" else "Probability"
    expected = model.predict(X, prediction_type=kind).reshape(len(X), -1)
    assert np.abs(answers(made.model, {"x": X})[output] - expected).max() < 1e-5


@pytest.mark.torch
def test_catboost_keeps_text_labels_and_refuses_what_it_does_not_export(tmp_path: Path) -> None:
    """The sentence names the columns."""
    catboost = pytest.importorskip("catboost")
    X, y = _classes()
    joblib.dump(catboost.CatBoostClassifier(**_TRAINING).fit(X, TEXTS[y]), tmp_path / "m.joblib")
    made = delivered(tmp_path / "m.joblib", columns({"x": X, "label": y}), format_=ModelFormat.JOBLIB)
    assert made.classes == tuple(sorted(TEXTS))
    assert set(answers(made.model, {"x": X})["label"]) <= set(TEXTS)
    table = pd.DataFrame({"size": X[:, 0], "color": TEXTS[y]})
    catboost.CatBoostClassifier(**_TRAINING).fit(table, y, cat_features=["color"]).save_model(str(tmp_path / "m.cbm"))
    data = columns({"size": X[:, 0], "color": TEXTS[y], "label": y}, tabular=True)
    with pytest.raises(JobError, match="does not export categorical features, here color"):
        delivered(tmp_path / "m.cbm", data, format_=ModelFormat.CATBOOST)
