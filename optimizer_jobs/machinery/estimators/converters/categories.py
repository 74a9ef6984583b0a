"""Encoders of categories: a code for each category, and a table of what the encoder answers for each code.

The table is asked of the encoder itself, so that infrequent, dropped, missing and unseen categories come out as they
should.
"""

import warnings
from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters.kinds import FLOAT, numbers_of, precision_of
from optimizer_jobs.machinery.estimators.inputs import EMPTY, Array, is_missing

Column = tuple[Any, Any]
"""A column (N, 1) of the graph, and skl2onnx's type of it."""


def encode(scope: Any, operator: Any, container: Any) -> None:
    """Write an encoder."""
    from skl2onnx.algebra.onnx_ops import OnnxConcat

    opset = container.target_opset
    made = encoded(columns_of(operator, opset), operator.raw_operator, precision=precision_of(operator), opset=opset)
    OnnxConcat(*made, axis=1, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def encoded(columns: list[Column], encoder: Any, *, precision: type, opset: int) -> list[Any]:
    """Return what the encoder makes of each column, (N, width)."""
    from skl2onnx.algebra.onnx_ops import OnnxGather, OnnxReshape

    made = []
    for column, known, table in zip(columns, encoder.categories_, _tables(encoder), strict=True):
        rows = OnnxGather(table.astype(precision), _codes(column, known, opset), axis=0, op_version=opset)
        shape = np.asarray([-1, table.shape[1]], dtype=np.int64)
        made.append(OnnxReshape(rows, shape, op_version=opset))
    return made


def columns_of(operator: Any, opset: int) -> list[Column]:
    """Return each column (N, 1) of the inputs, which are single columns or matrices, with its type."""
    from skl2onnx.algebra.onnx_ops import OnnxGather

    single = len(operator.inputs) == 1
    columns: list[Column] = []
    for value in operator.inputs:
        width = operator.raw_operator.n_features_in_ if single else value.type.shape[1] or 1
        for place in range(width):
            number = np.asarray([place], dtype=np.int64)
            columns.append((OnnxGather(value, number, axis=1, op_version=opset) if width > 1 else value, value.type))
    return columns


def _codes(column: Column, categories: Array, opset: int) -> Any:
    """Return the number (N, 1) of each cell's category, and the number of categories for a cell of no category."""
    from skl2onnx.common.data_types import StringTensorType

    value, kind = column
    if isinstance(kind, StringTensorType):
        return _codes_of_texts(value, categories)
    return _codes_of_numbers(value, kind, categories, opset)


def _codes_of_texts(value: Any, categories: Array) -> Any:
    from skl2onnx.algebra.onnx_ops import OnnxLabelEncoder_2

    keys: dict[str, int] = {}
    for code, category in enumerate(categories):
        keys.setdefault(EMPTY if is_missing(category) else str(category), code)
    return OnnxLabelEncoder_2(
        value,
        keys_strings=[key.encode() for key in keys],
        values_int64s=list(keys.values()),
        default_int64=len(categories),
        op_version=2,
    )


def _codes_of_numbers(value: Any, kind: Any, categories: Array, opset: int) -> Any:
    """Compare with every category at once: exact for single and double precision, and for numbers that are missing."""
    from skl2onnx.algebra.onnx_ops import (
        OnnxArgMax,
        OnnxCast,
        OnnxConcat,
        OnnxEqual,
        OnnxIsNaN,
        OnnxReduceMax,
        OnnxSub,
    )
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    double = isinstance(kind, DoubleTensorType)
    if not isinstance(kind, DoubleTensorType | FloatTensorType):
        value = OnnxCast(value, to=FLOAT, op_version=opset)
    numbers = np.asarray([np.nan if is_missing(c) else float(c) for c in categories]).astype(
        np.float64 if double else np.float32
    )
    present = numbers[~np.isnan(numbers)]
    matches = [OnnxCast(OnnxEqual(value, present[np.newaxis], op_version=opset), to=FLOAT, op_version=opset)]
    if np.isnan(numbers).any():
        matches.append(OnnxCast(OnnxIsNaN(value, op_version=opset), to=FLOAT, op_version=opset))
    matched = OnnxConcat(*matches, axis=1, op_version=opset)
    axes = np.asarray([1], dtype=np.int64)
    none = OnnxSub(
        np.asarray([[1]], dtype=np.float32), OnnxReduceMax(matched, axes, op_version=opset), op_version=opset
    )
    return OnnxArgMax(OnnxConcat(matched, none, axis=1, op_version=opset), axis=1, op_version=opset)


def _tables(encoder: Any) -> list[Array]:
    """Return for each column what the encoder answers for each category and, in the last row, for any other cell.

    Where it answers an error for other cells, the row is NaN, so that no wrong number passes for an answer.
    """
    ends = np.cumsum(_widths(encoder))
    return [
        _table(encoder, place, slice(end - width, end))
        for place, (end, width) in enumerate(zip(ends, _widths(encoder), strict=True))
    ]


def _widths(encoder: Any) -> list[int]:
    """Return the number of columns that the encoder makes of each column."""
    columns = len(encoder.categories_)
    if hasattr(encoder, "_n_features_outs"):
        return list(encoder._n_features_outs)  # noqa: SLF001 - the only place that counts infrequent ones as one
    return [len(getattr(encoder, "encodings_", encoder.categories_)) // columns] * columns


def _table(encoder: Any, place: int, made: slice) -> Array:
    """Return the answers (categories + 1, width) for the column at `place`, of which the columns `made` are made."""
    usual = [categories[0] for categories in encoder.categories_]
    cells = [*encoder.categories_[place], _UNSEEN]
    rows = np.empty((len(cells), len(usual)), dtype=object)
    rows[:] = usual
    rows[:, place] = cells
    known = _answers(encoder, rows[:-1])[:, made]
    try:
        other = _answers(encoder, rows[-1:])[:, made]
    except ValueError:
        other = np.full((1, known.shape[1]), np.nan)
    return np.concatenate([known, other]).astype(np.float64)


_UNSEEN = "\ufdd0"
"""A cell that is in no data: a code point that Unicode keeps free of meaning."""


def _answers(encoder: Any, rows: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = encoder.transform(rows)
    return np.asarray(made.toarray() if hasattr(made, "toarray") else made)


def shape(operator: Any) -> None:
    """Say that the output holds numbers, as many a row as the tables have columns."""
    operator.outputs[0].type = numbers_of(operator)([None, sum(_widths(operator.raw_operator))])
