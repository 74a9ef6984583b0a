"""Reading answers of real classifiers, row by row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.quality import NotAClassifierError, Predictions, agreement, correct, predict
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import Session, open_model
from tests.unit.jobs import models_for_tests as models

Splits = dict[str, Rows]


def opened(path: Path) -> Session:
    """Open a model as a bundle would with default options."""
    return open_model(path, EngineOptions())


def fitted(rows: Rows, session: Session) -> Rows:
    """Return the rows under the name that the model has for its one input."""
    (spec,) = session.signature.inputs
    return replace(rows, inputs={spec.name: rows.inputs["x"]})


@pytest.mark.parametrize("name", ["mlp.onnx", "sklearn.onnx", "conv.onnx"])
def test_real_classifiers_are_right_on_most_digits(name: str, delivered: Path, splits: Splits) -> None:
    """Scores alone, and labels with probabilities, are both read as the digit they mean."""
    session = opened(delivered / name)
    found = predict(session, fitted(splits["test"], session))

    assert found.labels.shape == (len(splits["test"]),)
    assert correct(found, splits["test"]).mean() > 0.9


def test_label_output_and_scores_of_the_same_network_agree(delivered: Path, splits: Splits) -> None:
    """A converter's own label output says what the largest score says."""
    from_scores = predict(opened(delivered / "mlp.onnx"), splits["test"])
    converted = opened(delivered / "sklearn.onnx")
    from_labels = predict(converted, fitted(splits["test"], converted))

    assert agreement(from_scores, from_labels).all()
    assert from_labels.scores is not None
    assert from_labels.scores.shape == (len(splits["test"]), 10)


@pytest.mark.parametrize("batch", [1, 7, 256, 10_000])
def test_batch_size_does_not_change_an_answer(batch: int, delivered: Path, splits: Splits) -> None:
    """Whatever the batch, also where it does not divide the rows, every row keeps its answer and its place."""
    session, rows = opened(delivered / "mlp.onnx"), splits["test"].take(slice(0, 50))

    assert np.array_equal(predict(session, rows, batch=batch).labels, predict(session, rows).labels)


def test_model_with_a_fixed_batch_is_asked_in_that_size(delivered: Path, tmp_path: Path, splits: Splits) -> None:
    """A batch of exactly 8 is padded at the end, and the padding leaves no trace in the answers."""
    model = onnx.load(delivered / "mlp.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "fixed.onnx")
    rows = splits["test"].take(slice(0, 21))

    found = predict(opened(tmp_path / "fixed.onnx"), rows)

    assert np.array_equal(found.labels, predict(opened(delivered / "mlp.onnx"), rows).labels)


def test_class_names_of_the_bundle_name_the_scores(delivered: Path, splits: Splits) -> None:
    """With classes given, the answer is the class's name and is compared with labels in the same words."""
    named = tuple(f"digit {number}" for number in range(10))
    rows = splits["test"]
    in_words = Rows(inputs=rows.inputs, labels=np.asarray(named)[rows.labels], digest=rows.digest)
    session = opened(delivered / "mlp.onnx")

    found = predict(session, in_words, classes=named)

    assert np.array_equal(correct(found, in_words), correct(predict(session, rows), rows))


def test_numbers_and_their_spelling_are_the_same_class() -> None:
    """A model that answers "3" or 3.0 is right where the label is 3, and wrong where it is 4."""
    rows = Rows(inputs={}, labels=np.array([3, 4]), digest="sha256:0")

    for labels in (np.array(["3", "3"]), np.array([3.0, 3.0]), np.array([3, 3], dtype=np.int32)):
        assert correct(Predictions(labels=labels), rows).tolist() == [True, False]


def test_model_without_classes_is_refused_with_its_outputs(tmp_path: Path, splits: Splits) -> None:
    """One float a row is neither a label nor scores; the error names the output and its shape."""
    total = helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=1)
    path = models.save_graph(
        tmp_path / "sum.onnx", [total], {"axes": np.array([1], dtype=np.int64)}, output="total", width=1
    )

    with pytest.raises(NotAClassifierError, match=r"total .*\[20, 1\]"):
        predict(opened(path), splits["test"].take(slice(0, 20)))
