"""Real data sets of scikit-learn, split once, and what a Job makes of an estimator fitted on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.readers import Columns
from optimizer_jobs.machinery.estimators.convert import to_onnx
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import TensorSpec
from optimizer_jobs.technique import Context
from retune.api.model import ModelFormat, Task


@dataclass(frozen=True)
class Split:
    """Training and validation rows of one data set."""

    X: Any
    y: Any
    unseen: Any
    unseen_labels: Any

    @property
    def training(self) -> Rows:
        """Rows to train on."""
        return Rows(inputs={"x": self.X.astype(np.float32)}, labels=self.y, digest="training")

    @property
    def validation(self) -> Rows:
        """Rows to compare on."""
        return Rows(inputs={"x": self.unseen.astype(np.float32)}, labels=self.unseen_labels, digest="validation")

    @property
    def columns(self) -> Columns:
        """Validation rows as an NPZ file would hold them."""
        return columns({"x": self.unseen, "label": self.unseen_labels}, tabular=False)


@cache
def split(name: str) -> Split:
    """Return digits, breast_cancer, wine or diabetes, in numbers that float32 holds."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X = X.astype(np.float32).astype(np.float64)
    classes = None if name == "diabetes" else y
    X, unseen, y, unseen_labels = train_test_split(X, y, test_size=0.4, random_state=0, stratify=classes)
    return Split(X, y, unseen, unseen_labels)


def columns(values: Mapping[str, Any], *, tabular: bool) -> Columns:
    """Return arrays as a data file of them would be read."""
    return Columns(names=tuple(values), read=lambda name: values[name], tabular=tabular)


def matrix_input(width: int) -> tuple[TensorSpec, ...]:
    """Return the input of an estimator that takes a matrix."""
    return (TensorSpec(name="x", dtype="float32", shape=(-1, width)),)


def converted(estimator: Any, data: Split, target: Path) -> Path:
    """Write an estimator as ONNX, checked on the validation rows."""
    inputs, rows = matrix_input(data.X.shape[1]), data.validation.inputs
    to_onnx(estimator, inputs, target=target, rows=rows, delivered=False)
    return target


def answers(model: Path, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file answers."""
    return open_model(model, EngineOptions()).run(rows)


def delivered(estimator: Any, data: Split, folder: Path, *, task: Task = Task.CLASSIFICATION) -> Converted:
    """Return what becomes of an estimator that is delivered as a skops file."""
    from skops import io

    from optimizer_jobs.machinery.formats.estimators import convert

    path = folder / "delivered.skops"
    io.dump(estimator, path)
    return convert(
        Delivered(
            native=Native(path, ModelFormat.SKOPS),
            uri="pvc://models/delivered.skops",
            task=task,
            columns=data.columns,
            label="label",
        ),
        into=folder,
    )


def context(made: Converted, data: Split, workdir: Path, *, task: Task = Task.CLASSIFICATION) -> Context:
    """Return what a step may use on a delivered estimator."""
    workdir.mkdir()
    return Context(
        workdir=workdir,
        signature=made.signature,
        classes=made.classes,
        task=task,
        native=made.native,
        training=data.training,
        validation=data.validation,
        calibration=data.training,
        seed=3,
        cpu_flags=frozenset(),
    )
