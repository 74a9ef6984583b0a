"""Element types and shapes of what converters read and make, in the words of skl2onnx and of ONNX."""

from typing import Any

import numpy as np

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
"""ONNX's numbers of element types."""


def is_text(value: Any) -> bool:
    """Return whether a value of the graph is text."""
    from skl2onnx.common.data_types import StringTensorType

    return isinstance(value.type, StringTensorType)


def numbers_of(operator: Any) -> Any:
    """Return skl2onnx's type of the numbers that an operator computes in: double precision where an input has it."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return DoubleTensorType if precision_of(operator) is np.float64 else FloatTensorType


def precision_of(operator: Any) -> type:
    """Return NumPy's type of the numbers that an operator computes in."""
    from skl2onnx.common.data_types import DoubleTensorType

    return np.float64 if any(isinstance(value.type, DoubleTensorType) for value in operator.inputs) else np.float32


def matrix(operator: Any, opset: int) -> Any:
    """Return the numbers of all inputs side by side, (N, F), in the operator's precision."""
    from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxConcat

    kind = numbers_of(operator)
    number = DOUBLE if precision_of(operator) is np.float64 else FLOAT
    columns = [
        value if isinstance(value.type, kind) else OnnxCast(value, to=number, op_version=opset)
        for value in operator.inputs
    ]
    return columns[0] if len(columns) == 1 else OnnxConcat(*columns, axis=1, op_version=opset)
