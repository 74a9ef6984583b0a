"""Several labels a row: outputs are read in every form, and metrics have scikit-learn's values."""

import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.base import ClassifierMixin
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.formats.onnx_files import check_in_sandbox
from optimizer_jobs.measure.answers import Answers, answer
from optimizer_jobs.measure.bootstrap import resampled
from optimizer_jobs.measure.chance import no_better_than_chance
from optimizer_jobs.measure.finding import find_reading
from optimizer_jobs.measure.label_sets import LabelSets
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.engine import EngineOptions, Session
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec
from optimizer_jobs.study.protection import fitted_objectives, limits_in_words
from retune.api.metrics import CUSTOM, Metric, quality_metrics
from retune.api.model import Model, Outputs, Task
from retune.api.objectives import default_objectives

Floats = NDArray[np.float64]
METRICS = [metric for metric in quality_metrics(Task.MULTI_LABEL) if metric not in {Metric.FIDELITY, *CUSTOM}]


def rows_of(labels: NDArray[np.int64]) -> Rows:
    """Return rows of which only the labels matter."""
    return Rows(inputs={"x": np.zeros((len(labels), 1), dtype=np.float32)}, labels=labels, digest="")


def of_sklearn(metric: Metric, true: NDArray[np.int64], probabilities: Floats, weights: Floats) -> float:
    """Return scikit-learn's own value for weighted rows; areas leave out labels that not some rows have."""
    decided = probabilities > 0.5
    name, _, average = metric.value.partition("_")
    if name in {"precision", "recall", "f1"}:
        score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[name]
        return float(score(true, decided, average=average, sample_weight=weights, zero_division=0))
    if metric is Metric.ACCURACY:
        return float(sk.accuracy_score(true, decided, sample_weight=weights))
    if metric is Metric.HAMMING_LOSS:
        return float(sk.hamming_loss(true, decided, sample_weight=weights))
    columns = range(true.shape[1])
    if metric in {Metric.ROC_AUC, Metric.AVERAGE_PRECISION}:
        area = sk.roc_auc_score if metric is Metric.ROC_AUC else sk.average_precision_score
        known = [column for column in columns if 0 < true[:, column].sum() < len(true)]
        return float(np.mean([area(true[:, c], probabilities[:, c], sample_weight=weights) for c in known]))
    if metric is Metric.LOG_LOSS:
        losses = [sk.log_loss(true[:, c], probabilities[:, c], labels=[0, 1], sample_weight=weights) for c in columns]
        return float(np.mean(losses))
    brier = [
        sk.brier_score_loss(true[:, c], probabilities[:, c], labels=[0, 1], sample_weight=weights) for c in columns
    ]
    if metric is Metric.BRIER_SCORE:
        return float(np.mean(brier))
    shares = np.average(true, axis=0, weights=weights)
    return float(1 - np.mean(brier) / np.mean(shares * (1 - shares)))


@st.composite
def answered(draw: st.DrawFn) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Draw labels (N, L), probabilities with ties, and whole weights; some label is not the same for all rows."""
    seed, rows, labels = draw(st.integers(0, 10_000)), draw(st.integers(6, 40)), draw(st.integers(2, 6))
    generator = np.random.default_rng(seed)
    true = generator.integers(0, 2, (rows, labels))
    true[0, 0], true[1, 0] = 0, 1
    probabilities = generator.integers(0, 11, (rows, labels)) / 10
    return true, probabilities, generator.integers(1, 4, rows).astype(np.float64)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15, deadline=None)
@given(drawn=answered())
def test_a_metric_of_several_labels_is_that_of_scikit_learn(
    metric: Metric, drawn: tuple[NDArray[np.int64], Floats, Floats]
) -> None:
    """The value on the rows, and on every weighting of them, is the one that scikit-learn computes."""
    true, probabilities, weights = drawn
    answers = Answers(label_sets=LabelSets(probabilities > 0.5, probabilities, probabilities))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluation = evaluate(metric, answers, rows_of(true))
        assert evaluation.value == pytest.approx(of_sklearn(metric, true, probabilities, np.ones(len(true))))
        assert evaluation.at(weights[np.newaxis])[0] == pytest.approx(of_sklearn(metric, true, probabilities, weights))


def test_a_rare_label_that_some_resamples_lack_still_has_an_interval() -> None:
    """A label that one row has is missing in a third of the draws; the mean over the other labels counts there."""
    generator = np.random.default_rng(0)
    true = np.stack([generator.integers(0, 2, 200), np.arange(200) == 7], axis=1).astype(np.int64)
    probabilities = np.clip(true * 0.4 + generator.uniform(0, 0.6, true.shape), 0, 1)
    answers = Answers(label_sets=LabelSets(probabilities > 0.5, probabilities, probabilities))
    interval = resampled(evaluate(Metric.AVERAGE_PRECISION, answers, rows_of(true))).interval(0.95)
    assert 0 < interval.low <= interval.value <= interval.high < 2


class _Fixed:
    """A session that gives the same outputs to whatever it is asked."""

    def __init__(self, **outputs: NDArray[Any]) -> None:
        self._outputs = outputs
        one = TensorSpec(name="x", dtype="float32", shape=(-1, 1))
        self.signature = Signature(inputs=(one,), outputs=())

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs."""
        return {name: values[: len(inputs["x"])] for name, values in self._outputs.items()}


def _labels(rows: int = 200, labels: int = 3) -> NDArray[np.int64]:
    return (np.random.default_rng(1).uniform(size=(rows, labels)) < [0.5, 0.3, 0.1][:labels]).astype(np.int64)


def _spec(**fields: Any) -> Model:
    return Model.model_validate({"uri": "pvc://c/m.onnx", "task": "MultiLabel"} | fields)


@pytest.mark.parametrize("scale", [Scale.PROBABILITIES, Scale.LOGITS])
def test_one_score_for_each_label_is_read_as_what_it_is(scale: Scale) -> None:
    """Scores between 0 and 1 are probabilities, others logits; a label is given where it is more probable than not."""
    true = _labels()
    noise = np.random.default_rng(2).normal(size=true.shape)
    logits = 4 * true - 2 + noise
    scores = (1 / (1 + np.exp(-logits)) if scale is Scale.PROBABILITIES else logits).astype(np.float32)
    session = cast("Session", _Fixed(tags=scores, hidden=np.zeros((len(true), 9), np.float32)))
    how = find_reading(session, _spec(), rows_of(true))
    assert (how.reading.scores, how.reading.scale) == ("tags", scale)
    answers = answer(session, rows_of(true), task=Task.MULTI_LABEL, reading=how.reading)
    assert answers.label_sets is not None
    assert np.array_equal(answers.label_sets.decided, logits > 0)
    assert no_better_than_chance(answers, rows_of(true)) is None


def test_a_threshold_decides_instead_of_the_models_own_labels() -> None:
    """With model.threshold, a label is given from that probability on."""
    true = _labels()
    scores = np.where(true == 1, 0.4, 0.2).astype(np.float32)
    session = cast("Session", _Fixed(label=np.zeros_like(true), probabilities=scores))
    by_labels = find_reading(session, _spec(), rows_of(true)).reading
    by_threshold = find_reading(session, _spec(threshold="0.3"), rows_of(true)).reading
    answers = [
        answer(session, rows_of(true), task=Task.MULTI_LABEL, reading=reading) for reading in (by_labels, by_threshold)
    ]
    f1 = [evaluate(Metric.F1_MICRO, each, rows_of(true)).value for each in answers]
    assert f1 == [0.0, 1.0]


def test_labels_alone_are_held_by_what_they_have() -> None:
    """A model without scores is limited by f1_micro alone, and metrics of scores are refused in words."""
    true = _labels()
    session = cast("Session", _Fixed(label=true))
    reading = find_reading(session, _spec(), rows_of(true)).reading
    limits = fitted_objectives(default_objectives(Task.MULTI_LABEL), Task.MULTI_LABEL, reading)
    assert [limit.metric for limit in limits if limit.goal] == [Metric.F1_MICRO]
    answers = answer(session, rows_of(true), task=Task.MULTI_LABEL, reading=reading)
    assert no_better_than_chance(answers, rows_of(true)) is None
    with pytest.raises(UnfitAnswersError, match="needs scores of the labels"):
        evaluate(Metric.AVERAGE_PRECISION, answers, rows_of(true))


def test_labels_by_chance_are_refused() -> None:
    """Scores that have nothing to do with the labels cannot be told from chance, and are no yardstick."""
    true = _labels()
    scores = np.random.default_rng(3).uniform(size=true.shape)
    answers = Answers(label_sets=LabelSets(scores > 0.5, scores, scores))
    assert "roc_auc" in (no_better_than_chance(answers, rows_of(true)) or "")


def test_the_wrong_number_of_labels_is_named() -> None:
    """Three labels a row and four scores are no pair; the sentence shows the outputs."""
    true = _labels()
    session = cast("Session", _Fixed(scores=np.zeros((len(true), 4), np.float32)))
    with pytest.raises(UnfitAnswersError, match=r"no output answers task MultiLabel.*scores float32\[200, 4\]"):
        find_reading(session, _spec(), rows_of(true))


def test_init_says_why_these_limits() -> None:
    """The reason for three limits stands beside them."""
    words = limits_in_words(Task.MULTI_LABEL, Reading(scores="tags", scale=Scale.PROBABILITIES))
    assert words.startswith("f1_micro may fall by at most 0.01, average_precision may fall by at most 5 %")
    assert "rare ones be found" in words


@pytest.mark.parametrize(
    "estimator",
    [MultiOutputClassifier(LogisticRegression(max_iter=300)), RandomForestClassifier(5, random_state=0)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_two_probabilities_for_each_label_become_one_table(estimator: ClassifierMixin, tmp_path: Path) -> None:
    """What skl2onnx writes for several labels, a list or (labels, rows, 2), is one matrix with the same numbers."""
    from skl2onnx import to_onnx

    X, y = make_multilabel_classification(200, 8, n_classes=4, random_state=0)
    X = X.astype(np.float32)
    fitted = cast("Any", estimator).fit(X, y)
    options = {id(fitted): {"zipmap": False}}
    (tmp_path / "m.onnx").write_bytes(to_onnx(fitted, X[:1], options=options, target_opset=17).SerializeToString())
    checked = check_in_sandbox(tmp_path / "m.onnx", uri="pvc://c/m.onnx")
    outputs = open_model(checked.path, EngineOptions(spinning=False)).run({"X": X})
    expected = np.stack([pair[:, 1] for pair in fitted.predict_proba(X)], axis=1)
    assert np.allclose(outputs["probabilities"], expected, atol=1e-4)
    assert np.array_equal(outputs["label"], fitted.predict(X))
    assert checked.signature.outputs[1].shape == (-1, 4)


def test_outputs_may_be_named() -> None:
    """Of two tables of the same shape, the one that the spec names is read."""
    true = _labels()
    wrong = np.random.default_rng(0).uniform(size=true.shape).astype(np.float32)
    session = cast("Session", _Fixed(first=wrong, second=true.astype(np.float32)))
    spec = _spec().model_copy(update={"outputs": Outputs(scores="second")})
    assert find_reading(session, spec, rows_of(true)).reading.scores == "second"
    assert find_reading(session, _spec(), rows_of(true)).reading.scores == "second", "it alone knows the labels"
