"""An estimator in the form in which skl2onnx can write it: with other settings that change none of its answers."""

import copy
from collections.abc import Mapping
from typing import Any

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
    for part in parts(estimator):
        vars(part).update(_replaced(part))
    return estimator


def _replaced(part: Any) -> dict[str, object]:
    """Return the settings of a part that are to be replaced, with their new values."""
    return {
        name: values[getattr(part, name)]
        for name, values in _SETTINGS.get(type(part).__name__, {}).items()
        if getattr(part, name, None) in values
    }
