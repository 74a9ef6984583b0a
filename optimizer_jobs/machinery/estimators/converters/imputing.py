"""Filling of missing values, in numbers of any precision and in text, with the columns that say where one was."""

from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters.kinds import (
    BOOL,
    DOUBLE,
    FLOAT,
    is_text,
    matrix,
    numbers_of,
    precision_of,
)
from optimizer_jobs.machinery.estimators.inputs import EMPTY, Array, is_missing


def impute(scope: Any, operator: Any, container: Any) -> None:
    """Put the fill values where a cell is missing, and add the columns that say where one was."""
    from skl2onnx.algebra.onnx_ops import OnnxConcat, OnnxGather, OnnxWhere

    imputer, opset, precision = operator.raw_operator, container.target_opset, precision_of(operator)
    text = is_text(operator.inputs[0])
    values = OnnxConcat(*operator.inputs, axis=1, op_version=opset) if text else matrix(operator, opset)
    missing = _missing(values, imputer, text=text, precision=precision, opset=opset)
    fills = np.asarray([str(fill) for fill in imputer.statistics_] if text else imputer.statistics_)
    kept = _filled(imputer)
    filled = OnnxWhere(missing, fills[np.newaxis].astype(np.str_ if text else precision), values, op_version=opset)
    made = [filled if len(kept) == len(fills) else OnnxGather(filled, kept, axis=1, op_version=opset)]
    if len(_marked(imputer)):
        made.append(_marks(missing, imputer, precision=precision, opset=opset))
    OnnxConcat(*made, axis=1, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def _missing(values: Any, imputer: Any, *, text: bool, precision: type, opset: int) -> Any:
    """Return a mask (N, F) of the missing cells."""
    from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxEqual, OnnxIsNaN, OnnxLabelEncoder_2

    if text:
        mark = EMPTY if is_missing(imputer.missing_values) else str(imputer.missing_values)
        marked = OnnxLabelEncoder_2(
            values, keys_strings=[mark.encode()], values_int64s=[1], default_int64=0, op_version=2
        )
        return OnnxCast(marked, to=BOOL, op_version=opset)
    if is_missing(imputer.missing_values):
        return OnnxIsNaN(values, op_version=opset)
    return OnnxEqual(values, np.asarray([[imputer.missing_values]], dtype=precision), op_version=opset)


def _filled(imputer: Any) -> Array:
    """Return the columns that the imputer keeps: a column without any value when it was fitted is dropped."""
    if imputer.keep_empty_features or imputer.strategy == "constant":
        return np.arange(len(imputer.statistics_))
    return np.flatnonzero([not is_missing(fill) for fill in imputer.statistics_])


def _marked(imputer: Any) -> Array:
    """Return the columns for which the imputer adds one that says where a cell was missing."""
    indicator = getattr(imputer, "indicator_", None)
    return np.asarray([] if indicator is None else indicator.features_, dtype=np.int64)


def _marks(missing: Any, imputer: Any, *, precision: type, opset: int) -> Any:
    from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxGather

    kind = DOUBLE if precision is np.float64 else FLOAT
    chosen = OnnxGather(missing, _marked(imputer), axis=1, op_version=opset)
    return OnnxCast(chosen, to=kind, op_version=opset)


def shape(operator: Any) -> None:
    """Say that the output holds what the inputs hold, without dropped columns and with added ones."""
    from skl2onnx.common.data_types import StringTensorType

    imputer = operator.raw_operator
    kind = StringTensorType if is_text(operator.inputs[0]) else numbers_of(operator)
    operator.outputs[0].type = kind([None, len(_filled(imputer)) + len(_marked(imputer))])
