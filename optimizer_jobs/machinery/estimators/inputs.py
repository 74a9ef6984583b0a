"""What an estimator takes: one matrix, a table with named columns, or texts; and the same rows for its ONNX file.

The ONNX file takes the same: input `x` (N, F), or one input (N, 1) for each column. A tensor of text cannot say that a
cell is missing, so an empty text says it. The estimator is asked with a pandas frame where it was fitted on one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.readers import Columns, UnreadableDataError
from optimizer_jobs.data.spellings import words_as_numbers
from optimizer_jobs.machinery.estimators.soundness import parts
from optimizer_jobs.signature import TEXT, TensorSpec

Array = NDArray[Any]

MATRIX = "x"
"""Name of the single input of an estimator that takes a matrix."""

EMPTY = ""
"""Text of a missing cell."""

_WRAPPED = ("best_estimator_", "regressor_", "calibrated_classifiers_", "estimators_", "estimator_")
"""Attributes in which estimators keep fitted ones that get their rows as they came."""


def inputs_of(estimator: Any, columns: Columns, *, label: str) -> tuple[TensorSpec, ...]:
    """Return the inputs that the ONNX file of this estimator has.

    Args:
        estimator: The fitted estimator.
        columns: A data file: columns that are text there, and that no step takes for numbers, are text inputs.
        label: Name of the label column, which is no input.

    Raises:
        UnreadableDataError: The estimator takes texts, and no column or several columns of the data are text.
    """
    if takes_texts(estimator):
        return (TensorSpec(name=_text_column(columns, label=label), dtype=TEXT, shape=(-1, 1)),)
    names = column_names(estimator, columns)
    if names is None:
        return (TensorSpec(name=MATRIX, dtype=_matrix_dtype(columns, label), shape=(-1, width_of(estimator))),)
    needless = unused(estimator)
    types = zip(names, _types(estimator, columns, names), strict=True)
    return tuple(TensorSpec(name=name, dtype=type_, shape=(-1, 1)) for name, type_ in types if name not in needless)


def takes_texts(estimator: Any) -> bool:
    """Return whether each row is a single text, because a vectorizer is the first step."""
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    return isinstance(first(estimator), CountVectorizer | HashingVectorizer)


def final(estimator: Any) -> Any:
    """Return the last step of a pipeline, at any depth, or the estimator itself."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def steps_before(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, at any depth, before its last one."""
    before: list[Any] = []
    while hasattr(estimator, "steps"):
        before += [step for _, step in estimator.steps[:-1] if not isinstance(step, str) and step is not None]
        estimator = estimator.steps[-1][1]
    return before


def first(estimator: Any) -> Any:
    """Return what the rows come to first: the first step of pipelines and unions, at any depth, inside of wrappers."""
    inner = _inside(estimator)
    return estimator if inner is None else first(inner)


def _inside(estimator: Any) -> Any:
    """Return the fitted part that the estimator hands its rows to unchanged, or None."""
    if hasattr(estimator, "steps"):
        return next((step for _, step in estimator.steps if not isinstance(step, str)), None)
    if hasattr(estimator, "transformer_list"):
        return next((step for _, step in estimator.transformer_list if not isinstance(step, str)), None)
    for name in _WRAPPED:
        inner = getattr(estimator, name, None)
        if isinstance(inner, list) and inner:
            return inner[0]
        if hasattr(inner, "get_params"):
            return inner
    return getattr(estimator, "estimator", None) if type(estimator).__name__ == "_CalibratedClassifier" else None


def column_names(estimator: Any, columns: Columns | None = None) -> tuple[str, ...] | None:
    """Return the columns that the estimator finds by name, or None when it takes a matrix.

    An estimator that was fitted on a table takes a matrix nevertheless when all its columns are numbers and no step
    chooses some of them, so that the file has a single input.

    Args:
        estimator: The fitted estimator.
        columns: The data, where it is at hand: text among its columns cannot be part of a matrix.
    """
    from sklearn.compose import ColumnTransformer

    names = fitted_names(estimator)
    if names is None:
        return None
    chooses = any(isinstance(part, ColumnTransformer) for part in parts(estimator))
    mixed = columns is not None and columns.tabular and TEXT in _types(estimator, columns, names)
    return names if chooses or mixed else None


def fitted_names(estimator: Any) -> tuple[str, ...] | None:
    """Return the columns of the table that the estimator was fitted on, in order, or None for an array."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else tuple(str(name) for name in names)


def width_of(estimator: Any) -> int:
    """Return the columns of the matrix that the estimator takes; one that does not say so takes a single column."""
    names = fitted_names(estimator)
    counted = getattr(estimator, "n_features_in_", getattr(first(estimator), "n_features_in_", 1))
    return int(counted) if names is None else len(names)


def asked_with(estimator: Any, inputs: Mapping[str, Array]) -> Any:
    """Return rows as the estimator takes them: a float64 matrix (N, F), a frame with the columns, or texts (N,).

    Args:
        estimator: The fitted estimator.
        inputs: Values by input name, as the ONNX file takes them.
    """
    if takes_texts(estimator):
        (texts,) = inputs.values()
        return np.asarray(texts, dtype=object).ravel()
    names = fitted_names(estimator)
    if tuple(inputs) == (MATRIX,) and names != (MATRIX,):
        matrix = inputs[MATRIX]
        return _framed(matrix if matrix.dtype == object else matrix.astype(np.float64), names)
    return frame(estimator, inputs)


def frame(estimator: Any, values: Mapping[str, Array]) -> Any:
    """Return a pandas frame with the columns that the estimator was fitted on; columns that it does not use are empty.

    Args:
        estimator: An estimator that was fitted on a table.
        values: Values by column, (N,) or (N, 1).
    """
    import pandas as pd

    rows = len(next(iter(values.values())))
    missing = _missing_marks(estimator)
    return pd.DataFrame(
        {
            name: _cells(values[name], missing.get(name, np.nan)) if name in values else np.full(rows, np.nan)
            for name in fitted_names(estimator) or tuple(values)
        }
    )


def rows_of(columns: Columns, inputs: Sequence[TensorSpec], *, label: str, limit: int) -> dict[str, Array]:
    """Return rows of the data by input name, as the ONNX file takes them, spread evenly over the data.

    Args:
        columns: The data file.
        inputs: Inputs of the ONNX file.
        label: Name of the label column, which is no input.
        limit: Rows to return, at most.

    Raises:
        UnreadableDataError: A column is missing or cannot be read.
        ValueError: A column does not hold what its input takes.
    """
    if len(inputs) == 1 and inputs[0].name == MATRIX:
        matrix = _matrix(columns, inputs[0], label=label)
        return {MATRIX: _fitting(_spread(matrix, limit), inputs[0].dtype)}
    return {tensor.name: _column(_spread(_read(columns, tensor), limit), tensor.dtype) for tensor in inputs}


def original_rows(estimator: Any, columns: Columns, inputs: Sequence[TensorSpec], *, label: str, limit: int) -> Any:
    """Return the same rows as `rows_of`, with the numbers of the file, as the estimator takes them."""
    if takes_texts(estimator):
        return _column(_spread(_read(columns, inputs[0]), limit), TEXT).ravel()
    if len(inputs) == 1 and inputs[0].name == MATRIX:
        matrix = _spread(_matrix(columns, inputs[0], label=label), limit)
        return _framed(matrix, fitted_names(estimator))
    values = {tensor.name: _spread(_read(columns, tensor), limit) for tensor in inputs}
    return frame(estimator, values)


def unused(estimator: Any) -> frozenset[str]:
    """Return columns that the estimator was fitted with and never reads, because its first step drops them."""
    from sklearn.compose import ColumnTransformer

    names = fitted_names(estimator)
    step = first(estimator)
    if names is None or not isinstance(step, ColumnTransformer) or fitted_names(step) != names:
        return frozenset()
    used = {name for _, step, chosen in step.transformers_ if step != "drop" for name in chosen_names(chosen, names)}
    return frozenset(names) - used


def chosen_names(columns: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns that a ColumnTransformer keeps as names, numbers, a mask or a slice."""
    if isinstance(columns, slice):
        ends = (names.index(end) if isinstance(end, str) else end for end in (columns.start, columns.stop))
        start, stop = ends
        return tuple(names[start : stop + 1 if isinstance(columns.stop, str) else stop : columns.step])
    several = [columns] if isinstance(columns, str | int) else list(columns)
    if several and all(isinstance(choice, bool | np.bool_) for choice in several):
        return tuple(name for name, choice in zip(names, several, strict=True) if choice)
    return tuple(choice if isinstance(choice, str) else names[int(choice)] for choice in several)


def encoders(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield column and categories, as fitted, for each column that a step of the table's first step encodes."""
    from sklearn.compose import ColumnTransformer

    names, step = fitted_names(estimator), first(estimator)
    if names is None:
        return
    if not isinstance(step, ColumnTransformer):
        yield from zip(names, getattr(step, "categories_", ()), strict=False)
        return
    for _, inner, chosen in step.transformers_:
        yield from zip(chosen_names(chosen, names), getattr(first(inner), "categories_", ()), strict=False)


def _types(estimator: Any, columns: Columns, names: Sequence[str]) -> list[str]:
    """Return the element type of each column: as a step says it, else as the data has it."""
    known = _known_types(estimator)
    return [known.get(name) or _dtype(columns, name) for name in names]


def _known_types(estimator: Any) -> dict[str, str]:
    """Return element types of columns of which a step says it: its categories are text or not, or it takes texts."""
    from sklearn.compose import ColumnTransformer

    known = {
        name: TEXT if any(isinstance(category, str) for category in categories) else "float32"
        for name, categories in encoders(estimator)
    }
    step, names = first(estimator), fitted_names(estimator)
    if names is not None and isinstance(step, ColumnTransformer):
        for _, inner, chosen in step.transformers_:
            if not isinstance(inner, str) and takes_texts(inner):
                known |= dict.fromkeys(chosen_names(chosen, names), TEXT)
    return known


def _missing_marks(estimator: Any) -> dict[str, Any]:
    """Return by column what stands for a missing cell where that is not NaN: None or an empty text, as fitted."""
    marks: dict[str, Any] = {}
    for name, categories in encoders(estimator):
        if any(isinstance(category, str) and category == EMPTY for category in categories):
            marks[name] = EMPTY
        elif any(category is None for category in categories):
            marks[name] = None
    return marks


def _text_column(columns: Columns, *, label: str) -> str:
    texts = [name for name in columns.names if name != label and columns.read(name).dtype.kind in "OUS"]
    if len(texts) != 1:
        present = ", ".join(texts[:20]) or "none"
        raise UnreadableDataError(
            f"the estimator takes one text a row, and the data has {len(texts)} columns of text: {present}."
        )
    return texts[0]


def _framed(matrix: Array, names: Sequence[str] | None) -> Any:
    if names is None:
        return matrix
    import pandas as pd

    return pd.DataFrame(matrix, columns=list(names))


def _cells(values: Array, missing: Any) -> Any:
    """Return a column of a frame; text cells that are missing become what the estimator was fitted with."""
    import pandas as pd

    flat = np.asarray(values).ravel()
    if flat.dtype.kind not in "OUS":
        return flat.astype(np.float64) if flat.dtype == np.float32 else flat
    cells = np.asarray([missing if is_missing(cell) else _as_text(cell) for cell in flat], dtype=object)
    return pd.Series(cells, dtype=object)


def is_missing(cell: Any) -> bool:
    """Return whether the cell of a text column is missing: None, NaN or an empty text."""
    return cell is None or cell != cell or cell in (EMPTY, b"")  # noqa: PLR0124 - NaN alone differs from itself


def _as_text(cell: Any) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)


def _read(columns: Columns, tensor: TensorSpec) -> Array:
    return columns.read_text(tensor.name) if tensor.dtype == TEXT else _numbers(columns, tensor.name)


def _spread(values: Array, limit: int) -> Array:
    """Return at most `limit` rows, spread evenly."""
    if len(values) <= limit:
        return values
    return values[np.linspace(0, len(values) - 1, num=limit).astype(np.int64)]


def _matrix(columns: Columns, tensor: TensorSpec, *, label: str) -> Array:
    if columns.tabular:
        names = _features(columns, label=label, width=tensor.shape[1])
        return np.stack([_numbers(columns, name) if tensor.is_float else columns.read_text(name) for name in names], 1)
    names = [name for name in columns.names if name != label]
    matrix = columns.read(MATRIX if MATRIX in names else names[0])
    return matrix[:, np.newaxis] if matrix.ndim == 1 else matrix


def _features(columns: Columns, *, label: str, width: int) -> list[str]:
    """Return the columns that are inputs. Where nobody has named the label, it is the last column that is too many."""
    names = [name for name in columns.names if name != label]
    return names[:width] if label not in columns.names and len(names) == width + 1 else names


def _numbers(columns: Columns, name: str) -> Array:
    """Return a column as numbers, yes and no as one and zero."""
    values = columns.read(name)
    spelled = words_as_numbers(values) if values.dtype.kind in "OUS" else None
    return values if spelled is None else spelled[0]


def _matrix_dtype(columns: Columns, label: str) -> str:
    names = [name for name in columns.names if name != label]
    types = {_dtype(columns, name) for name in names} if columns.tabular else set()
    return TEXT if types == {TEXT} else "float32"


def _fitting(matrix: Array, dtype: str) -> Array:
    return _texts(matrix) if dtype == TEXT else matrix.astype(np.dtype(dtype))


def _column(values: Array, dtype: str) -> Array:
    if dtype == TEXT:
        return _texts(values.reshape(-1, 1))
    return values.astype(np.dtype(dtype)).reshape(-1, 1)


def _texts(values: Array) -> Array:
    """Return cells as text, and missing ones as empty text."""
    cells = [EMPTY if is_missing(cell) else _as_text(cell) for cell in values.ravel()]
    return np.asarray(cells, dtype=object).reshape(values.shape)


def _dtype(columns: Columns, name: str) -> str:
    return TEXT if name in columns.names and _numbers(columns, name).dtype.kind in "OUS" else "float32"
