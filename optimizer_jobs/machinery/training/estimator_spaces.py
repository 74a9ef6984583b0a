"""What is worth searching for each class of estimator, alone or as a step of a pipeline, and what a user may name.

Parameters have scikit-learn's names, such as `C` or `clf__C`. The value None is written as "None", and the sizes of
hidden layers as "64,32". Nothing here trains.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from optimizer_jobs.errors import printable
from optimizer_jobs.machinery.estimators.load import load
from optimizer_jobs.machinery.training.parameters import Space, among, between, extremes
from optimizer_jobs.models.native import Native
from optimizer_jobs.technique import Params, ParamValue
from retune.api.model import ModelFormat
from retune.api.techniques import Parameter

NONE = "None"
"""How the value None is written."""

RESERVED = ("memory", "n_jobs", "random_state", "verbose", "warm_start")
"""Parameters that the trainer sets itself, such as the seed and the number of threads."""

_LAYERS = "hidden_layer_sizes"
_C = (between("C", 1e-3, 1e3, log=True),)
_ALPHA = (between("alpha", 1e-4, 1e3, log=True),)
_SGD = (between("alpha", 1e-6, 1e-1, log=True), among("penalty", ("l2", "l1", "elasticnet")))
_SVM = (*_C, among("gamma", ("scale", "auto", 1e-4, 1e-3, 1e-2, 1e-1, 1.0)))
_EPSILON = (between("epsilon", 1e-3, 10.0, log=True),)
_FOREST = (
    among("max_features", ("sqrt", "log2", 0.3, 0.5, 1.0)),
    between("min_samples_leaf", 1, 16, integer=True),
    between("ccp_alpha", 0.0, 0.005),
)
_BOOSTING = (
    between("learning_rate", 0.01, 0.5, log=True),
    between("subsample", 0.5, 1.0),
    between("min_samples_leaf", 1, 32, integer=True),
    among("max_features", (NONE, "sqrt", 0.5)),
)
_HISTOGRAMS = (
    between("learning_rate", 0.01, 0.5, log=True),
    between("l2_regularization", 1e-6, 10.0, log=True),
    between("min_samples_leaf", 2, 100, integer=True),
)
_XGBOOST = (
    between("learning_rate", 0.01, 0.5, log=True),
    between("min_child_weight", 0.5, 50.0, log=True),
    between("subsample", 0.5, 1.0),
    between("colsample_bytree", 0.4, 1.0),
)
_LIGHTGBM = (
    between("learning_rate", 0.01, 0.5, log=True),
    among("num_leaves", (7, 15, 31, 63, 127)),
    between("min_child_samples", 2, 100, integer=True),
    between("colsample_bytree", 0.4, 1.0),
)
_NETWORK = (
    between("alpha", 1e-6, 1e-1, log=True),
    between("learning_rate_init", 1e-4, 3e-2, log=True),
    among("batch_size", ("auto", 32, 64, 128)),
    among("activation", ("relu", "tanh")),
)
_NEIGHBOURS = (
    between("n_neighbors", 1, 30, integer=True),
    among("weights", ("uniform", "distance")),
    among("p", (1, 2)),
)
_TREE = (between("min_samples_leaf", 1, 32, integer=True), between("ccp_alpha", 0.0, 0.02))

HYPERPARAMETERS: Mapping[str, tuple[Parameter, ...]] = {
    "AdaBoostClassifier": (between("learning_rate", 0.01, 2.0, log=True),),
    "AdaBoostRegressor": (between("learning_rate", 0.01, 2.0, log=True),),
    "DecisionTreeClassifier": _TREE,
    "DecisionTreeRegressor": _TREE,
    "ElasticNet": (*_ALPHA, between("l1_ratio", 0.05, 1.0)),
    "ExtraTreesClassifier": _FOREST,
    "ExtraTreesRegressor": _FOREST,
    "GaussianNB": (between("var_smoothing", 1e-9, 1e-1, log=True),),
    "GradientBoostingClassifier": _BOOSTING,
    "GradientBoostingRegressor": _BOOSTING,
    "HistGradientBoostingClassifier": _HISTOGRAMS,
    "HistGradientBoostingRegressor": _HISTOGRAMS,
    "HuberRegressor": (*_ALPHA, between("epsilon", 1.05, 3.0)),
    "KNeighborsClassifier": _NEIGHBOURS,
    "KNeighborsRegressor": _NEIGHBOURS,
    "Lasso": _ALPHA,
    "LGBMClassifier": _LIGHTGBM,
    "LGBMRegressor": _LIGHTGBM,
    "LinearSVC": _C,
    "LinearSVR": (*_C, *_EPSILON),
    "LogisticRegression": _C,
    "MLPClassifier": _NETWORK,
    "MLPRegressor": _NETWORK,
    "PoissonRegressor": _ALPHA,
    "RandomForestClassifier": _FOREST,
    "RandomForestRegressor": _FOREST,
    "Ridge": _ALPHA,
    "RidgeClassifier": _ALPHA,
    "SGDClassifier": _SGD,
    "SGDRegressor": _SGD,
    "SVC": _SVM,
    "SVR": (*_SVM, *_EPSILON),
    "XGBClassifier": _XGBOOST,
    "XGBRegressor": _XGBOOST,
    # steps before the estimator
    "PCA": (between("n_components", 0.8, 0.99),),
    "SelectPercentile": (among("percentile", (25, 50, 75, 100)),),
    "SimpleImputer": (among("strategy", ("mean", "median", "most_frequent")),),
}
"""Parameters by the name of the class, which is the same in all versions of scikit-learn, unlike its module."""

_COUNTS = ("max_iter", "n_estimators")
_COUNTED = re.compile(r"(AdaBoost|Bagging|ExtraTrees|GradientBoosting|HistGradientBoosting|LGBM|RandomForest|XGB)")
_DEEP = re.compile(r"(DecisionTree|ExtraTrees|GradientBoosting|HistGradientBoosting|RandomForest)")
_COUNT_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5)
_UNSAID = 100
"""Trees of an ensemble of XGBoost that was given no number of them."""
_WIDTH_SHARES = (0.125, 0.25, 0.5, 1.0, 1.5)
_DEPTHS = (3, 4, 6, 8, 12, 16)
_NAME_LIMIT = 96


def hyperparameters(native: Native | None, listed: tuple[Parameter, ...] | None) -> Space:
    """Return what is searched in training: what the user listed, or what is known for this estimator and its steps."""
    return _space(native, listed, lambda part: HYPERPARAMETERS.get(type(part).__name__, ()))


def architecture(native: Native | None, listed: tuple[Parameter, ...] | None) -> Space:
    """Return what changes the estimator's size: what the user listed, or the sizes of trees and hidden layers."""
    return _space(native, listed, _sizes)


def unknown(native: Native | None, listed: tuple[Parameter, ...]) -> str | None:
    """Return which of the user's parameters this estimator does not have, or may not have with a value, or None."""
    estimator = _delivered(native)
    known = estimator.get_params()
    for parameter in listed:
        if parameter.name.rpartition("__")[2] in RESERVED:
            return f"{parameter.name} is set by Retune itself, which seeds the training and bounds its threads"
        if parameter.name not in known or hasattr(known[parameter.name], "get_params"):
            names = ", ".join(sorted(name for name in known if not hasattr(known[name], "get_params"))[:40])
            return f"{type(estimator).__name__} takes no parameter {parameter.name}; it takes {names}"
        for value in extremes(parameter):
            reason = _wrong_value(estimator, parameter.name, value)
            if reason is not None:
                return reason
    return None


def decoded(params: Mapping[str, ParamValue]) -> dict[str, Any]:
    """Return the values as the estimator takes them: None for "None", a tuple for hidden layers."""
    return {name: _decoded(name, value) for name, value in params.items()}


def _decoded(name: str, value: ParamValue) -> Any:
    if value == NONE:
        return None
    if name.rpartition("__")[2] == _LAYERS and not isinstance(value, bool):
        try:
            return tuple(int(width) for width in str(value).split(","))
        except ValueError:
            return value
    return value


def _space(
    native: Native | None, listed: tuple[Parameter, ...] | None, known: Callable[[Any], Iterable[Parameter]]
) -> Space:
    """Return the user's parameters, or the `known` ones of each step that it really has."""
    estimator = _delivered(native)
    usual = _usual(estimator)
    if listed is not None:
        return Space(listed, usual)
    parameters = []
    for prefix, step in _steps(estimator):
        own = step.get_params(deep=False)
        for parameter in known(step):
            name = f"{prefix}{parameter.name}"
            if parameter.name in own and name.isidentifier() and len(name) <= _NAME_LIMIT:
                parameters.append(parameter.model_copy(update={"name": name}))
    return Space(tuple(parameters), usual)


def _steps(estimator: Any) -> list[tuple[str, Any]]:
    """Return the estimator, or the steps of a pipeline at any depth, with the prefixes of their parameters' names.

    The last step comes first.
    """
    if not hasattr(estimator, "steps"):
        return [("", estimator)]
    return [
        (f"{name}__{prefix}", inner)
        for name, step in reversed(estimator.steps)
        if hasattr(step, "get_params")
        for prefix, inner in _steps(step)
    ]


def _sizes(step: Any) -> list[Parameter]:
    """Return the parameters that set the size of an estimator, with values around those delivered."""
    name, own = type(step).__name__, step.get_params(deep=False)
    parameters = []
    if _COUNTED.match(name):
        count = next(parameter for parameter in _COUNTS if parameter in own)
        total = own[count] or _UNSAID  # XGBoost leaves out what it is not given
        parameters.append(among(count, dict.fromkeys(max(1, round(share * total)) for share in _COUNT_SHARES)))
    if _DEEP.match(name):
        deepest = own["max_depth"]
        shallower = [depth for depth in _DEPTHS if deepest is None or depth < deepest]
        parameters.append(among("max_depth", [*shallower, NONE if deepest is None else deepest]))
    if _LAYERS in own:
        parameters.append(among(_LAYERS, _layers(own[_LAYERS])))
    return [parameter for parameter in parameters if parameter.values and len(parameter.values) > 1]


def _layers(delivered: Any) -> list[str]:
    """Return narrower and wider hidden layers, and one layer less, such as "64,32"."""
    widths = [int(width) for width in (delivered if isinstance(delivered, list | tuple) else [delivered])]
    shapes = [[max(1, round(share * width)) for width in widths] for share in _WIDTH_SHARES]
    shapes += [widths[:-1]] if len(widths) > 1 else []
    return list(dict.fromkeys(",".join(map(str, shape)) for shape in shapes))


def _usual(estimator: Any) -> Params:
    """Return the delivered values by parameter, as far as a search can choose them."""
    values = {name: _encoded(value) for name, value in estimator.get_params().items()}
    return {name: value for name, value in values.items() if value is not None}


def _encoded(value: Any) -> ParamValue | None:
    """Return the value as a search has it, the reverse of `_decoded`; None for what a search cannot choose."""
    if value is None:
        return NONE
    if isinstance(value, list | tuple) and value and all(isinstance(width, int) for width in value):
        return ",".join(map(str, value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) else None


def _wrong_value(estimator: Any, name: str, value: ParamValue) -> str | None:
    """Return why the parameter may not have the value, in scikit-learn's words, or None."""
    from sklearn.base import clone

    changed = clone(estimator).set_params(**{name: _decoded(name, value)})
    owner = changed.get_params().get(name.rpartition("__")[0], changed)
    try:
        owner._validate_params()  # noqa: SLF001 - the check that fit starts with
    except ValueError as error:
        return printable(str(error), limit=300).rstrip(".")
    return None


def _delivered(native: Native | None) -> Any:
    if native is None:
        raise ValueError("there is no estimator")
    info = native.path.stat()
    return _load(str(native.path), native.format, info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=2)
def _load(path: str, format_: ModelFormat, modified: int, size: int) -> Any:  # noqa: ARG001 - they name the content
    """Return the estimator in a file. It is kept, because a search asks for the space in every trial."""
    return load(Native(Path(path), format_), trusted=True).estimator
