"""`retune init` on tables whose labels have no usual name: asked for, guessed where nothing else fits, or refused."""

from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_linnerud
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.cli.local.optimize import read_manifest


@pytest.fixture
def gym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A regression of three numbers by scikit-learn as ONNX, and its tables; their last columns are the labels."""
    monkeypatch.chdir(tmp_path)
    bunch = load_linnerud(as_frame=True)
    rng = np.random.default_rng(0)
    X = np.repeat(bunch.data.to_numpy(), 15, axis=0) + rng.normal(size=(300, 3))
    Y = np.repeat(bunch.target.to_numpy(), 15, axis=0) + rng.normal(scale=0.5, size=(300, 3))
    model = MultiOutputRegressor(DecisionTreeRegressor(max_depth=6)).fit(X, Y)
    Path("model.onnx").write_bytes(to_onnx(model, X[:1].astype(np.float32)).SerializeToString())
    order = rng.permutation(300)
    for split, rows in {"train": order[:150], "val": order[150:220], "test": order[220:]}.items():
        names = [*bunch.feature_names, *bunch.target_names]
        pd.DataFrame(np.column_stack([X[rows], Y[rows]]), columns=names).to_csv(f"{split}.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_several_label_columns_are_asked_for_and_written(gym: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No name tells them; `--label` for each names them in the order of the outputs, and what is written is read."""
    assert command_line.main(["init", "model.onnx"]) == Exit.USAGE
    assert "Name the columns with the labels with --label, once for each." in capsys.readouterr().err
    options = [word for name in ("Weight", "Waist", "Pulse") for word in ("--label", name)]
    assert command_line.main(["init", "model.onnx", "-f", "mo.yaml", *options]) == Exit.DONE
    written = (gym / "mo.yaml").read_text()
    assert "# label: columns 'Weight', 'Waist', 'Pulse', as --label says." in written
    spec = read_manifest(Path("mo.yaml")).spec
    assert (spec.model.task, spec.data.validation.labels) == ("Regression", ("Weight", "Waist", "Pulse"))
    assert command_line.main(["inspect", "model.onnx", "--label", "Wight"]) == Exit.USAGE
    assert "column 'Wight', as --label says, is missing" in capsys.readouterr().err


def test_numbered_labels_are_guessed_only_where_the_model_has_as_many(
    gym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three columns target_1 to target_3 and three numbers a row; with one of them gone, the option is named."""
    for path in gym.glob("*.csv"):
        table = pd.read_csv(path)
        table.columns = [*table.columns[:3], *(f"target_{number}" for number in (1, 2, 3))]
        table.to_csv(path, index=False)
    assert command_line.main(["init", "model.onnx"]) == Exit.DONE
    assert capsys.readouterr().out.count('labelColumns: ["target_1", "target_2", "target_3"]') == 3
    for path in gym.glob("*.csv"):
        pd.read_csv(path).drop(columns="target_3").to_csv(path, index=False)
    assert command_line.main(["init", "model.onnx"]) == Exit.USAGE
    error = capsys.readouterr().err
    assert "columns target_1, target_2 are named like labels, and no output has 2 values a row" in error
    assert "--label, once for each" in error


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LightGBM", "scikit-learn"])
def test_a_model_that_knows_its_columns_shows_the_label_by_what_is_left(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a matrix any column could be the label, but the file names those it was fitted on; an id beside it is told."""
    monkeypatch.chdir(tmp_path)
    frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "benign"})
    frame.columns = frame.columns.str.replace(" ", "_")
    features = frame.drop(columns="benign")
    for split, rows in {"train": frame[:300], "val": frame[300:430], "test": frame[430:]}.items():
        rows.to_csv(f"{split}.csv", index=False)
    if kind == "LightGBM":
        lightgbm = pytest.importorskip("lightgbm")
        fitted = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(features, frame["benign"])
        fitted.booster_.save_model("model.txt")
    else:
        pytest.importorskip("skops")
        joblib.dump(DecisionTreeClassifier(max_depth=4).fit(features, frame["benign"]), "model.joblib")
    model = next(tmp_path.glob("model.*")).name
    assert command_line.main(["init", model, "--allow-code"]) == Exit.DONE
    assert "# label: column 'benign', because the model knows all others." in capsys.readouterr().out
    for path in tmp_path.glob("*.csv"):
        pd.read_csv(path).assign(batch="b7").to_csv(path, index=False)
    assert command_line.main(["init", model, "--allow-code"]) == Exit.USAGE
    assert "not fitted on benign, batch. Name the one with the labels" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["XGBoost", "scikit-learn"])
def test_several_columns_that_a_model_was_not_fitted_on_are_the_labels_where_it_predicts_as_many(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever they are called; one column more may be an id or a label, and is asked for."""
    monkeypatch.chdir(tmp_path)
    frame = load_linnerud(as_frame=True).frame
    frame = pd.concat([frame] * 10, ignore_index=True) + np.random.default_rng(0).normal(size=(200, 6))
    exercises, measures = frame[["Chins", "Situps", "Jumps"]], frame[["Weight", "Waist"]]
    for split, rows in {"train": slice(0, 100), "val": slice(100, 150), "test": slice(150, 200)}.items():
        exercises.join(measures)[rows].to_csv(f"{split}.csv", index=False)
    if kind == "XGBoost":
        xgboost = pytest.importorskip("xgboost")
        xgboost.XGBRegressor(n_estimators=20).fit(exercises, measures).save_model("model.ubj")
    else:
        pytest.importorskip("skops")
        joblib.dump(DecisionTreeRegressor(max_depth=4).fit(exercises, measures), "model.joblib")
    model = next(tmp_path.glob("model.*")).name
    assert command_line.main(["init", model, "--allow-code"]) == Exit.DONE
    manifest = capsys.readouterr().out
    assert "# label: columns 'Weight', 'Waist', because the model knows all others." in manifest
    assert manifest.count('labelColumns: ["Weight", "Waist"]') == 3
    for path in tmp_path.glob("*.csv"):
        pd.read_csv(path).assign(visit="v7").to_csv(path, index=False)
    assert command_line.main(["init", model, "--allow-code"]) == Exit.USAGE
    assert "not fitted on Weight, Waist, visit. Name the one with the labels" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model.onnx", "model.ubj"])
def test_a_feature_that_is_called_like_a_label_is_none(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes of a stone are x, y and z; the model takes or was fitted on them, so that the price is left."""
    monkeypatch.chdir(tmp_path)
    sizes = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32), columns=list("xyz"))
    stones = sizes.assign(price=sizes.sum(axis=1))
    if model == "model.ubj":
        xgboost = pytest.importorskip("xgboost")
        xgboost.XGBRegressor(n_estimators=20).fit(sizes, stones["price"]).save_model(model)
    else:
        tree, named = DecisionTreeRegressor(max_depth=6), ColumnTransformer([("sizes", "passthrough", list("xyz"))])
        fitted = make_pipeline(named, tree).fit(sizes, stones["price"])
        Path(model).write_bytes(to_onnx(fitted, sizes[:1]).SerializeToString())
    for split, rows in {"train": stones[:150], "val": stones[150:220], "test": stones[220:]}.items():
        rows.to_csv(f"{split}.csv", index=False)
    assert command_line.main(["init", model]) == Exit.DONE
    assert "# label: column 'price', because" in capsys.readouterr().out
