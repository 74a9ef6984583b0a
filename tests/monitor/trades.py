"""What a shop for tests may sell: real rows and a real model for each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec
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
    reading: Reading | None = None
    true: Callable[[Array], Array] = np.asarray
    """What is true of rows with these targets."""

    def rows(self) -> tuple[Array, Array]:
        """Return inputs (N, F) float32 and what is true (N,), or (N, L) of several labels."""
        data = self.load()
        return data.data.astype(np.float32), self.true(data.target)

    def signature(self, width: int) -> Signature:
        """Return what the model takes and answers."""
        return Signature(
            inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, width)),),
            outputs=self.outputs,
            reading=self.reading,
        )


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


def _tags(digits: Array) -> Array:
    """Return three labels of each digit: whether it is even, below five, and written with a loop."""
    return np.stack([digits % 2 == 0, digits < 5, np.isin(digits, [0, 6, 8, 9])], axis=1).astype(np.int64)


def _tagger(inputs: Array, truth: Array) -> Answer:
    model = MultiOutputClassifier(LogisticRegression(max_iter=2000)).fit(inputs, truth)
    return lambda rows: {"tags": np.stack([one[:, 1] for one in model.predict_proba(rows)], axis=1).astype(np.float32)}


def _one(name: str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=(-1,))


def _many(name: str, count: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=(-1, count))


TRADES: Mapping[Task, Trade] = {
    Task.CLASSIFICATION: Trade(
        Task.CLASSIFICATION,
        load_breast_cancer,
        _classifier,
        (_one("label", "int64"), _many("scores", 2)),
    ),
    Task.REGRESSION: Trade(Task.REGRESSION, load_diabetes, _regression, (_one("progression"),)),
    Task.MULTI_LABEL: Trade(
        Task.MULTI_LABEL,
        load_digits,
        _tagger,
        (_many("tags", 3),),
        reading=Reading(scores="tags", scale=Scale.PROBABILITIES),
        true=_tags,
    ),
    Task.EMBEDDING: Trade(Task.EMBEDDING, load_digits, _embedding, (_many("vector", _VECTOR),)),
}
