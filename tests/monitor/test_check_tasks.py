"""The whole check Job for regression and embedding models, and for the labels themselves."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv
from sklearn.metrics import f1_score

from optimizer_jobs.commands.check.command import run
from optimizer_jobs.data.uris import resolve
from retune.api.metrics import Metric
from retune.api.model import Dataset, Task
from retune.api.monitoring import Drift, Quality
from retune.api.watched import Verdict
from retune.contract.results import CheckResult, SignalVerdict
from tests.monitor.shop import FIRST, Array, Shop

Open = Callable[[Task], Shop]


def said(result: CheckResult) -> tuple[SignalVerdict, SignalVerdict]:
    """Return both verdicts, which are there."""
    assert result.drift is not None
    assert result.quality is not None
    return result.drift, result.quality


def test_a_regression_s_quiet_window_is_clear_in_its_own_error(open_shop: Open) -> None:
    """The root of the mean squared error, or the mean absolute one where that is asked for."""
    shop = open_shop(Task.REGRESSION)
    shop.serve(FIRST)
    drift, quality = said(run(shop.request()))
    absolute = run(shop.request(quality=Quality(metric=Metric.MAE))).quality
    assert absolute is not None
    assert (drift.verdict, drift.value) == (Verdict.CLEAR, "0"), drift.message
    missed = shop.run(shop.inputs)["progression"] - shop.truth
    for verdict, error in ((quality, np.sqrt(np.square(missed).mean())), (absolute, np.abs(missed).mean())):
        assert verdict.verdict is not Verdict.BREACH, verdict.message
        assert float(verdict.reference or 0) == pytest.approx(error, rel=1e-3)
        assert float(verdict.low or 0) < float(verdict.value or 0) < float(verdict.high or 0)


def test_a_regression_that_misses_by_more_is_a_proven_loss(open_shop: Open) -> None:
    """What came true lies farther off than it did, by a share of the reference's error."""
    shop = open_shop(Task.REGRESSION)
    shop.serve(FIRST, labels=lambda truth: truth + 80 * (-1.0) ** np.arange(len(truth)))
    drift, quality = said(run(shop.request()))
    assert (quality.verdict, quality.reason) == (Verdict.BREACH, "LossProven"), quality.message
    assert "% of the reference's error" in quality.message
    assert drift.verdict is Verdict.CLEAR, drift.message


def test_a_regression_s_predictions_drift_alone_and_no_confidence_estimates_it(open_shop: Open) -> None:
    """Rows of severe cases only: the numbers answered are others, and without labels nothing is said of quality."""
    shop = open_shop(Task.REGRESSION)
    severe = np.argsort(shop.run(shop.inputs)["progression"])[-110:]
    shop.serve(FIRST, labels=None, among=severe)
    result = run(shop.request(labelled=None))
    drift, quality = said(result)
    assert (drift.verdict, drift.reason) == (Verdict.BREACH, "PredictionDrifted"), drift.message
    assert "prediction" in {each.name for each in result.columns if each.drifted}
    assert (quality.verdict, quality.reason, quality.estimated) == (Verdict.UNKNOWN, "NoLabels", False)


def _faint(inputs: Array) -> Array:
    """Digits shifted to the left by a pixel, as a camera that has moved sees them."""
    return np.roll(inputs.reshape(-1, 8, 8), -1, axis=2).reshape(inputs.shape)


def test_an_embedding_is_one_column_that_drifts_with_its_vectors(open_shop: Open) -> None:
    """Sixteen numbers a vector count as one prediction; no label says whether a vector is right."""
    shop = open_shop(Task.EMBEDDING)
    shop.serve(FIRST, labels=None)
    shop.serve(FIRST + 1, labels=None, change=_faint)
    watched = Drift(columns=("prediction", "x[20]", "x[21]"))
    quiet, other = (run(shop.request(window, drift=watched)) for window in (FIRST, FIRST + 1))
    assert said(quiet)[0].verdict is Verdict.CLEAR, said(quiet)[0].message
    assert (said(other)[0].verdict, said(other)[0].reason) == (Verdict.BREACH, "PredictionDrifted")
    assert [each.name for each in other.columns if each.name.startswith("prediction")] == ["prediction"]
    assert (said(quiet)[1].verdict, said(quiet)[1].reason) == (Verdict.UNKNOWN, "NotMeasurable")


def test_several_labels_are_judged_by_f1_and_drift_one_by_one(open_shop: Open) -> None:
    """A quiet window is clear; where one label comes more often, its column drifts and the others do not."""
    shop = open_shop(Task.MULTI_LABEL)
    watched = Drift(columns=("prediction", "confidence", "x[20]", "x[21]"))
    shop.serve(FIRST)
    shop.serve(FIRST + 1, among=np.flatnonzero((shop.truth[:, 1] == 1) | (np.arange(len(shop.truth)) % 5 == 0)))
    quiet, other = (
        run(shop.request(window, drift=watched, labelled=shop.request(window).window)) for window in (FIRST, FIRST + 1)
    )

    drift, quality = said(quiet)
    assert drift.verdict is Verdict.CLEAR, drift.message
    assert quality.verdict is Verdict.CLEAR, quality.message
    assert "f1_micro is" in quality.message
    tags = shop.run(shop.inputs)["tags"] > 0.5
    assert float(quality.reference or 0) == pytest.approx(f1_score(shop.truth, tags, average="micro"), rel=1e-3)
    drift, quality = said(other)
    assert (drift.verdict, drift.reason) == (Verdict.BREACH, "PredictionDrifted"), drift.message
    drifted = {column.name for column in other.columns if column.drifted}
    assert {"prediction[1]", "confidence[1]", "label[1]"} <= drifted
    assert "prediction[0]" not in drifted
    assert "The labels themselves drifted: label[1] by" in quality.message
    assert other.report is not None
    assert '"column_name": "label[1]"' in resolve(other.report).local.read_text()


def test_labels_that_came_true_otherwise_are_a_proven_loss_of_several(open_shop: Open) -> None:
    """By any metric that is named; and a list of label numbers is no list of zeros and ones."""
    shop = open_shop(Task.MULTI_LABEL)
    shop.serve(FIRST, labels=lambda truth: np.roll(truth, 1, axis=1))
    result = run(shop.request(quality=Quality(metric=Metric.HAMMING_LOSS)))
    assert (said(result)[1].verdict, said(result)[1].reason) == (Verdict.BREACH, "LossProven")
    shop.label([f"{FIRST}-{place}" for place in range(600)], np.asarray([[0], [0, 2]] * 300, dtype=object), "later")
    told = said(run(shop.request()))[1]
    assert (told.verdict, told.reason) == (Verdict.UNKNOWN, "NotMeasurable")
    assert "300 labels have another form than most" in told.message


def test_without_labels_nothing_is_said_of_several(open_shop: Open) -> None:
    """No confidence estimates which of several labels are right."""
    shop = open_shop(Task.MULTI_LABEL)
    shop.serve(FIRST, labels=None)
    told = said(run(shop.request(labelled=None)))[1]
    assert (told.verdict, told.reason, told.estimated) == (Verdict.UNKNOWN, "NoLabels", False)


def _rare(shop: Shop) -> Array:
    """Return rows of which one class is ten times as rare as in the reference."""
    few, many = np.flatnonzero(shop.truth == 0), np.flatnonzero(shop.truth == 1)
    return np.concatenate([few[: len(few) // 10], many])


@pytest.mark.parametrize("late", [False, True], ids=["of this window", "of an earlier window"])
def test_labels_that_drift_are_told_in_the_result_and_on_the_page(shop: Shop, late: bool) -> None:  # noqa: FBT001
    """Right answers to other questions: no loss, and everyone sees what is true more often than it was."""
    shop.serve(FIRST, among=_rare(shop))
    if late:
        shop.serve(FIRST + 1, labels=None)
    labelled = shop.request().window
    result = run(shop.request(FIRST + late, labelled=labelled))
    drift, quality = said(result)
    (label,) = (each for each in result.columns if each.name == "label")
    assert label.drifted
    assert float(label.score) > 0.1
    assert "The labels themselves drifted: label by" in quality.message
    assert quality.verdict is not Verdict.BREACH, quality.message
    assert (drift.verdict is Verdict.CLEAR) == late, drift.message
    assert result.report is not None
    named = f"label of window {FIRST}" if late else "label"
    assert f'"column_name": "{named}"' in resolve(result.report).local.read_text()


@pytest.mark.parametrize("kind", [np.int64, str])
def test_labels_as_they_were_are_told_as_such_and_make_no_page(shop: Shop, kind: type) -> None:
    """A column like the others, not drifted; 1 and "1" are the same class."""
    shop.serve(FIRST, labels=lambda truth: truth.astype(kind))
    result = run(shop.request(drift=Drift(columns=("x[20]", "x[21]"))))
    assert [each.drifted for each in result.columns if each.name == "label"] == [False]
    assert "labels themselves" not in said(result)[1].message
    assert result.report is None


def test_numbers_that_come_true_drift_as_numbers(open_shop: Open) -> None:
    """All outcomes higher by two standard deviations: told as drift of the labels and as a loss."""
    shop = open_shop(Task.REGRESSION)
    shop.serve(FIRST, labels=lambda truth: truth + 2 * truth.std())
    result = run(shop.request())
    (label,) = (each for each in result.columns if each.name == "label")
    assert (label.drifted, label.method) == (True, "Wasserstein")
    assert float(label.score) == pytest.approx(2, abs=0.4)
    assert said(result)[1].verdict is Verdict.BREACH


def test_columns_have_the_names_that_spec_data_has(shop: Shop) -> None:
    """`drift.columns` and the result speak of them, though captured rows and the reference know places only.

    One of them may be called as the labels are.
    """
    names = [f"feature {place}" for place in range(shop.inputs.shape[1] - 1)] + ["label"]
    columns = [*shop.inputs.T, shop.truth]
    csv.write_csv(pa.table(dict(zip([*names, "benign"], columns, strict=True))), shop.root / "validation.csv")
    data = Dataset(uri="pvc://shop/validation.csv", label_column="benign")
    shop.serve(FIRST, change=lambda inputs: inputs + np.eye(1, len(names), 3) * 5 * inputs.std(axis=0))
    result = run(shop.request(reference=data, drift=Drift(columns=("feature 3",)), quality=None))
    assert result.drift is not None
    assert result.drift.verdict is Verdict.BREACH, result.drift.message
    assert [each.name for each in result.columns if each.drifted] == ["feature 3"]
    assert result.report is not None
