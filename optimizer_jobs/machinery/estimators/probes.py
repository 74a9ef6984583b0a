"""Rows that show where a converted file may answer otherwise than its estimator, though no given row does.

They are made from given rows: with missing values, with categories that nobody has seen, and with numbers at the
thresholds of trees. What the estimator itself refuses is no probe.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.inputs import (
    EMPTY,
    MATRIX,
    asked_with,
    chosen_names,
    encoders,
    first,
    fitted_names,
)
from optimizer_jobs.machinery.estimators.soundness import Array, parts

Inputs = Mapping[str, Array]

_ROWS = 200
"""Rows of each kind, at least, where there are so many."""
_COLUMNS = 100
"""Columns that are probed, at most, spread evenly."""
_THRESHOLDS = 40
"""Thresholds of a column at which trees are probed, at most, spread evenly."""
_LARGE = 1e37
"""Numbers below this have neighbours in single precision."""
_UNSEEN_TEXT, _UNSEEN_NUMBER = "\ufdd0", -98765.0
"""Cells that no data has: a code point that Unicode keeps free of meaning, and a number that is rarely a code."""


def probes(estimator: Any, rows: Inputs) -> Iterator[tuple[str, Inputs]]:
    """Yield in words what is special about them, and rows that the estimator answers.

    Args:
        estimator: The fitted estimator.
        rows: Given rows by input name, as the ONNX file takes them.
    """
    base = _some(rows)
    with_missing = _changed(estimator, base, lambda _, values: EMPTY if values.dtype == object else np.nan)
    if with_missing is not None:
        yield "rows with missing values", with_missing
    encoded = {name for name, _ in encoders(estimator)}
    unseen = _changed(estimator, base, lambda name, values: _unseen(name, values, encoded))
    if unseen is not None:
        yield "rows with categories that it has not seen", unseen
    at_thresholds = _at_thresholds(estimator, base)
    if at_thresholds is not None and _takes(estimator, at_thresholds):
        yield "rows at the thresholds of its trees", at_thresholds


def _some(rows: Inputs) -> dict[str, Array]:
    count = len(next(iter(rows.values())))
    chosen = np.unique(np.linspace(0, count - 1, num=min(_ROWS, count)).astype(np.int64))
    return {name: values[chosen] for name, values in rows.items()}


def _unseen(name: str, values: Array, encoded: set[str]) -> Any:
    if values.dtype == object:
        return _UNSEEN_TEXT
    return _UNSEEN_NUMBER if name in encoded else None


def _changed(estimator: Any, base: Inputs, cell: Callable[[str, Array], Any]) -> dict[str, Array] | None:
    """Return the rows with another cell in each place where the estimator takes it, or None where it takes none.

    Every row has one such cell at least, and some have several.
    """
    places = [place for place in _places(base) if cell(place[0], base[place[0]]) is not None]
    places = [place for place in places if _takes(estimator, _set(base, [place], cell, rows=slice(0, 2)))]
    if not places:
        return None
    chance = np.random.default_rng(0)
    count = len(next(iter(base.values())))
    masks = chance.random((count, len(places))) < 1 / (2 * len(places))
    masks[np.arange(count), np.arange(count) % len(places)] = True
    changed = {name: values.copy() for name, values in base.items()}
    for (name, column), mask in zip(places, masks.T, strict=True):
        changed[name][mask, column] = cell(name, base[name])
    return changed if _takes(estimator, changed) else None


def _places(base: Inputs) -> list[tuple[str, int]]:
    places = [(name, column) for name, values in base.items() for column in range(values.shape[1])]
    return [places[place] for place in np.unique(np.linspace(0, len(places) - 1, num=_COLUMNS).astype(np.int64))]


def _set(base: Inputs, places: list[tuple[str, int]], cell: Callable[[str, Array], Any], *, rows: slice) -> Inputs:
    changed = {name: values[rows].copy() for name, values in base.items()}
    for name, column in places:
        changed[name][:, column] = cell(name, base[name])
    return changed


def _takes(estimator: Any, rows: Inputs) -> bool:
    """Return whether the estimator answers such rows; whatever it raises, it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.predict(asked_with(estimator, rows))
    except Exception:  # noqa: BLE001 - each library has its own way to refuse a cell
        return False
    return True


def _at_thresholds(estimator: Any, base: Inputs) -> dict[str, Array] | None:
    """Return rows with a number just below, at and just above thresholds, or None where there are none."""
    count = len(next(iter(base.values())))
    changes = [
        (name, column, number)
        for (name, column), thresholds in _thresholds(estimator, base).items()
        for number in _around(thresholds, base[name].dtype)
    ]
    if not changes:
        return None
    rows = np.arange(len(changes)) % count
    changed = {name: values[rows] for name, values in base.items()}
    for row, (name, column, number) in enumerate(changes):
        changed[name][row, column] = number
    return changed


def _around(thresholds: Array, dtype: Any) -> Iterator[Any]:
    different = np.unique(thresholds)
    chosen = np.linspace(0, len(different) - 1, num=min(_THRESHOLDS, len(different))).astype(np.int64)
    near = different[chosen].astype(dtype)
    yield from near
    for direction in (-np.inf, np.inf):
        yield from np.nextafter(near, np.asarray(direction, dtype))


def _thresholds(estimator: Any, base: Inputs) -> dict[tuple[str, int], Array]:
    """Return thresholds by input and column, for trees that see the columns as they come."""
    places = _unchanged(estimator, base)
    collected: dict[tuple[str, int], list[Array]] = {}
    for features, thresholds in _splits(estimator):
        for feature in np.unique(features):
            if int(feature) in places:
                numbers = thresholds[features == feature]
                collected.setdefault(places[int(feature)], []).append(numbers[np.isfinite(numbers)])
    joined = {place: np.concatenate(numbers) for place, numbers in collected.items()}
    return {place: numbers[np.abs(numbers) < _LARGE] for place, numbers in joined.items()}


def _unchanged(estimator: Any, base: Inputs) -> dict[int, tuple[str, int]]:
    """Return the input and column that becomes each feature of trees unchanged, by the feature's number."""
    step, names = first(estimator), fitted_names(estimator)
    if tuple(base) == (MATRIX,):
        computed = base[MATRIX].dtype == object or any(hasattr(part, "steps") for part in parts(estimator))
        return {} if computed else {column: (MATRIX, column) for column in range(base[MATRIX].shape[1])}
    if names is None or not hasattr(step, "transformers_"):
        return {}
    return {
        feature: (name, 0)
        for label, inner, chosen in step.transformers_
        if getattr(inner, "func", "") is None or inner == "passthrough"
        for feature, name in zip(_features(step, label), chosen_names(chosen, names), strict=False)
        if name in base and base[name].dtype != object
    }


def _features(step: Any, label: str) -> range:
    made = step.output_indices_.get(label, slice(0, 0))
    return range(made.start, made.stop)


def _splits(estimator: Any) -> Iterator[tuple[Array, Array]]:
    """Yield features and thresholds of the branches of each tree."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import BaseDecisionTree

    for part in parts(estimator):
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            inner = part.tree_.children_left != -1
            yield part.tree_.feature[inner], part.tree_.threshold[inner]
        elif isinstance(part, BaseHistGradientBoosting) and hasattr(part, "_predictors"):
            for tree in chain.from_iterable(part._predictors):  # noqa: SLF001 - its trees are nowhere else
                inner = tree.nodes["is_leaf"] == 0
                yield tree.nodes["feature_idx"][inner], tree.nodes["num_threshold"][inner]
