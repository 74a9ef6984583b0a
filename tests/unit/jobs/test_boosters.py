"""Files of XGBoost and LightGBM as ONNX: the same answers on every row, or a sentence that names the part."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.boosters import agreement, ubjson
from optimizer_jobs.machinery.boosters import lightgbm as lightgbm_files
from optimizer_jobs.machinery.boosters import xgboost as xgboost_files
from optimizer_jobs.machinery.boosters.forest import Booster, BoosterError
from optimizer_jobs.machinery.boosters.write import write
from optimizer_jobs.technique import Applied, Context
from optimizer_jobs.techniques import pruning
from retune.api.model import ModelFormat, Task
from retune.contract.results import Reason
from tests.unit.jobs.boosters_for_tests import CODES, KINDS, Array, answers, columns, delivered, hard, rows

_ROUNDS = 5
_XGBOOST: Mapping[str, Mapping[str, Any]] = {
    "binary": {"objective": "binary:logistic", "base_score": 0.02},
    "classes": {"objective": "multi:softprob", "num_class": 4},
    "classes by label": {"objective": "multi:softmax", "num_class": 4},
    "categories": {"objective": "binary:logistic", "max_cat_to_onehot": 1, "kinds": KINDS},
    "categories one by one": {"objective": "reg:squarederror", "max_cat_to_onehot": 99, "kinds": KINDS},
    "dart": {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3},
    "forest": {"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5, "eta": 1},
    "logarithm": {"objective": "reg:squaredlogerror"},
    "counts": {"objective": "count:poisson"},
    "gamma": {"objective": "reg:gamma"},
    "tweedie": {"objective": "reg:tweedie"},
    "shares": {"objective": "reg:logistic"},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": np.array([0.1, 0.5, 0.9])},
    "ranks": {"objective": "rank:ndcg"},
    "several targets": {"objective": "reg:squarederror", "targets": 2},
    "vectors in leaves": {"objective": "reg:squarederror", "targets": 2, "multi_strategy": "multi_output_tree"},
}
_LIGHTGBM: Mapping[str, Mapping[str, Any]] = {
    "binary": {"objective": "binary"},
    "slope": {"objective": "binary", "sigmoid": 2.0},
    "classes": {"objective": "multiclass", "num_class": 4},
    "one against all": {"objective": "multiclassova", "num_class": 4},
    "categories": {"objective": "multiclass", "num_class": 4, "categorical_feature": [CODES]},
    "without missing values": {"objective": "binary", "use_missing": False, "categorical_feature": [CODES]},
    "averaged": {
        "objective": "multiclass",
        "num_class": 4,
        "boosting": "rf",
        "bagging_freq": 1,
        "bagging_fraction": 0.5,
    },
    "dart": {"objective": "binary", "boosting": "dart"},
    "regression": {"objective": "regression"},
    "square root": {"objective": "regression", "reg_sqrt": True},
    "counts": {"objective": "poisson"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "quantile": {"objective": "quantile"},
    "shares": {"objective": "cross_entropy"},
    "intensities": {"objective": "cross_entropy_lambda"},
    "ranks": {"objective": "lambdarank"},
}


def _labels(objective: str, numbers: Array) -> Array:
    """Return labels that the objective takes."""
    if objective.startswith("multi"):
        return np.digitize(numbers, [0, 1, 2])
    positive = ("poisson", "gamma", "tweedie", "squaredlogerror")
    if objective.endswith(positive):
        return np.abs(numbers) + 0.1
    two = ("binary", "reg:logistic", "rank", "lambdarank", "cross")
    return (numbers > 0.8).astype(np.float64) if objective.startswith(two) else numbers


def _fit_xgboost(settings: Mapping[str, Any]) -> xgboost.Booster:
    (X, numbers), settings = rows(), dict(settings)
    kinds, targets = settings.pop("kinds", None), settings.pop("targets", 1)
    y = _labels(settings["objective"], numbers)
    y = np.stack([y, 2 * y + np.nan_to_num(X[:, 1])], axis=1) if targets > 1 else y
    data = xgboost.DMatrix(X, label=y, feature_types=kinds, enable_categorical=kinds is not None)
    if settings["objective"].startswith("rank"):
        data.set_group([len(X) // 10] * 10)
    return xgboost.train({"max_depth": 4, "seed": 0, "nthread": 1, **settings}, data, _ROUNDS)


def _asked_xgboost(model: xgboost.Booster, X: Array) -> Array:
    if "softmax" in model.save_config():
        model.set_param({"objective": "multi:softprob"})
    kinds = model.feature_types
    return np.asarray(model.predict(xgboost.DMatrix(X, feature_types=kinds, enable_categorical=kinds is not None)))


def _fit_lightgbm(settings: Mapping[str, Any], **more: Any) -> lightgbm.Booster:
    X, numbers = rows()
    own = {"verbose": -1, "num_leaves": 15, "min_data_in_leaf": 5, "num_threads": 1, "seed": 0, **settings}
    own |= {"min_data_per_group": 2, "cat_smooth": 1, "max_cat_to_onehot": 1}
    chosen = own.pop("categorical_feature", "auto")
    groups = [len(X) // 10] * 10 if own["objective"] == "lambdarank" else None
    y = _labels(own["objective"], numbers)
    data = lightgbm.Dataset(X, y, group=groups, categorical_feature=chosen, params={"verbose": -1})
    return lightgbm.train(own | more, data, _ROUNDS)


def _same(booster: Booster, model: Path, X: Array, expected: Array) -> None:
    """Check the answers to every row, to a hundred thousandth of the largest one."""
    output = "probabilities" if booster.forest.classes else "value"
    expected = expected.reshape(len(X), -1)
    expected = np.hstack([1 - expected, expected]) if booster.forest.classes == 2 else expected
    given = answers(model, {"x": X})
    assert given[output].shape == expected.shape
    assert np.abs(given[output] - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    if booster.forest.classes:
        assert given["label"].dtype == np.int64
        assert (given["label"] == expected.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("name", "extension"), [*((name, "ubj") for name in _XGBOOST), ("binary", "json"), ("categories", "json")]
)
def test_xgboost_answers_the_same_as_onnx(name: str, extension: str, tmp_path: Path) -> None:
    """On missing values, at thresholds and beside them, and for categories that no tree knows."""
    model, path = _fit_xgboost(_XGBOOST[name]), tmp_path / f"model.{extension}"
    model.save_model(path)
    booster = xgboost_files.read(path)
    X = hard(rows(300, seed=5)[0], booster.forest, codes="kinds" in _XGBOOST[name])
    write(booster, tmp_path / "model.onnx")
    _same(booster, tmp_path / "model.onnx", X, _asked_xgboost(model, X))


@pytest.mark.parametrize("name", _LIGHTGBM)
def test_lightgbm_answers_the_same_as_onnx(name: str, tmp_path: Path) -> None:
    """On missing values, at thresholds and beside them, around 0, and for categories that no tree knows."""
    model, path = _fit_lightgbm(_LIGHTGBM[name]), tmp_path / "model.txt"
    model.save_model(path)
    booster = lightgbm_files.read(path)
    X = hard(rows(300, seed=5)[0], booster.forest, codes="categorical_feature" in _LIGHTGBM[name])
    write(booster, tmp_path / "model.onnx")
    _same(booster, tmp_path / "model.onnx", X, np.asarray(model.predict(X)))


@cache
def _table() -> tuple[pd.DataFrame, Array]:
    X, numbers = rows()
    codes = np.nan_to_num(X[:, CODES], nan=-1).astype(int)
    texts, whole = ["red", "green", "blue", "x", "y", "z", "0"], 10 * np.arange(40) + 3
    color = pd.Categorical.from_codes(np.where(codes < 0, -1, codes % 7), pd.Index(texts))
    shop = pd.Categorical.from_codes(codes, pd.Index(whole))
    return pd.DataFrame({"size": X[:, 0], "color": color, "shop": shop}), np.digitize(numbers, [0, 1])


@pytest.mark.parametrize("library", ["XGBoost", "LightGBM"])
def test_columns_of_categories_are_answered_as_they_are_in_the_data(library: str, tmp_path: Path) -> None:
    """Text columns are inputs of their own, numbers of a shop stay numbers, and unknown text is a missing value."""
    table, y = _table()
    path = tmp_path / ("model.ubj" if library == "XGBoost" else "model.txt")
    model = _fitted(library, table, y, path)
    data = columns(
        {
            "size": table["size"].to_numpy(),
            "color": table["color"].astype(object).to_numpy(),
            "shop": table["shop"].astype(float).to_numpy(),
            "label": y,
        },
        tabular=True,
    )
    made = delivered(path, data, format_=ModelFormat(library))
    assert made.signature.words.startswith("size float32 (N, 1), color str (N, 1), shop float32 (N, 1) -> label int64")
    text = np.asarray(
        ["?" if missing else str(value) for value, missing in zip(table["color"], table["color"].isna(), strict=True)],
        dtype=object,
    )
    inputs = {
        "size": table[["size"]].to_numpy(np.float32),
        "color": text[:, np.newaxis],
        "shop": table["shop"].astype(float).to_numpy(np.float32)[:, np.newaxis],
    }
    assert np.abs(answers(made.model, inputs)["probabilities"] - model.predict_proba(table)).max() < 1e-5


def _fitted(library: str, table: pd.DataFrame, y: Array, path: Path) -> Any:
    """Return a classifier of the library, fitted on a table with categories and saved."""
    if library == "XGBoost":
        classifier = xgboost.XGBClassifier(
            n_estimators=_ROUNDS, max_depth=4, enable_categorical=True, max_cat_to_onehot=1
        )
        classifier.fit(table, y).save_model(path)
        return classifier
    chosen: dict[str, Any] = {"min_data_per_group": 2, "cat_smooth": 1, "max_cat_to_onehot": 1, "verbose": -1}
    classifier = lightgbm.LGBMClassifier(n_estimators=_ROUNDS, **chosen).fit(table, y)
    classifier.booster_.save_model(path)
    return classifier


@pytest.mark.parametrize("version", ["1.7", "3"])
def test_a_file_of_scikit_learns_interface_answers_up_to_its_best_round(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its predict does after early stopping; the Job says so. Old files do not say which trees are of a round."""
    X, numbers = rows()
    y = np.digitize(numbers, [0, 1])
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=3, early_stopping_rounds=2, learning_rate=1.0)
    model.fit(X[:400], y[:400], eval_set=[(X[400:], y[400:])], verbose=False)
    path = tmp_path / "model.json"
    model.save_model(path)
    if version == "1.7":
        saved = json.loads(path.read_text())
        del saved["learner"]["gradient_booster"]["model"]["iteration_indptr"]
        path.write_text(json.dumps(saved))
    made = delivered(path, columns({"x": X, "label": y}), format_=ModelFormat.XGBOOST)
    assert np.abs(answers(made.model, {"x": X})["probabilities"] - model.predict_proba(X)).max() < 1e-5
    assert f"up to round {model.best_iteration + 1} are used" in capsys.readouterr().out


@pytest.mark.parametrize("library", ["XGBoost", "LightGBM"])
def test_where_the_library_is_absent_treelite_answers_for_it(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison takes place, and notices trees that answer otherwise."""
    monkeypatch.setattr(agreement, "find_spec", lambda _: None)
    path = tmp_path / ("model.ubj" if library == "XGBoost" else "model.txt")
    (_fit_xgboost(_XGBOOST["classes"]) if library == "XGBoost" else _fit_lightgbm(_LIGHTGBM["classes"])).save_model(
        path
    )
    X = rows()[0]
    made = delivered(path, columns({"x": X, "label": np.zeros(len(X))}), format_=ModelFormat(library))
    booster = (xgboost_files if library == "XGBoost" else lightgbm_files).read(path)
    booster.forest.trees[0].values[:] += 0.01
    write(booster, made.model)
    native = agreement.native_of(booster, path)
    assert native is not None
    with pytest.raises(BoosterError, match=f"of 600 rows otherwise than {library}, by up to 0.00"):
        agreement.check(booster, made.model, {"x": X}, native=native)


def _saved(model: Any, path: Path) -> Path:
    model.save_model(path)
    return path


def _zero_as_missing(folder: Path) -> Path:
    return _saved(_fit_lightgbm({"objective": "regression", "zero_as_missing": True}), folder / "m.txt")


def _linear_trees(folder: Path) -> Path:
    X, y = rows()
    model = lightgbm.train({"verbose": -1, "linear_tree": True}, lightgbm.Dataset(np.nan_to_num(X), y), 2)
    return _saved(model, folder / "m.txt")


def _no_trees(folder: Path) -> Path:
    X, y = rows()
    return _saved(
        xgboost.train({"booster": "gblinear"}, xgboost.DMatrix(np.nan_to_num(X), label=y), 2), folder / "m.ubj"
    )


def _hinge(folder: Path) -> Path:
    return _saved(_fit_xgboost({"objective": "binary:hinge"}), folder / "m.ubj")


def _several_labels(folder: Path) -> Path:
    X, y = rows()
    model = xgboost.XGBClassifier(n_estimators=2).fit(X, np.stack([y > 0, y > 1], axis=1).astype(int))
    return _saved(model, folder / "m.ubj")


def _truncated(folder: Path) -> Path:
    path = _saved(_fit_xgboost({"objective": "reg:squarederror"}), folder / "m.ubj")
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _truncated_text(folder: Path) -> Path:
    path = _saved(_fit_lightgbm({"objective": "regression"}), folder / "m.txt")
    path.write_bytes(path.read_bytes()[:700])
    return path


def _other_json(folder: Path) -> Path:
    path = folder / "m.json"
    path.write_text(json.dumps({"learner": [1, 2]}))
    return path


def _old_binary(folder: Path) -> Path:
    path = folder / "m.model"
    path.write_bytes(
        b"\0\0\0?\4" + bytes(131) + b"\x10\0\0\0\0\0\0\0reg:squarederror\6\0\0\0\0\0\0\0gbtree" + bytes(400)
    )
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_zero_as_missing, "takes zeros for missing values"),
        (_linear_trees, "linear_tree"),
        (_no_trees, "gblinear, which has no trees"),
        (_hinge, "binary:hinge answers no probabilities"),
        (_several_labels, "more than one label a row"),
        (_truncated, "damaged or truncated"),
        (_truncated_text, "treelite cannot read it"),
        (_other_json, "no model that XGBoost saved"),
        (_old_binary, "the old binary format of XGBoost. Save it with XGBoost 1.7"),
    ],
)
def test_what_has_no_counterpart_is_refused_in_one_sentence(make: Any, words: str, tmp_path: Path) -> None:
    """The sentence names the part, and never a traceback."""
    path, X = make(tmp_path), rows()[0]
    format_ = ModelFormat.LIGHTGBM if path.suffix == ".txt" else ModelFormat.XGBOOST
    with pytest.raises(JobError, match=words) as caught:
        delivered(path, columns({"x": X, "label": np.zeros(len(X))}), format_=format_)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert "\n" not in caught.value.message


def test_a_regression_is_not_taken_for_a_classifier(tmp_path: Path) -> None:
    """The objective in the file says what it does, and the sentence which task to set."""
    X = rows()[0]
    path = _saved(_fit_xgboost({"objective": "count:poisson"}), tmp_path / "m.ubj")
    data = columns({"x": X, "label": np.zeros(len(X))})
    with pytest.raises(JobError, match=r"count:poisson does a regression, .*Set spec.model.task: Regression"):
        delivered(path, data, format_=ModelFormat.XGBOOST, task=Task.CLASSIFICATION)
    assert delivered(path, data, format_=ModelFormat.XGBOOST, task=Task.REGRESSION).signature.outputs[0].name == "value"


def test_columns_in_another_order_or_number_are_refused(tmp_path: Path) -> None:
    """A matrix has no names, so that every answer would be wrong."""
    X, y = rows()
    table = pd.DataFrame(X, columns=list("abcde"))
    path = tmp_path / "m.ubj"
    xgboost.XGBRegressor(n_estimators=2).fit(table, y).save_model(path)
    reordered = columns({**{name: table[name].to_numpy() for name in "bacde"}, "label": y}, tabular=True)
    with pytest.raises(JobError, match="fitted on columns a, b, c, d, e, and the data has them in another order"):
        delivered(path, reordered, format_=ModelFormat.XGBOOST)
    fewer = columns({**{name: table[name].to_numpy() for name in "abcd"}, "label": y}, tabular=True)
    with pytest.raises(JobError, match=r"rows have shape \(4\), and the trees take 5 columns"):
        delivered(path, fewer, format_=ModelFormat.XGBOOST)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("abcd label price", "was fitted on 'label', and the model was not fitted on price"),
        ("abcdz label", "columns that the data lacks: e"),
    ],
)
def test_a_table_of_as_many_columns_as_were_fitted_is_no_such_matrix(tmp_path: Path, names: str, says: str) -> None:
    """One fitted column is called like the label, or is another one: their places would hold something else."""
    X, y = rows()
    letters, *more = names.split()
    fitted = ["a", "b", "c", "d", "label" if "price" in more else "e"]
    path = tmp_path / "m.ubj"
    xgboost.XGBRegressor(n_estimators=2).fit(pd.DataFrame(X, columns=fitted), y).save_model(path)
    table = columns(dict.fromkeys([*letters, *more], y), tabular=True)
    with pytest.raises(JobError, match=says):
        delivered(path, table, format_=ModelFormat.XGBOOST)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["XGBoost", "LightGBM"])
def test_trees_with_categories_can_be_dropped(library: str, tmp_path: Path) -> None:
    """The trees that are kept answer like all: their nodes are compared as ONNX Runtime compares them."""
    path = tmp_path / ("m.ubj" if library == "XGBoost" else "m.txt")
    many = {"min_data_per_group": 2, "cat_smooth": 1, "max_cat_to_onehot": 1}
    X, numbers = rows()
    if library == "XGBoost":
        data = xgboost.DMatrix(X, label=numbers, feature_types=KINDS, enable_categorical=True)
        xgboost.train({"max_depth": 4, "max_cat_to_onehot": 1}, data, 40).save_model(path)
    else:
        dataset = lightgbm.Dataset(X, numbers, categorical_feature=[CODES], params={"verbose": -1})
        lightgbm.train({"verbose": -1, "num_leaves": 15, **many}, dataset, 40).save_model(path)
    made = delivered(path, columns({"x": X, "label": numbers}), format_=ModelFormat(library))
    work, kept = tmp_path / "work", Rows(inputs={"x": X}, labels=numbers, digest="training")
    work.mkdir()
    context = Context(workdir=work, signature=made.signature, calibration=kept, seed=0, cpu_flags=frozenset())
    done = pruning.apply(made.model, {"granularity": "Structured", "ratio": 0.25}, context)
    assert isinstance(done, Applied)
    assert done.summary.startswith("30 of 40 trees and ")
    given, expected = (answers(file, {"x": X})["value"][:, 0] for file in (done.model, made.model))
    assert np.corrcoef(given, expected)[0, 1] > 0.99


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff", b"[" * 99, b"{U\5ab", b"?", b"Si\xff"]
)
def test_hostile_bytes_end_in_one_error(content: bytes) -> None:
    """No memory is taken for what the bytes promise, and no other exception gets out."""
    with pytest.raises(ubjson.UbjsonError):
        ubjson.loads(content)
