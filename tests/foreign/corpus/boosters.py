"""Boosted trees of three libraries, in each library's own files and as pickles: holes, categories, rare classes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.foreign.corpus import data
from tests.foreign.corpus.fitted import Save, answers, as_joblib, deliver
from tests.foreign.delivered import Array, Delivered, Foreign, save, split, take

Data = Callable[[], tuple[Array, Array]]
_CITIES = ("bern", "oslo", "riga", "turku")


def _make(model: Callable[[], Any], saved: Save, rows: Data, folder: Path) -> Delivered:
    X, y = rows()
    return deliver(folder, model(), {"x": X}, y, saved=saved)


def _xgboost(kind: str, **options: Any) -> Any:
    import xgboost

    return getattr(xgboost, kind)(**{"n_estimators": 60, "random_state": 0, "n_jobs": 1} | options)


def _lightgbm(kind: str, **options: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, kind)(**{"n_estimators": 60, "verbose": -1, "random_state": 0, "n_jobs": 1} | options)


def _catboost(kind: str, **options: Any) -> Any:
    import catboost

    own = {"iterations": 60, "verbose": False, "allow_writing_files": False, "random_seed": 0, "thread_count": 1}
    return getattr(catboost, kind)(**own | options)


def _own_file(name: str) -> Save:
    """Return what saves a model by its own method, in the form that the file's name says."""

    def saved(model: Any, folder: Path) -> Path:
        model.save_model(str(folder / name))
        return folder / name

    return saved


def _booster_file(model: Any, folder: Path) -> Path:
    """Save the booster inside LightGBM's estimator."""
    model.booster_.save_model(folder / "model.txt")
    return folder / "model.txt"


def _exported(model: Any, folder: Path) -> Path:
    """Save with CatBoost's own ONNX export."""
    model.save_model(str(folder / "model.onnx"), format="onnx")
    return folder / "model.onnx"


def _categories(folder: Path) -> Delivered:
    """LightGBM on a table with a column of categories, as pandas keeps them, and one of numbers with holes."""
    random = np.random.default_rng(2)
    city, age = random.choice(_CITIES, 4000), random.normal(40, 12, 4000)
    labels = ((city == "riga") + age / 60 + random.normal(0, 0.3, 4000) > 1.0).astype(np.int64)
    age[random.random(4000) < 0.1] = np.nan
    columns, parts = {"city": city.astype(object), "age": age}, split(4000)
    save(folder, columns, labels, parts=parts, as_="parquet")
    model = _lightgbm("LGBMClassifier").fit(_table(take(columns, parts["train"])), labels[parts["train"]])
    test = take(columns, parts["test"])
    native = answers(model, _table(test), labels)
    return Delivered(model=_booster_file(model, folder), rows=test, labels=labels[parts["test"]], native=native)


def _table(columns: dict[str, Array]) -> pd.DataFrame:
    return pd.DataFrame(columns).assign(city=lambda table: pd.Categorical(table["city"], categories=_CITIES))


def _words_of(model: Callable[[], Any], folder: Path) -> Delivered:
    """CatBoost on the same cities, which it reads as text."""
    random = np.random.default_rng(2)
    columns = {"city": random.choice(_CITIES, 1000).astype(object), "age": random.normal(40, 12, 1000)}
    labels = (columns["city"] == "riga").astype(np.int64)
    parts = split(1000)
    save(folder, columns, labels, parts=parts, as_="csv")
    fitted = model().fit(pd.DataFrame(take(columns, parts["train"])), labels[parts["train"]])
    path = _own_file("model.cbm")(fitted, folder)
    return Delivered(model=path, rows=take(columns, parts["test"]), labels=labels[parts["test"]], native={})


def _foreign(name: str, model: Callable[[], Any], saved: Save, rows: Data, **about: Any) -> Foreign:
    return Foreign(name=name, make=partial(_make, model, saved, rows), **about)


_UBJ, _JSON, _CBM = _own_file("model.ubj"), _own_file("model.json"), _own_file("model.cbm")
_XGB, _LGBM, _CAT = ("xgboost",), ("lightgbm",), ("catboost",)
MODELS = (
    _foreign(
        "xgboost-rare",
        partial(_xgboost, "XGBClassifier"),
        _UBJ,
        partial(data.classes, rare=0.034),
        packages=_XGB,
        slice=True,
    ),
    _foreign("xgboost-many", partial(_xgboost, "XGBClassifier"), _JSON, data.classes, packages=_XGB),
    _foreign("xgboost-holes", partial(_xgboost, "XGBClassifier"), as_joblib, data.holes, packages=_XGB),
    _foreign(
        "xgboost-forest",
        partial(_xgboost, "XGBRFRegressor", max_depth=8),
        _UBJ,
        data.friedman,
        packages=_XGB,
    ),
    _foreign(
        "xgboost-counts",
        partial(_xgboost, "XGBRegressor", objective="reg:tweedie"),
        _JSON,
        data.amounts,
        packages=_XGB,
    ),
    _foreign(
        "xgboost-linear",
        partial(_xgboost, "XGBClassifier", booster="gblinear"),
        _JSON,
        partial(data.classes, 2),
        packages=_XGB,
        refused="gblinear",
    ),
    _foreign("lightgbm-many", partial(_lightgbm, "LGBMClassifier"), _booster_file, data.classes, packages=_LGBM),
    _foreign("lightgbm-text-labels", partial(_lightgbm, "LGBMClassifier"), as_joblib, data.words, packages=_LGBM),
    _foreign(
        "lightgbm-holes",
        partial(_lightgbm, "LGBMClassifier", boosting_type="dart"),
        _booster_file,
        data.holes,
        packages=_LGBM,
        slice=True,
    ),
    _foreign("lightgbm-numbers", partial(_lightgbm, "LGBMRegressor"), _booster_file, data.friedman, packages=_LGBM),
    Foreign(name="lightgbm-categories", make=_categories, packages=_LGBM),
    _foreign("catboost-many", partial(_catboost, "CatBoostClassifier"), _CBM, data.classes, packages=_CAT),
    _foreign("catboost-numbers", partial(_catboost, "CatBoostRegressor"), _CBM, data.friedman, packages=_CAT),
    _foreign(
        "catboost-exported",
        partial(_catboost, "CatBoostClassifier"),
        _exported,
        partial(data.classes, 2),
        packages=_CAT,
    ),
    Foreign(
        name="catboost-words",
        make=partial(_words_of, partial(_catboost, "CatBoostClassifier", cat_features=["city"])),
        packages=_CAT,
        refused="categorical",
    ),
)
