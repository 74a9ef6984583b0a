"""What a shop for tests may sell: real rows and a real model for each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Task

Array = NDArray[Any]
Answer = Callable[[Array], dict[str, Array]]

_VECTOR = 16


@dataclass(frozen=True)
class Trade:
    """Rows, what is true of them, and how a model is made that answers them."""

    task: Task
    load: Callable[[], Any]
    fit: Callable[[Array, Array], Answer]
    outputs: tuple[TensorSpec, ...]

    def rows(self) -> tuple[Array, Array]:
        """Return inputs (N, F) float32 and what is true (N,)."""
        data = self.load()
        return data.data.astype(np.float32), data.target

    def signature(self, width: int) -> Signature:
        """Return what the model takes and answers."""
        return Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, width)),), outputs=self.outputs)


def _classifier(inputs: Array, truth: Array) -> Answer:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(inputs, truth)

    def answer(rows: Array) -> dict[str, Array]:
        scores = model.predict_proba(rows).astype(np.float32)
        return {"label": scores.argmax(axis=1).astype(np.int64), "scores": scores}

    return answer


def _regression(inputs: Array, truth: Array) -> Answer:
    model = make_pipeline(StandardScaler(), Ridge()).fit(inputs, truth)
    return lambda rows: {"progression": model.predict(rows).astype(np.float32)}


def _embedding(inputs: Array, _truth: Array) -> Answer:
    model = PCA(_VECTOR, random_state=0).fit(inputs)
    return lambda rows: {"vector": normalize(model.transform(rows)).astype(np.float32)}


def _one(name: str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=(-1,))


def _many(name: str, count: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=(-1, count))


TRADES: Mapping[Task, Trade] = {
    Task.CLASSIFICATION: Trade(
        Task.CLASSIFICATION, load_breast_cancer, _classifier, (_one("label", "int64"), _many("scores", 2))
    ),
    Task.REGRESSION: Trade(Task.REGRESSION, load_diabetes, _regression, (_one("progression"),)),
    Task.EMBEDDING: Trade(Task.EMBEDDING, load_digits, _embedding, (_many("vector", _VECTOR),)),
}
