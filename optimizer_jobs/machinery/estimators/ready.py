"""An estimator in the form in which skl2onnx can write it: other settings and lists, which change no answer."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.inputs import chosen_names, fitted_names
from optimizer_jobs.machinery.estimators.soundness import parts

_SETTINGS: Mapping[str, Mapping[str, Mapping[object, object]]] = {
    "KBinsDiscretizer": {"encode": {"onehot": "onehot-dense"}},
    "SplineTransformer": {"sparse_output": {True: False}},
    "VotingClassifier": {"flatten_transform": {True: False}},
}
"""By class and parameter, values that are replaced: they decide on the form of what is handed on, not on answers."""


def convertible(estimator: Any) -> Any:
    """Return the estimator, or a copy with settings that can be written."""
    if not any(_replaced(part) for part in parts(estimator)):
        return estimator
    estimator = copy.deepcopy(estimator)
    for part in list(parts(estimator)):
        vars(part).update(_replaced(part))
    return estimator


def _replaced(part: Any) -> dict[str, object]:
    """Return the attributes of a part that are to be replaced, with their new values."""
    return _settings(part) | _steps(part) | _columns(part)


def _steps(part: Any) -> dict[str, object]:
    """Return the steps of a pipeline without those that do nothing, where it has some."""
    steps = getattr(part, "steps", None)
    if not isinstance(steps, list):
        return {}
    kept = [step for step in steps if step[1] is not None and step[1] != "passthrough"]
    return {"steps": kept} if len(kept) < len(steps) and kept else {}


def _columns(part: Any) -> dict[str, object]:
    """Return the fitted steps of a table, where one chooses columns by a slice or a mask, with lists of columns."""
    if type(part).__name__ != "ColumnTransformer" or not hasattr(part, "transformers_"):
        return {}
    names = fitted_names(part)
    places = [str(place) for place in range(part.n_features_in_)] if names is None else names
    if not any(isinstance(columns, slice) or _is_mask(columns) for _, _, columns in part.transformers_):
        return {}
    listed = []
    for label, step, columns in part.transformers_:
        if not isinstance(columns, slice) and not _is_mask(columns):
            listed.append((label, step, columns))
            continue
        chosen = list(chosen_names(columns, places))
        listed.append((label, step, [int(place) for place in chosen] if names is None else chosen))
    return {"transformers_": listed}


def _is_mask(columns: Any) -> bool:
    return (
        not isinstance(columns, str | int)
        and len(columns) > 0
        and all(isinstance(choice, bool | np.bool_) for choice in columns)
    )


def _settings(part: Any) -> dict[str, object]:
    """Return the settings of a part that are to be replaced, with their new values."""
    return {
        name: values[getattr(part, name)]
        for name, values in _SETTINGS.get(type(part).__name__, {}).items()
        if getattr(part, name, None) in values
    }
