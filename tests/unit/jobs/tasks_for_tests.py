"""A regression and an embedding model, trained on real data, with their three splits as NPZ files."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retune.api.model import Task
from tests.unit.jobs import models_for_tests as models

DIABETES = {"training": slice(0, 230), "validation": slice(230, 330), "test": slice(330, 442)}
"""Rows of the shuffled diabetes data in each split."""


@dataclass(frozen=True)
class Delivered:
    """A folder with training.npz, validation.npz, test.npz and a model."""

    folder: Path
    model: str
    task: Task


def diabetes(split: str) -> tuple[models.Floats, np.ndarray]:
    """Return ten measurements a patient (N, 10), and the progression of the disease a year later (N,)."""
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[DIABETES[split]]
    return X[order].astype(np.float32), y[order]


def save_regression(folder: Path, *, linear: bool = False) -> Delivered:
    """Write the diabetes splits and a network, or a ridge regression, fitted on training."""
    from skl2onnx import to_onnx

    for split in DIABETES:
        X, y = diabetes(split)
        np.savez(folder / f"{split}.npz", x=X, label=y)
    X, y = diabetes("training")
    network = MLPRegressor(hidden_layer_sizes=(256,), max_iter=300, alpha=1.0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = (Ridge(alpha=0.1) if linear else make_pipeline(StandardScaler(), network)).fit(X, y)
    name = "ridge.onnx" if linear else "network.onnx"
    onnx = to_onnx(fitted, X[:1], target_opset=models.OPSET)
    (folder / name).write_bytes(onnx.SerializeToString())
    return Delivered(folder, name, Task.REGRESSION)


def save_embedding(folder: Path) -> Delivered:
    """Write the digits without labels, and the part of a classifier that ends in 32 numbers an image."""
    for split in models.SPLITS:
        np.savez(folder / f"{split}.npz", x=models.digits(split)[0])
    network = MLPClassifier(hidden_layer_sizes=(256, 32), max_iter=40, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(*models.digits("training"))
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["embedding"], name="head"),
    ]
    (w1, w2, _), (b1, b2, _) = network.coefs_, network.intercepts_
    weights: dict[str, Any] = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
    models.save_graph(folder / "encoder.onnx", nodes, weights, output="embedding", width=32)
    return Delivered(folder, "encoder.onnx", Task.EMBEDDING)
