"""Which class of scikit-learn is written by which converter of our own; skl2onnx writes all others."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optimizer_jobs.machinery.estimators.converters import (
    calibrated,
    categories,
    functions,
    histograms,
    imputing,
    isotonic,
    targets,
)

Converter = Callable[[Any, Any, Any], None]
Shape = Callable[[Any], None]


@dataclass
class Own:
    """Converters, and functions that say what comes out, by class."""

    converters: dict[type, Converter] = field(default_factory=dict)
    shapes: dict[type, Shape] = field(default_factory=dict)

    def add(self, kinds: Mapping[type, tuple[Converter, Shape]]) -> None:
        """Take in more classes."""
        self.converters |= {kind: _naming(pair[0]) for kind, pair in kinds.items()}
        self.shapes |= {kind: pair[1] for kind, pair in kinds.items()}


class StepError(ValueError):
    """A step cannot be written; the message says why."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Name of the step's class."""


def _naming(converter: Converter) -> Converter:
    """Return a converter whose errors name the step's class, the innermost one."""

    def write(scope: Any, operator: Any, container: Any) -> None:
        try:
            converter(scope, operator, container)
        except StepError:
            raise
        except Exception as error:
            raise StepError(str(error), kind=type(operator.raw_operator).__name__) from error

    return write


def own_for(parts: Iterable[Any], *, doubles: bool) -> Own:
    """Return the converters for an estimator that consists of these parts, and whose inputs may be `doubles`."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.isotonic import IsotonicRegression
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder

    own = Own()
    own.add(dict.fromkeys((OneHotEncoder, OrdinalEncoder, TargetEncoder), (categories.encode, categories.shape)))
    own.add({SimpleImputer: (imputing.impute, imputing.shape)})
    own.add({IsotonicRegression: (isotonic.interpolate, isotonic.shape)})
    own.add({CalibratedClassifierCV: (calibrated.calibrate, calibrated.shape)})
    own.add({FunctionTransformer: (functions.apply, functions.shape)})
    own.add({TransformedTargetRegressor: (targets.transform_back, targets.shape)})
    own.add(
        {
            type(part): (histograms.grow, histograms.shape)
            for part in parts
            if histograms.is_needed(part, doubles=doubles)
        }
    )
    return own
