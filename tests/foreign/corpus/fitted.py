"""Estimators with scikit-learn's interface, fitted and saved as people save them, with their own answers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from tests.foreign.delivered import Array, Columns, Delivered, Format, save, split, take

Save = Callable[[Any, Path], Path]


def as_joblib(model: Any, folder: Path) -> Path:
    """Save an estimator as most people do."""
    path = folder / "model.joblib"
    joblib.dump(model, path)
    return path


def deliver(
    folder: Path,
    model: Any,
    columns: Columns,
    labels: Array,
    *,
    saved: Save = as_joblib,
    as_: Format = "npz",
    label: str = "label",
    options: tuple[str, ...] = (),
    deviants: float = 0.001,
) -> Delivered:
    """Fit a model on the training rows, write model and data, and ask the model itself for the test rows.

    Args:
        folder: Where the files go.
        model: An estimator that is not fitted; of a matrix where `columns` has `x` alone, else of a table.
        columns: Inputs of all rows.
        labels: Labels of all rows.
        saved: How the model is saved.
        as_: Form of the data files.
        label: Column of the labels.
        options: Further options of `retune init`.
        deviants: Share of the rows that version 1 may answer otherwise.
    """
    parts = split(len(labels))
    save(folder, columns, labels, parts=parts, as_=as_, label=label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of short trainings that have not converged
        model.fit(_input(take(columns, parts["train"])), labels[parts["train"]])
    test = take(columns, parts["test"])
    return Delivered(
        model=saved(model, folder),
        rows=test,
        labels=labels[parts["test"]],
        native=answers(model, _input(test), labels),
        options=options,
        deviants=deviants,
    )


def _input(columns: Columns) -> Any:
    return columns["x"] if set(columns) == {"x"} else pd.DataFrame(dict(columns))


def answers(model: Any, rows: Any, labels: Array) -> dict[str, Array]:
    """Return what a fitted model answers to rows: labels and probabilities, or values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = np.asarray(model.predict(rows)).reshape(-1, *labels.shape[1:])
        if labels.dtype.kind == "f":
            return {"value": predicted}
        scored = {"probabilities": np.asarray(model.predict_proba(rows))} if hasattr(model, "predict_proba") else {}
        return {"label": predicted, **scored}
