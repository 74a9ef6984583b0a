"""Put preparing steps before an estimator, in place of delivered steps of the same kind.

Every step here becomes part of the ONNX file, so that requests go through the same preparation as training rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optimizer_jobs.technique import Params, ParamValue
from retune.api.model import Task
from retune.api.techniques import PreparationKind

DELIVERED = "Delivered"
"""Choice: the steps of this kind stay as delivered, be there some or none."""
ABSENT = "None"
"""Choice: no step of this kind, even where one was delivered."""

CHOICES: dict[PreparationKind, tuple[ParamValue, ...]] = {
    PreparationKind.IMPUTATION: (DELIVERED, "Mean", "Median", "MostFrequent"),
    PreparationKind.ENCODING: (DELIVERED, "OneHot"),
    PreparationKind.BINNING: (DELIVERED, 4, 8, 16),
    PreparationKind.INTERACTIONS: (DELIVERED, "Products", "Polynomial"),
    PreparationKind.SCALING: (DELIVERED, ABSENT, "Standard", "MinMax", "Robust", "Power"),
    PreparationKind.SELECTION: (DELIVERED, 0.75, 0.5, 0.25),
    PreparationKind.PCA: (DELIVERED, 0.99, 0.95, 0.9),
}
"""Choices by kind, in the order in which steps are put before the estimator. Numbers are bins of a column (Binning),
the share of columns kept (Selection), and the share of variance kept (PCA)."""

_REPLACES: Mapping[PreparationKind, tuple[str, ...]] = {
    PreparationKind.IMPUTATION: ("SimpleImputer",),
    PreparationKind.BINNING: ("KBinsDiscretizer",),
    PreparationKind.INTERACTIONS: ("PolynomialFeatures",),
    PreparationKind.SCALING: (
        "StandardScaler",
        "MinMaxScaler",
        "MaxAbsScaler",
        "RobustScaler",
        "PowerTransformer",
        "QuantileTransformer",
    ),
    PreparationKind.SELECTION: ("SelectKBest", "SelectPercentile", "SelectFromModel", "VarianceThreshold"),
    PreparationKind.PCA: ("PCA",),
}
"""Classes of delivered steps that a step of this kind replaces."""

_MOST_CODES = 10
"""Different whole numbers that a column may have to be taken for codes of categories."""
_MOST_FACTORS = 16
"""Columns whose products are computed, at most: the best ones, where there are more."""


OF_TEXTS = "the rows are texts, for which there are no such steps"


class NothingToPrepareError(ValueError):
    """The rows have nothing for a step to prepare; the message says what is missing."""


def words(params: Params) -> str:
    """Return the steps, such as `scaling Standard, PCA 0.95`."""
    return ", ".join(
        f"{name if name == PreparationKind.PCA else name.lower()} {value}" for name, value in params.items()
    )


def prepared(estimator: Any, params: Params, X: Any, *, task: Task) -> Any:
    """Return an unfitted pipeline: the steps of `params`, then the estimator.

    Args:
        estimator: A clone of the delivered estimator or pipeline.
        params: Choice by kind.
        X: Training rows as the estimator takes them.
        task: Classification or Regression.

    Raises:
        NothingToPrepareError: The rows have no column for one of the steps.
    """
    from sklearn.pipeline import Pipeline

    if getattr(X, "ndim", 2) != 2:
        raise NothingToPrepareError(OF_TEXTS)
    delivered = list(estimator.steps) if hasattr(estimator, "steps") else [("estimator", estimator)]
    chosen = {kind: params[str(kind)] for kind in CHOICES if str(kind) in params}
    replaced = {name for kind in chosen for name in _REPLACES.get(kind, ())}
    kept = [(name, step) for name, step in delivered[:-1] if type(step).__name__ not in replaced]
    for _, step in kept:
        if type(step).__name__ == "ColumnTransformer":
            step.set_params(sparse_threshold=0)
    steps = {kind: _MAKERS[kind](value, X, task) for kind, value in chosen.items() if value != ABSENT}
    first = [_named(kind, step) for kind, step in steps.items() if kind in _FIRST]
    rest = [_named(kind, step) for kind, step in steps.items() if kind not in _FIRST]
    return Pipeline([*first, *kept, *rest, delivered[-1]])


_FIRST = {PreparationKind.IMPUTATION, PreparationKind.ENCODING}
"""Kinds whose steps come before the delivered ones."""


def _named(kind: PreparationKind, step: Any) -> tuple[str, Any]:
    return f"prepare_{kind.lower()}", step


def _imputer(value: ParamValue, X: Any, task: Task) -> Any:  # noqa: ARG001
    from sklearn.impute import SimpleImputer

    return SimpleImputer(strategy={"Mean": "mean", "Median": "median", "MostFrequent": "most_frequent"}[str(value)])


def _encoder(value: ParamValue, X: Any, task: Task) -> Any:  # noqa: ARG001
    """Return a step that replaces each column of codes by one column for each code."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    codes = [place for place in range(X.shape[1]) if _is_code(X.iloc[:, place] if hasattr(X, "iloc") else X[:, place])]
    if not codes:
        raise NothingToPrepareError("no column holds codes, three to ten different whole numbers, to encode")
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("codes", encoder, codes)], remainder="passthrough", sparse_threshold=0)


def _is_code(column: Any) -> bool:
    values = np.asarray(column)
    if values.dtype.kind not in "biuf":
        return False
    values = np.unique(values)
    return 3 <= len(values) <= _MOST_CODES and bool(np.all(values == np.round(values)))


def _binner(value: ParamValue, X: Any, task: Task) -> Any:  # noqa: ARG001
    from sklearn.preprocessing import KBinsDiscretizer

    return KBinsDiscretizer(
        int(value), encode="onehot-dense", strategy="quantile", quantile_method="averaged_inverted_cdf"
    )


def _interactions(value: ParamValue, X: Any, task: Task) -> Any:
    """Return a step that adds products of columns; where there are many columns, products of the best ones only."""
    from sklearn.feature_selection import SelectKBest
    from sklearn.pipeline import FeatureUnion, Pipeline
    from sklearn.preprocessing import PolynomialFeatures

    products = PolynomialFeatures(2, interaction_only=value == "Products", include_bias=False)
    if not hasattr(X, "shape") or X.shape[1] <= _MOST_FACTORS:
        return products
    best = Pipeline([("best", SelectKBest(_score(task), k=_MOST_FACTORS)), ("products", products)])
    return FeatureUnion([("all", "passthrough"), ("products", best)])


def _scaler(value: ParamValue, X: Any, task: Task) -> Any:  # noqa: ARG001
    """Return a scaler. None works by quantiles: that makes an ONNX file a dozen times slower (380 us, 30 columns)."""
    from sklearn import preprocessing as kinds

    name = "PowerTransformer" if value == "Power" else f"{value}Scaler"
    return getattr(kinds, name)()


def _selector(value: ParamValue, X: Any, task: Task) -> Any:  # noqa: ARG001
    from sklearn.feature_selection import SelectPercentile

    return SelectPercentile(_score(task), percentile=round(100 * float(value)))


def _pca(value: ParamValue, X: Any, task: Task) -> Any:  # noqa: ARG001
    from sklearn.decomposition import PCA

    return PCA(n_components=float(value), svd_solver="full")


def _score(task: Task) -> Any:
    from sklearn.feature_selection import f_classif, f_regression

    return f_regression if task is Task.REGRESSION else f_classif


_MAKERS: Mapping[PreparationKind, Callable[[ParamValue, Any, Task], Any]] = {
    PreparationKind.IMPUTATION: _imputer,
    PreparationKind.ENCODING: _encoder,
    PreparationKind.BINNING: _binner,
    PreparationKind.INTERACTIONS: _interactions,
    PreparationKind.SCALING: _scaler,
    PreparationKind.SELECTION: _selector,
    PreparationKind.PCA: _pca,
}
