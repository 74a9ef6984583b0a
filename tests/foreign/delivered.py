"""What a stranger hands over: a model file, data beside it, and what the library that made the model answers.

Nothing of Retune is imported here or in the corpus: what a model answers comes from its own library alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]
Columns = Mapping[str, Array]
"""Inputs by name, or columns of a table, each with one entry a row in its first axis."""
Format = Literal["npz", "csv", "parquet"]
Task = Literal["Classification", "Regression", "Embedding"]
SPLITS = ("train", "validation", "test")
SHARES = (0.4, 0.2, 0.4)
"""Of the rows, in the order of SPLITS: a verdict needs test rows."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One model as it lies in a folder, with what is known of it without Retune."""

    model: Path
    rows: Columns
    """Inputs of the test rows, as the data file has them."""
    labels: Array | None
    """Labels of the test rows; None where nobody has labels."""
    native: Mapping[str, Array]
    """What the model's own library answers to the test rows: `label`, `probabilities` or `value`, or an ONNX output."""
    answer: str | None = None
    """The ONNX output with the scores or numbers, where there are several."""
    deviants: float = 0.001
    """Share of the rows, or a single one, that version 1 may answer otherwise: single precision decides there."""
    options: tuple[str, ...] = ()
    """Further options of `retune init`, as a person who knows the model would give them."""

    @property
    def task(self) -> Task:
        """What the model does, by its labels."""
        if self.labels is None:
            return "Embedding"
        return "Regression" if self.labels.dtype.kind == "f" else "Classification"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """One model of the corpus."""

    name: str
    make: Callable[[Path], Delivered] = field(repr=False)
    """Writes model and data into an empty folder."""
    packages: tuple[str, ...] = ()
    """Modules that making it needs, besides those of the development environment."""
    refused: str | None = None
    """Part of the sentence with which `retune` refuses it; None where it is optimized."""
    slice: bool = False
    """Whether it is in the slice that `make test` runs."""
    float_net: bool = False
    """Whether it is a network of float weights, which the peers of the bench take."""


def split(count: int, *, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Return the shuffled row numbers of each split."""
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum([round(share * count) for share in SHARES[:-1]])
    return dict(zip(SPLITS, np.split(order, ends), strict=True))


def take(columns: Columns, rows: NDArray[np.int64]) -> dict[str, Array]:
    """Return these rows of every column."""
    return {name: values[rows] for name, values in columns.items()}


def save(
    folder: Path,
    columns: Columns,
    labels: Array | None,
    *,
    parts: Mapping[str, NDArray[np.int64]],
    as_: Format = "npz",
    label: str = "label",
) -> None:
    """Write one data file a split, in the form in which people keep such data.

    Args:
        folder: Where the files go.
        columns: Inputs of all rows.
        labels: Labels of all rows, or None.
        parts: Row numbers of each split.
        as_: Form of the files.
        label: Column of the labels.
    """
    for name, rows in parts.items():
        content = take(columns, rows) | ({} if labels is None else {label: labels[rows]})
        if as_ == "npz":
            np.savez(folder / f"{name}.npz", **content)  # type: ignore[arg-type] # an array called allow_pickle is none of ours
        elif as_ == "csv":
            pd.DataFrame(content).to_csv(folder / f"{name}.csv", index=False)
        else:
            pd.DataFrame(content).to_parquet(folder / f"{name}.parquet", index=False)
