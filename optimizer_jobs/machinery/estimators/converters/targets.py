"""A regression whose target was transformed: its answers are transformed back."""

from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters.functions import applied
from optimizer_jobs.machinery.estimators.converters.kinds import numbers_of, precision_of


def transform_back(scope: Any, operator: Any, container: Any) -> None:
    """Write a TransformedTargetRegressor."""
    from skl2onnx.algebra.onnx_operator import OnnxSubEstimator
    from skl2onnx.algebra.onnx_ops import OnnxReshape

    regressor, opset, precision = operator.raw_operator, container.target_opset, precision_of(operator)
    inner = OnnxSubEstimator(regressor.regressor_, *operator.inputs, op_version=opset)
    value = _back(regressor.transformer_, inner, precision=precision, opset=opset)
    columns = np.asarray([-1, _targets(regressor)], dtype=np.int64)
    OnnxReshape(value, columns, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def shape(operator: Any) -> None:
    """Say that the output is one number a row and target."""
    operator.outputs[0].type = numbers_of(operator)([None, _targets(operator.raw_operator)])


def _targets(regressor: Any) -> int:
    return 1 if regressor._training_dim == 1 else int(regressor.transformer_.n_features_in_)  # noqa: SLF001


def _back(transformer: Any, value: Any, *, precision: type, opset: int) -> Any:
    """Return the value before the transformation; raises NotImplementedError for transformers that are not known."""
    from skl2onnx.algebra.onnx_ops import OnnxAdd, OnnxDiv, OnnxMul, OnnxSub

    kind = type(transformer).__name__
    if kind == "FunctionTransformer":
        inverse = transformer.inverse_func
        return value if inverse is None else applied(inverse, value, precision=precision, opset=opset)

    def constant(numbers: Any, default: float) -> Any:
        return np.asarray([default] if numbers is None else numbers, dtype=precision)

    if kind == "StandardScaler":
        spread, mean = constant(transformer.scale_, 1), constant(transformer.mean_, 0)
        return OnnxAdd(OnnxMul(value, spread, op_version=opset), mean, op_version=opset)
    if kind == "MinMaxScaler":
        low, spread = constant(transformer.min_, 0), constant(transformer.scale_, 1)
        return OnnxDiv(OnnxSub(value, low, op_version=opset), spread, op_version=opset)
    raise NotImplementedError(f"its target is transformed by {kind}")
