"""What labels prove of a window by any metric: without a loss nothing, and nothing where a metric has no value."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.commands.check.watched_quality import Watched
from optimizer_jobs.measure import custom
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from optimizer_jobs.models.bundle import Lineage, Manifest
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.production.labels import Truth
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec
from retune.api.metrics import Metric
from retune.api.model import Cost
from retune.api.monitoring import Quality
from retune.api.own_code import CustomMetric
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

Part = tuple[Captured, Truth]
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 30)),),
    outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, 2)),),
    reading=Reading(scores="scores", scale=Scale.PROBABILITIES, positive="0"),
)
MANIFEST = Manifest(
    engine=EngineOptions(),
    signature=SIGNATURE,
    techniques=(),
    size_bytes=10,
    model_digest="sha256:m",
    files={},
    lineage=Lineage(resource="ml/shop", original_model="sha256:o"),
)
X, Y = load_breast_cancer(return_X_y=True)
MODEL = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[::2], Y[::2])


def part(x: NDArray[Any], labels: NDArray[Any], **beside: Any) -> Part:
    """Return captured rows with the model's answers, and what is known of them."""
    count = len(x)
    captured = Captured(
        np.asarray([f"r{place}" for place in range(count)], dtype=object),
        np.zeros(count, np.int64),
        np.arange(count).astype("datetime64[us]"),
        np.full(count, "sha256:m", dtype=object),
        {"x": x.astype(np.float32)},
        {"scores": MODEL.predict_proba(x).astype(np.float32)},
        seen=count,
    )
    return captured, Truth(labels, **beside)


def window(*, rows: int = 400, seed: int = 1, noise: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows that the model has not learnt from, with so much noise in their inputs, and their labels."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(X[1::2]), rows)
    x = X[1::2][chosen]
    return x + noise * generator.normal(size=x.shape) * X.std(axis=0), Y[1::2][chosen]


REFERENCE = part(X[1::2], Y[1::2])


def verdict(
    metric: Metric, now: Part, *, reference: Part = REFERENCE, yardstick: Yardstick = PLAIN, **quality: Any
) -> SignalVerdict:
    """Return what a window says by a metric."""
    watched = Watched(metric, Quality(metric=metric, **quality), MANIFEST, yardstick)
    return watched.verdict(reference, now, notes="")


BY_ANY = (Metric.LOG_LOSS, Metric.AVERAGE_PRECISION, Metric.RECALL, Metric.F1, Metric.ROC_AUC, Metric.EXPECTED_COST)
FRAUD = Yardstick(costs=(Cost(actual="0", predicted="1", cost="20"),))


@pytest.mark.parametrize("metric", BY_ANY)
def test_noise_in_the_inputs_is_a_proven_loss_by_every_metric(metric: Metric) -> None:
    """And the same rows as before are none."""
    quiet = verdict(metric, part(*window()), yardstick=FRAUD)
    loud = verdict(metric, part(*window(rows=1000, noise=3.0)), yardstick=FRAUD)

    assert quiet.verdict is not Verdict.BREACH, quiet.message
    assert (loud.verdict, loud.reason) == (Verdict.BREACH, "LossProven"), loud.message
    assert ("points" in loud.message) == metric.is_share
    assert float(loud.low or 0) <= float(loud.value or 0) <= float(loud.high or 0)


@pytest.mark.slow
@pytest.mark.parametrize("metric", [Metric.AVERAGE_PRECISION, Metric.LOG_LOSS])
def test_windows_without_a_loss_raise_no_alarm(metric: Metric) -> None:
    """Thirty windows of the reference's own rows."""
    told = [verdict(metric, part(*window(rows=300, seed=seed))).verdict for seed in range(30)]
    assert Verdict.BREACH not in told


@pytest.mark.parametrize("metric", [Metric.AVERAGE_PRECISION, Metric.RECALL, Metric.ROC_AUC])
def test_a_window_without_a_positive_row_says_nothing(metric: Metric) -> None:
    """Unknown with the reason, and never an alarm."""
    x, labels = window(rows=600, noise=3.0)
    told = verdict(metric, part(x[labels == 1], labels[labels == 1]))

    assert (told.verdict, told.reason) == (Verdict.UNKNOWN, "NotMeasurable")
    assert "no row has the" in told.message


def test_weights_decide_what_a_window_shows() -> None:
    """The rows that count are answered well, and the others are not; few that count are too few."""
    (good, known), (bad, other) = window(rows=400), window(rows=400, seed=2, noise=5.0)
    mixed = np.random.default_rng(0).permutation(800)
    x, labels = np.concatenate([good, bad])[mixed], np.concatenate([known, other])[mixed]
    counting = np.repeat([1.0, 0.0], 400)[mixed]
    reference = (REFERENCE[0], Truth(REFERENCE[1].labels, weights=np.ones(len(REFERENCE[1].labels))))
    by_good = verdict(Metric.ACCURACY, part(x, labels, weights=counting), reference=reference)
    by_bad = verdict(Metric.ACCURACY, part(x, labels, weights=1 - counting), reference=reference)
    few = np.where(np.arange(800) < 20, 1e6, 1.0)

    assert by_good.verdict is not Verdict.BREACH, by_good.message
    assert by_bad.verdict is Verdict.BREACH, by_bad.message
    assert verdict(Metric.ACCURACY, part(x, labels, weights=few), reference=reference).reason == "TooFewLabels"


def test_weights_on_one_side_only_are_no_comparison() -> None:
    """The sentence names both columns."""
    x, labels = window()
    told = verdict(Metric.LOG_LOSS, part(x, labels, weights=np.ones(400)))

    assert (told.verdict, told.reason) == (Verdict.UNKNOWN, "NotMeasurable")
    assert "labels.weightColumn" in told.message


def test_an_order_needs_the_groups_of_the_labels() -> None:
    """Without groups it is said which column to name; with them, groups are counted."""
    x, labels = window(rows=2000)
    groups = np.asarray([f"u{place // 10}" for place in range(2000)])
    of_reference = np.asarray([f"u{place // 5}" for place in range(len(REFERENCE[1].labels))])
    reference = (REFERENCE[0], Truth(REFERENCE[1].labels, groups=of_reference))
    ordered = verdict(Metric.NDCG_10, part(x, labels, groups=groups), reference=reference)

    assert "groups" in ordered.message
    assert ordered.verdict is not Verdict.UNKNOWN, ordered.message
    assert "groupColumn" in verdict(Metric.NDCG_10, part(x, labels)).message


def test_code_of_the_owners_own_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric by code is watched like any other, and code that fails says nothing of quality."""
    monkeypatch.setattr(custom, "run_in_sandbox", lambda _, question, **__: custom.answer(question))
    own = Yardstick(custom=CustomMetric(entry_point="tests.unit.jobs.test_check_watched:missed"))
    absent = Yardstick(custom=CustomMetric(entry_point="tests.unit.jobs.test_check_watched:absent"))
    loud = part(*window(rows=1000, noise=3.0))

    assert verdict(Metric.CUSTOM_LOSS, loud, yardstick=own).verdict is Verdict.BREACH
    refused = verdict(Metric.CUSTOM_LOSS, loud, yardstick=absent)
    assert (refused.verdict, refused.reason) == (Verdict.UNKNOWN, "NotMeasurable")
    assert "it is not there" in refused.message


def missed(outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """Return by how much the probability of the true class falls short of 1."""
    return np.asarray(1 - outputs["scores"][np.arange(len(labels)), labels])


def test_rows_that_repeat_each_other_prove_less() -> None:
    """Each row ten times in a row is about as much evidence as the rows once."""
    x, labels = window(rows=300)
    once = verdict(Metric.LOG_LOSS, part(x, labels))
    ten = verdict(Metric.LOG_LOSS, part(np.repeat(x, 10, axis=0), np.repeat(labels, 10)))

    assert (ten.samples or 0) < 600
    assert (once.samples or 0) <= 300
