"""Classifiers of other libraries, and fresh rows in which classes do not have the shares that they were trained on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Predictions, predict, spelled
from optimizer_jobs.measure.finding import classes_of_graph, find_reading
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Applied, Context, Subject
from optimizer_jobs.techniques import recalibration
from retune.api.model import Model, Task

Array = NDArray[Any]

COLUMNS = 12
_SHARES = {2: (0.88, 0.12), 3: (0.75, 0.2, 0.05)}
_ROWS = {"training": 1200, "validation": 1600, "test": 1600}


def data(split: str, *, classes: int = 2, shifted: bool = True) -> tuple[Array, Array]:
    """Return rows (N, 12) as float32 and labels (N,): equally frequent in training, and not any more afterwards.

    Args:
        split: `training`, `validation` or `test`.
        classes: 2 or 3.
        shifted: Whether shares of classes change after training.
    """
    X, y = make_classification(
        n_samples=12_000,
        n_features=COLUMNS,
        n_informative=6,
        n_classes=classes,
        n_clusters_per_class=1,
        class_sep=0.6,
        flip_y=0.05,
        random_state=classes,
    )
    place = list(_ROWS).index(split)
    X, y = X[place * 4000 : (place + 1) * 4000], y[place * 4000 : (place + 1) * 4000]
    shares = np.full(classes, 1 / classes) if split == "training" or not shifted else np.asarray(_SHARES[classes])
    counts = np.round(shares * _ROWS[split] * 0.85).astype(int)
    chosen = np.concatenate([np.flatnonzero(y == name)[:count] for name, count in enumerate(counts)])
    chosen = np.random.default_rng(place).permutation(chosen)
    return X[chosen].astype(np.float32), y[chosen]


@dataclass(frozen=True)
class Delivered:
    """A classifier with how its outputs are read, and the rows that it meets now."""

    model: Path
    signature: Signature
    classes: tuple[int | str, ...]
    validation: Rows
    test: Rows

    def context(self, workdir: Path, **changes: Any) -> Context:
        """Return what a step may use."""
        workdir.mkdir(parents=True, exist_ok=True)
        usual = Context(
            workdir=workdir,
            signature=self.signature,
            classes=self.classes,
            validation=self.validation,
            seed=0,
            cpu_flags=frozenset(),
        )
        return replace(usual, **changes)

    def subject(self) -> Subject:
        """Return what a technique sees of it before it is used."""
        return Subject(graph=onnx.load(self.model), signature=self.signature, task=Task.CLASSIFICATION)


def delivered(model: Path, *, classes: int = 2, names: Any = None, shifted: bool = True) -> Delivered:
    """Return a classifier in a file as the Jobs read it, by its answers to the validation rows.

    Args:
        model: The ONNX file, with one input.
        classes: 2 or 3.
        names: Names of the classes, one for each; None takes their numbers.
        shifted: Whether shares of classes have changed since training.
    """
    signature, session = check_onnx(model), open_model(model, EngineOptions(spinning=False))
    named = np.asarray(range(classes) if names is None else names)
    splits = {}
    for split in ("validation", "test"):
        X, y = data(split, classes=classes, shifted=shifted)
        inputs = {signature.inputs[0].name: X.astype(signature.inputs[0].dtype)}
        splits[split] = Rows(inputs=inputs, labels=named[y], digest=split)
    spec = Model.model_construct(uri="pvc://m/m.onnx", task=Task.CLASSIFICATION)
    found = find_reading(session, spec, splits["validation"], classes=classes_of_graph(onnx.load(model)))
    return Delivered(
        model=model,
        signature=signature.model_copy(update={"reading": found.reading}),
        classes=found.classes,
        validation=splits["validation"],
        test=splits["test"],
    )


def converted(fitted: Any, path: Path, *, opset: int = 18, dtype: Any = np.float32, **options: Any) -> Path:
    """Write a fitted estimator of scikit-learn as skl2onnx does."""
    from skl2onnx import to_onnx

    sample = data("training")[0][:1].astype(dtype)
    made = to_onnx(fitted, sample, options={"zipmap": False, **options}, target_opset={"": opset, "ai.onnx.ml": 3})
    path.write_bytes(made.SerializeToString())
    return path


def answers(given: Delivered, model: Path, rows: Rows) -> Predictions:
    """Return what a file answers to rows, as the judge reads it."""
    session = open_model(model, EngineOptions(spinning=False))
    return predict(session, rows, classes=given.classes or None, reading=given.signature.reading)


def loss(predictions: Predictions, rows: Rows) -> float:
    """Return the log loss as scikit-learn computes it."""
    names = [str(name) for name in spelled(np.asarray(predictions.classes))]
    order = np.argsort(names)
    assert predictions.probabilities is not None
    return float(log_loss(spelled(rows.answers), predictions.probabilities[:, order], labels=sorted(names)))


def outputs(model: Path, rows: Rows) -> dict[str, Any]:
    """Return all outputs of a file."""
    return dict(open_model(model, EngineOptions(spinning=False)).run(rows.inputs))


def applied(given: Delivered, method: str, workdir: Path, **changes: Any) -> Applied:
    """Recalibrate; the step must change the file."""
    made = recalibration.apply(given.model, {"method": method}, given.context(workdir, **changes))
    assert isinstance(made, Applied), made
    return made


def check(given: Delivered, method: str, workdir: Path) -> Predictions:
    """Hold a corrected file to all that is promised of it, on rows that it was not fitted on; return its answers."""
    before_bytes = given.model.read_bytes()
    made = applied(given, method, workdir / method)
    assert given.model.read_bytes() == before_bytes
    assert check_onnx(made.model) == check_onnx(given.model)
    before, after = (answers(given, model, given.test) for model in (given.model, made.model))
    assert loss(after, given.test) < loss(before, given.test) - 0.005
    assert after.probabilities is not None
    assert before.probabilities is not None
    named = np.asarray([str(name) for name in spelled(np.asarray(after.classes))])
    best = np.sort(after.probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-6
    np.testing.assert_array_equal(spelled(after.labels)[clear], named[after.probabilities.argmax(axis=1)][clear])
    if after.probabilities.shape[1] == 2:
        order = np.argsort(before.probabilities[:, 1])
        assert np.diff(after.probabilities[order, 1]).min() >= -1e-6
    again = applied(given, method, workdir / f"{method}-again")
    assert again.model.read_bytes() == made.model.read_bytes()
    assert again.summary == made.summary
    return after
