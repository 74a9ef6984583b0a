"""Isotonic regression, alone and as the calibration of a classifier: straight lines between its points.

skl2onnx takes the nearest point instead, which is off by whole steps.
"""

from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters.kinds import INT64, matrix, numbers_of, precision_of
from optimizer_jobs.machinery.estimators.inputs import Array


def interpolate(scope: Any, operator: Any, container: Any) -> None:
    """Write an IsotonicRegression."""
    from skl2onnx.algebra.onnx_ops import OnnxIdentity

    opset = container.target_opset
    made = interpolated(matrix(operator, opset), operator.raw_operator, precision=precision_of(operator), opset=opset)
    OnnxIdentity(made, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def interpolated(value: Any, isotonic: Any, *, precision: type, opset: int) -> Any:
    """Return the values (N, 1) of an isotonic regression: straight lines between its points.

    Args:
        value: Where it is asked, (N, 1).
        isotonic: The fitted IsotonicRegression.
        precision: NumPy's type of the numbers.
        opset: Version of the standard operators.
    """
    from skl2onnx.algebra.onnx_ops import (
        OnnxAdd,
        OnnxCast,
        OnnxClip,
        OnnxGather,
        OnnxGreaterOrEqual,
        OnnxMul,
        OnnxReduceSum,
        OnnxSub,
    )

    x, y = np.asarray(isotonic.X_thresholds_, np.float64), np.asarray(isotonic.y_thresholds_, np.float64)
    x, y = x.astype(precision), y.astype(precision)
    if len(x) == 1:
        x, y = np.asarray([x[0], np.nextafter(x[0], precision(np.inf))]), np.repeat(y, 2)
    slopes: Array = (np.diff(y) / np.where(np.diff(x) > 0, np.diff(x), 1)).astype(precision)
    if isotonic.out_of_bounds == "clip":
        value = OnnxClip(value, x[:1].reshape(()), x[-1:].reshape(()), op_version=opset)
    beyond = OnnxCast(OnnxGreaterOrEqual(value, x[1:-1][np.newaxis], op_version=opset), to=INT64, op_version=opset)
    place = OnnxReduceSum(beyond, np.asarray([1], dtype=np.int64), keepdims=1, op_version=opset)
    left, low, slope = (OnnxGather(table, place, axis=0, op_version=opset) for table in (x[:-1], y[:-1], slopes))
    rise = OnnxMul(slope, OnnxSub(value, left, op_version=opset), op_version=opset)
    return OnnxAdd(low, rise, op_version=opset)


def shape(operator: Any) -> None:
    """Say that the output is one number a row."""
    operator.outputs[0].type = numbers_of(operator)([None, 1])
