"""Reading answers of real classifiers, row by row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import (
    Answers,
    NotAClassifierError,
    Predictions,
    agreement,
    alike,
    answer,
    correct,
    predict,
)
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import Session, open_model
from retune.api.metrics import Metric
from retune.api.model import Task
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs.tasks_for_tests import diabetes, save_embedding, save_regression

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


def patients() -> Rows:
    """Return the test rows of the diabetes data."""
    X, y = diabetes("test")
    return Rows(inputs={"X": X}, labels=y, digest="sha256:0")


def test_errors_of_a_regression_are_kept_row_by_row(tmp_path: Path) -> None:
    """Root and mean of the rows' errors are what scikit-learn would call rmse and mae."""
    made = save_regression(tmp_path, linear=True)
    found = answer(opened(made.folder / made.model), patients(), task=Task.REGRESSION)
    missed = found.numbers - patients().answers

    assert np.allclose(evaluate(Metric.MAE, found, patients()).scores, np.abs(missed))
    assert evaluate(Metric.RMSE, found, patients()).value == pytest.approx(np.sqrt(np.mean(missed**2)))


def test_an_embedding_with_a_fixed_batch_answers_the_same(tmp_path: Path, splits: Splits) -> None:
    """Padding of the last batch leaves no trace, so neighbours are those of the free model."""
    made = save_embedding(tmp_path)
    model = onnx.load(made.folder / made.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "fixed.onnx")
    rows = splits["test"].take(slice(0, 45))
    free = answer(opened(made.folder / made.model), rows, task=Task.EMBEDDING)
    fixed = answer(opened(tmp_path / "fixed.onnx"), rows, task=Task.EMBEDDING)

    for metric in (Metric.COSINE, Metric.NEIGHBOR_AGREEMENT):
        assert evaluate(metric, fixed, rows, reference=free).value == pytest.approx(1.0, abs=1e-5)


def test_nearest_neighbour_of_a_digit_is_seldom_another_digit(tmp_path: Path, splits: Splits) -> None:
    """Neighbours come from the embedding: rows of one digit lie together, and no row is its own neighbour."""
    made = save_embedding(tmp_path)
    rows = splits["test"]
    found = answer(opened(made.folder / made.model), rows, task=Task.EMBEDDING).numbers
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -1)
    expected = near.argmax(axis=1)
    swapped = Answers(values=found[expected])

    assert np.mean(rows.answers[expected] == rows.answers) > 0.9
    agreed = evaluate(Metric.NEIGHBOR_AGREEMENT, Answers(values=found), rows, reference=Answers(values=found))
    assert agreed.value == 1.0
    assert evaluate(Metric.NEIGHBOR_AGREEMENT, swapped, rows, reference=Answers(values=found)).value < 1


def test_neighbours_do_not_change_with_the_length_of_an_embedding(tmp_path: Path, splits: Splits) -> None:
    """Cosine decides, so twice the numbers are the same embedding."""
    made = save_embedding(tmp_path)
    rows = splits["test"].take(slice(0, 100))
    found = answer(opened(made.folder / made.model), rows, task=Task.EMBEDDING)
    twice = Answers(values=2 * found.numbers)

    assert evaluate(Metric.NEIGHBOR_AGREEMENT, twice, rows, reference=found).value == 1.0
    assert evaluate(Metric.COSINE, twice, rows, reference=found).scores == pytest.approx(1.0)


def test_regressions_are_alike_as_far_as_they_differ_by_less_than_the_spread() -> None:
    """The same answers are alike by 1; answers that are a spread away by 0, and never less."""
    values = patients().answers
    champion = Answers(values=values)

    assert alike(champion, champion).min() == 1.0
    assert alike(champion, Answers(values=values + 0.1 * values.std())) == pytest.approx(0.9)
    assert alike(champion, Answers(values=values + 5 * values.std())).max() == 0.0


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """A logarithm of what is below 0 is no prediction; the message says for how many rows."""
    nodes = [helper.make_node("Log", ["x"], ["l"]), helper.make_node("ReduceSum", ["l", "axes"], ["t"], keepdims=1)]
    path = models.save_graph(tmp_path / "log.onnx", nodes, {"axes": np.array([1], dtype=np.int64)}, output="t", width=1)
    X = -np.ones((5, 64), dtype=np.float32)

    with pytest.raises(UnfitAnswersError, match="5 of its answers are not finite"):
        answer(opened(path), Rows(inputs={"x": X}, labels=np.arange(5.0), digest="sha256:0"), task=Task.REGRESSION)
