"""Which output is the answer: found from real outputs and labels, taken where it is named, else asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import answers_of, predictions_of
from optimizer_jobs.measure.finding import Found, find_reading
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.signature import Scale, Signature
from retune.api.metrics import Metric
from retune.api.model import Model, Task

Array = NDArray[Any]
URI = "pvc://models/model.onnx"


@dataclass
class Answering:
    """A session that answers what was computed before, row by row."""

    outputs: Mapping[str, Array]
    signature: Signature = field(default_factory=lambda: Signature(inputs=(), outputs=()))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of the rows asked for."""
        return {name: values[feeds["row"]] for name, values in self.outputs.items()}


def rows(labels: Array) -> Rows:
    """Return rows that are their own numbers."""
    return Rows(inputs={"row": np.arange(len(labels))}, labels=labels, digest="")


def found(values: Mapping[str, Array], labels: Array, *, classes: tuple[int | str, ...] = (), **spec: Any) -> Found:
    """Return how outputs are read."""
    return find_reading(Answering(values), Model(uri=URI, **spec), rows(labels), classes=classes)


def accuracy(outputs: Mapping[str, Array], labels: Array, how: Found) -> float:
    """Return the accuracy of outputs, read so."""
    answers = answers_of(
        outputs, rows=len(labels), task=Task.CLASSIFICATION, classes=how.classes or None, reading=how.reading
    )
    return evaluate(Metric.ACCURACY, answers, rows(labels)).value


@pytest.fixture(scope="module")
def tumours() -> tuple[Array, Array, Array]:
    """Logits (N,), probabilities (N, 2) and labels (N,) of a real classifier of two classes."""
    X, y = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(max_iter=5000).fit(X / X.std(axis=0), y)
    scaled = X / X.std(axis=0)
    return model.decision_function(scaled).astype("f4"), model.predict_proba(scaled).astype("f4"), y


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    """Probabilities (N, 10) and labels (N,) of a real classifier of ten classes."""
    X, y = load_digits(return_X_y=True)
    return LogisticRegression(max_iter=5000).fit(X / 16, y).predict_proba(X / 16).astype("f4"), y


Two = tuple[Array, Array, Array]
Ten = tuple[Array, Array]


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("scale", Scale)
def test_one_number_a_row_is_the_second_of_two_classes(scale: Scale, tumours: Two, *, column: bool) -> None:
    """A sigmoid's probability or a logit, as (N,) or (N, 1): what it is, is seen from its values."""
    logits, probabilities, labels = tumours
    values = probabilities[:, 1] if scale is Scale.PROBABILITIES else logits
    outputs = {"out": values[:, np.newaxis] if column else values}
    how = found(outputs, labels)

    assert how.reading.scale is scale
    assert accuracy(outputs, labels, how) == np.mean((logits > 0) == labels) > 0.95


def test_one_sigmoid_for_each_class_gives_shares_of_their_sum(digits: Ten) -> None:
    """Columns between 0 and 1 that do not add up are no logits: a softmax would make them nearly equal."""
    probabilities, labels = digits
    heads = {"heads": probabilities * 0.9}
    how = found(heads, labels)
    read = predictions_of(heads, rows=len(labels), classes=None, reading=how.reading)

    assert how.reading.scale is Scale.PROBABILITIES
    assert read.probabilities == pytest.approx(probabilities, abs=1e-5)


@pytest.mark.parametrize("trees", [10, 20, 50])
def test_shares_that_sum_up_to_a_little_more_than_1_are_probabilities(trees: int) -> None:
    """Twenty times 0.05 is 1.0000001 in single precision; read as logits, a sure answer would be one of 0.73."""
    X, y = load_breast_cancer(return_X_y=True)
    forest = RandomForestClassifier(trees, random_state=0).fit(X[:400], y[:400])
    model = to_onnx(forest, X[:1].astype("f4"), options={"zipmap": False}).SerializeToString()
    label, probabilities = InferenceSession(model).run(None, {"X": X.astype("f4")})
    assert (probabilities.max() > 1) == (trees > 10)
    values = {"label": label, "probabilities": probabilities}
    how = found(values, y)
    assert how.reading.scale is Scale.PROBABILITIES
    answers = answers_of(values, rows=len(y), task=Task.CLASSIFICATION, reading=how.reading)
    expected = brier_score_loss(y, probabilities[:, 1].clip(0, 1))
    assert evaluate(Metric.BRIER_SCORE, answers, rows(y)).value == pytest.approx(expected, rel=1e-3)


def test_a_file_that_is_sorted_by_its_labels_is_read_like_any_other(digits: Ten) -> None:
    """Its first thousands of rows would be of a few classes only."""
    probabilities, labels = (np.repeat(part, 10, axis=0) for part in digits)
    order = np.argsort(labels, kind="stable")
    how = found({"other": probabilities[order][:, :3], "scores": probabilities[order]}, labels[order])

    assert how.reading.scores == "scores"
    assert how.reading.rarest == pytest.approx(0.097, abs=0.003)


def test_a_threshold_decides_between_two_classes(tumours: Two) -> None:
    """From the named probability on, a row is positive; also where the file has a label of its own."""
    _, probabilities, labels = tumours
    outputs = {"label": probabilities.argmax(axis=1), "probabilities": probabilities}
    how = found(outputs, labels, threshold="0.9")
    predictions = predictions_of(outputs, rows=len(labels), classes=None, reading=how.reading)

    assert np.array_equal(predictions.labels, (probabilities[:, 1] >= 0.9).astype(int))


def test_text_labels_are_the_columns_in_sorted_order(digits: Ten) -> None:
    """As label encoders number them; a file's own labels and the spec's come first."""
    probabilities, labels = digits
    words = np.asarray([f"digit {label}" for label in labels])
    how = found({"scores": probabilities}, words)

    assert how.classes == tuple(sorted(set(words)))
    assert accuracy({"scores": probabilities}, words, how) > 0.95
    named = tuple(f"digit {number}" for number in range(10))
    assert found({"scores": probabilities}, words, classes=named).classes == named


@pytest.mark.parametrize("first", [0, 1, 7])
def test_numbers_that_do_not_start_at_0_are_classes_too(first: int, digits: Ten) -> None:
    """Ten columns and ten labels are matched in order."""
    probabilities, labels = digits
    how = found({"scores": probabilities}, labels + first)

    assert accuracy({"scores": probabilities}, labels + first, how) > 0.95


def test_scores_beside_a_vector_are_found_by_their_width(digits: Ten) -> None:
    """An embedding that comes first is no answer to ten classes."""
    probabilities, labels = digits
    vector = np.random.default_rng(0).normal(size=(len(labels), 48)).astype("f4")
    how = found({"embedding": vector, "out": probabilities}, labels)

    assert how.reading.scores == "out"
    assert how.notes[0] == "out is the answer"


def test_of_two_outputs_of_one_width_the_one_that_knows_the_labels_is_taken(tumours: Two) -> None:
    """Names that say nothing leave what the rows say: only one of them is better than chance."""
    logits, _, labels = tumours
    noise = np.random.default_rng(0).normal(size=len(labels)).astype("f4")

    assert found({"a": noise, "b": logits}, labels).reading.scores == "b"


def test_two_outputs_that_both_know_are_asked_for(tumours: Two) -> None:
    """A person says which is served; a guess would judge the wrong one."""
    logits, _, labels = tumours
    with pytest.raises(UnfitAnswersError, match=r"outputs a, b could each be the answer: name one in model.outputs.sc"):
        found({"a": logits, "b": logits * 2}, labels)
    assert found({"a": logits, "b": logits * 2}, labels, outputs={"scores": "b"}).reading.scores == "b"


def test_an_output_that_is_not_there_is_refused_with_those_that_are(tumours: Two) -> None:
    """The sentence names the field and the outputs."""
    logits, _, labels = tumours
    with pytest.raises(UnfitAnswersError, match=r"model\.outputs\.scores names logit, but the outputs are a"):
        found({"a": logits}, labels, outputs={"scores": "logit"})


def test_scores_that_contradict_the_label_are_left_alone(digits: Ten) -> None:
    """A file whose columns are in another order than its labels is judged by its labels, and says so."""
    probabilities, labels = digits
    outputs = {"label": probabilities.argmax(axis=1), "scores": np.roll(probabilities, 1, axis=1)}
    how = found(outputs, labels)

    assert (how.reading.label, how.reading.scores) == ("label", None)
    assert "judged by its labels alone" in how.notes[0]


def test_the_rare_class_of_two_is_the_positive_one(tumours: Two) -> None:
    """Whichever number it has; the spec's own choice comes first, and a class that is none is refused."""
    _, probabilities, labels = tumours
    rare = np.concatenate([np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)[:20]])
    outputs, some = {"p": probabilities[rare]}, labels[rare]

    assert found(outputs, some).reading.positive == "0"
    assert found(outputs, some).reading.rarest == pytest.approx(20 / len(some), abs=1e-4)
    assert found(outputs, some, positiveLabel="1").reading.positive == "1"
    with pytest.raises(UnfitAnswersError, match="positiveLabel spam is no class"):
        found(outputs, some, positiveLabel="spam")


def test_numbers_to_predict_are_found_by_the_shape_of_the_labels() -> None:
    """24 steps a row are an answer to 24 labels, and a state beside them is none."""
    steps = np.random.default_rng(0).normal(size=(50, 24)).astype("f4")
    how = found({"state": np.zeros((50, 8), "f4"), "out": steps}, steps.astype(float), task=Task.REGRESSION)

    assert how.reading.scores == "out"
