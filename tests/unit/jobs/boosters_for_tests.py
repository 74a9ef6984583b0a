"""Boosted trees of XGBoost and LightGBM in their own files, and rows on which readers of trees go wrong."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.readers import Columns
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.boosters.forest import Forest
from optimizer_jobs.machinery.formats.base import Converted, Delivered, task_named
from optimizer_jobs.machinery.formats.registry import convert
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.runtime import open_model
from retune.api.model import ModelFormat, Task

Array = NDArray[Any]

CODES = 3
"""Column of the rows that holds codes of 40 categories."""
KINDS = ["q", "q", "q", "c", "q"]
"""Kinds of the columns, in XGBoost's words."""


def rows(count: int = 600, *, seed: int = 0) -> tuple[Array, Array]:
    """Return rows (N, 5), float32 with missing values, and a number (N,) to learn from them."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(count, 5)).astype(np.float32)
    X[:, CODES] = random.integers(0, 40, count)
    X[random.random(X.shape) < 0.05] = np.nan
    known = np.nan_to_num(X)
    return X, known[:, 0] + known[:, CODES] % 7 / 3 + known[:, 1] * known[:, 2]


def hard(X: Array, forest: Forest, *, codes: bool) -> Array:
    """Return the rows with borderline values: at, above and below thresholds, close to 0, and unknown categories.

    Args:
        X: The rows.
        forest: The trees that have the thresholds.
        codes: Whether the trees test categories.
    """
    random, X = np.random.default_rng(1), X.copy()
    tests = [
        (tree.feature[node], tree.threshold[node])
        for tree in forest.trees
        for node in np.flatnonzero(~tree.leaf).tolist()
        if node not in tree.categories
    ]
    for row, place in enumerate(random.integers(len(tests), size=len(X))):
        column, limit = tests[place]
        aside = (limit, np.nextafter(limit, np.float32(np.inf)), np.nextafter(limit, np.float32(-np.inf)))
        X[row, column] = aside[row % 3]
    X[::5, 1] = np.resize(np.array([0.0, -0.0, 1e-36, -1e-36, 1e-35, -1e-35, 2e-35, -2e-35], np.float32), len(X[::5]))
    if codes:
        X[::4, CODES] = np.resize(np.array([-1, -0.5, 0.5, 41, 1e6, 3e7, np.nan, 2.5], np.float32), len(X[::4]))
    return X


def columns(values: Mapping[str, Any], *, tabular: bool = False) -> Columns:
    """Return arrays as a data file of them would be read."""
    return Columns(names=tuple(values), read=lambda name: values[name], tabular=tabular)


def delivered(path: Path, data: Columns, *, format_: ModelFormat, task: Task | None = None) -> Converted:
    """Return what becomes of a delivered file; without a task, as what it is."""
    into = path.parent / f"from-{path.name}"
    into.mkdir(exist_ok=True)
    uri, asked = f"pvc://m/{path.name}", task or Task.CLASSIFICATION
    given = Delivered(native=Native(path, format_), uri=uri, task=asked, columns=data, label="label")
    try:
        return convert(given, into=into)
    except JobError as error:
        does = task_named(error) if task is None else None
        if does is None:
            raise
        return convert(replace(given, task=does), into=into)


def answers(model: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return what an ONNX file answers."""
    return open_model(model, EngineOptions(spinning=False)).run(inputs)
