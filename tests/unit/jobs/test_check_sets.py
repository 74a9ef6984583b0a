"""What labels prove of models that answer several labels or numbers a row, or anything at all, by every metric."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from optimizer_jobs.commands.check.labelled_quality import metric_of
from optimizer_jobs.commands.check.watched_quality import Watched
from optimizer_jobs.commands.gather.splits import rare_label
from optimizer_jobs.measure import custom
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from optimizer_jobs.models.bundle import Lineage, Manifest
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.production.labels import Truth
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec
from retune.api.metrics import WATCHED, Metric, quality_metrics
from retune.api.model import Task
from retune.api.monitoring import Quality
from retune.api.own_code import CustomMetric
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict
from tests.unit.jobs.test_measure_multi_label import METRICS, of_sklearn

Floats = NDArray[np.float64]
Part = tuple[Captured, Truth]
DIGITS = load_digits()
LABELS = np.stack([DIGITS.target % 2 == 0, DIGITS.target < 5, np.isin(DIGITS.target, [0, 6, 8, 9])], axis=1).astype(
    np.int64
)
MODEL = MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(DIGITS.data[:600] / 16, LABELS[:600])
HELD = DIGITS.data[600:] / 16, LABELS[600:]


def manifest(task: Task, *outputs: TensorSpec, reading: Reading | None = None) -> Manifest:
    """Return the manifest of a model of digits."""
    one = TensorSpec(name="x", dtype="float32", shape=(-1, 64))
    return Manifest(
        task=task,
        engine=EngineOptions(),
        signature=Signature(inputs=(one,), outputs=outputs, reading=reading),
        techniques=(),
        size_bytes=10,
        model_digest="sha256:m",
        files={},
        lineage=Lineage(resource="ml/shop", original_model="sha256:o"),
    )


def tensor(name: str, *shape: int) -> TensorSpec:
    """Return a float32 output."""
    return TensorSpec(name=name, dtype="float32", shape=(-1, *shape))


SETS = manifest(Task.MULTI_LABEL, tensor("tags", 3), reading=Reading(scores="tags", scale=Scale.PROBABILITIES))


def probabilities(x: Floats) -> Floats:
    """Return the model's probability (N, 3) of each label."""
    return np.stack([table[:, 1] for table in MODEL.predict_proba(x)], axis=1)


def part(outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> Part:
    """Return captured rows with these answers, and their labels."""
    count = len(labels)
    captured = Captured(
        np.asarray([f"r{place}" for place in range(count)], dtype=object),
        np.zeros(count, np.int64),
        np.arange(count).astype("datetime64[us]"),
        np.full(count, "sha256:m", dtype=object),
        {"x": np.zeros((count, 64), np.float32)},
        outputs,
        seen=count,
    )
    return captured, Truth(labels)


def window(*, rows: int = 500, seed: int = 1, noise: float = 0.0) -> Part:
    """Return rows that the model has not learnt from, with so much noise in their inputs."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(HELD[0]), rows)
    x = HELD[0][chosen] + noise * generator.normal(size=(rows, 64))
    return part({"tags": probabilities(x).astype(np.float32)}, HELD[1][chosen])


REFERENCE = part({"tags": probabilities(HELD[0]).astype(np.float32)}, HELD[1])


def verdict(
    metric: Metric, now: Part, *, of: Manifest = SETS, reference: Part = REFERENCE, yardstick: Yardstick = PLAIN
) -> SignalVerdict:
    """Return what a window says by a metric."""
    return Watched(metric, Quality(metric=metric), of, yardstick).verdict(reference, now, notes="")


def test_every_metric_of_several_labels_is_watched() -> None:
    """But for the one that compares with the model as delivered."""
    assert set(quality_metrics(Task.MULTI_LABEL)) - set(WATCHED) == {Metric.FIDELITY}
    assert all(metric_of(Task.MULTI_LABEL, Quality(metric=metric)) is metric for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS)
def test_a_window_of_several_labels_is_judged_by_every_metric(metric: Metric) -> None:
    """The reference has scikit-learn's value; the same rows lose nothing, and noise is a proven loss."""
    quiet, loud = verdict(metric, window()), verdict(metric, window(noise=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = REFERENCE[0].outputs["tags"].astype(np.float64)
        expected = of_sklearn(metric, HELD[1], scores, np.ones(len(scores)))

    assert float(quiet.reference or 0) == pytest.approx(expected, rel=1e-3)
    assert quiet.verdict is not Verdict.BREACH, quiet.message
    assert (loud.verdict, loud.reason) == (Verdict.BREACH, "LossProven"), loud.message


@pytest.mark.slow
@pytest.mark.parametrize("metric", [Metric.F1_MICRO, Metric.HAMMING_LOSS])
def test_windows_of_several_labels_without_a_loss_raise_no_alarm(metric: Metric) -> None:
    """Twenty windows of the reference's own rows."""
    assert Verdict.BREACH not in [verdict(metric, window(rows=300, seed=seed)).verdict for seed in range(20)]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (HELD[1][:, :2], r"answers have shape \(300, 3\), and the labels \(300, 2\)"),
        (HELD[1] * 2 - 1, "labels of 273 of 300 rows are not all 0 or 1"),
        (HELD[1][:, 0], r"labels have shape \[300\], and several a row are \(rows, labels\)"),
    ],
    ids=["too few", "minus one and one", "one a row"],
)
def test_labels_that_are_no_sets_say_nothing(labels: NDArray[np.int64], says: str) -> None:
    """Indices of labels, or other codes, are never taken for zeros and ones."""
    now = part({"tags": REFERENCE[0].outputs["tags"][:300]}, labels[:300])
    for metric in (Metric.ACCURACY, Metric.F1_MICRO, Metric.LOG_LOSS):
        told = verdict(metric, now)
        assert (told.verdict, told.reason) == (Verdict.UNKNOWN, "NotMeasurable")
        assert re.search(says, told.message), told.message


def test_several_numbers_a_row_are_watched() -> None:
    """A regression of two numbers loses half as much again, and that is proven."""
    generator = np.random.default_rng(0)
    true = generator.normal(size=(800, 2)) * [1, 10]
    noise = generator.normal(size=(800, 2))
    of = manifest(Task.REGRESSION, tensor("y", 2), reading=Reading(scores="y"))
    before, now = (part({"y": (true + times * noise).astype(np.float32)}, true) for times in (1.0, 1.5))

    told = verdict(Metric.RMSE, now, of=of, reference=before)
    assert (told.verdict, told.reason) == (Verdict.BREACH, "LossProven"), told.message
    assert verdict(Metric.RMSE, before, of=of, reference=before).verdict is Verdict.CLEAR


@pytest.mark.parametrize("task", [Task.GENERIC, Task.EMBEDDING])
def test_code_of_the_owners_own_watches_models_of_any_task(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    """Boxes that moved away from the true ones are a proven loss; those that stayed are none."""
    monkeypatch.setattr(custom, "run_in_sandbox", lambda _, question, **__: custom.answer(question))
    own = Yardstick(custom=CustomMetric(entry_point="tests.unit.jobs.test_check_sets:distance"))
    generator = np.random.default_rng(0)
    boxes, jitter = generator.uniform(0, 100, (600, 4)), generator.normal(size=(600, 4))
    before, now = (part({"boxes": (boxes + times * jitter).astype(np.float32)}, boxes) for times in (1.0, 3.0))
    of = manifest(task, tensor("boxes", 4))

    told = verdict(Metric.CUSTOM_LOSS, now, of=of, reference=before, yardstick=own)
    assert (told.verdict, told.reason) == (Verdict.BREACH, "LossProven"), told.message
    quiet = verdict(Metric.CUSTOM_LOSS, before, of=of, reference=before, yardstick=own)
    assert quiet.verdict is Verdict.CLEAR, quiet.message


def distance(outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """Return how far the boxes of each row lie from the true ones."""
    return np.asarray(np.abs(outputs["boxes"] - labels).mean(axis=1))


def test_a_common_label_that_a_split_lacks_is_named() -> None:
    """A rare one may be missing: average precision leaves it out."""
    sets = (np.random.default_rng(0).uniform(size=(3, 400, 3)) < [0.5, 0.3, 0.002]).astype(np.int64)
    splits = dict(zip(("training", "validation", "test"), sets, strict=True))
    assert rare_label(splits) is None
    splits["test"] = splits["test"] * [1, 0, 1]
    assert rare_label(splits) == "no row of label 1, counted from 0, is in the test rows"
