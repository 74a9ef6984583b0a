"""A metric of the owner's own code: computed apart, with an interval, or refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest

from optimizer_jobs.measure import custom
from optimizer_jobs.measure.answers import Answers
from optimizer_jobs.measure.bootstrap import Coarse, resampled, resampled_difference, standard_error
from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.measure.yardstick import Yardstick
from retune.api.metrics import Metric
from retune.api.own_code import CustomMetric, FactoryArgument
from tests.unit.jobs.metric_code_for_tests import SOURCE
from tests.unit.jobs.metrics_for_tests import Floats, rows_of

ROWS = 120


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is called in this process, because one of its own takes a second, but where a test needs that."""
    if "apart" not in request.fixturenames:
        monkeypatch.setattr(custom, "run_in_sandbox", lambda _, question, **__: custom.answer(question))


@pytest.fixture
def apart() -> None:
    """The code is called in a process of its own, as always."""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the owner's own code, with a module `shopquality`, and a secret in the environment."""
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "shopquality.py").write_text(SOURCE)
    monkeypatch.setenv("RETUNE_CODE", str(folder))
    monkeypatch.setenv("RETUNE_SECRET_KEY", "hidden")


def boxes(off: float, seed: int = 0) -> tuple[Answers, Floats]:
    """Return answers whose boxes are off by so much of noise, and the true boxes as labels (N, 1, 4)."""
    generator = np.random.default_rng(seed)
    true = generator.uniform(1, 3, (ROWS, 1, 4))
    noise = np.random.default_rng(seed + 1).normal(0, off, (ROWS, 4))
    outputs = {"boxes": true.reshape(ROWS, 4) + noise, "scores": generator.uniform(size=(ROWS, 1))}
    return Answers(values=outputs["boxes"], is_embedding=True, outputs=outputs), true


def measured(name: str, answers: Answers, labels: Floats, *, metric: Metric = Metric.CUSTOM, **more: str) -> Evaluation:
    """Return a metric of module `shopquality`."""
    arguments = tuple(FactoryArgument(name=key, value=value) for key, value in more.items())
    yardstick = Yardstick(custom=CustomMetric(entry_point=f"shopquality:{name}", arguments=arguments))
    return evaluate(metric, answers, rows_of(labels), yardstick=yardstick)


def test_one_number_a_row_is_a_mean_with_a_paired_interval() -> None:
    """Labels have any shape; boxes that are farther off are proven worse on the same rows."""
    (near, true), (far, _) = boxes(0.05), boxes(0.3)
    before, after = measured("iou", near, true), measured("iou", far, true)
    change = difference(Metric.CUSTOM, before, after)(0.95)

    assert before.value == pytest.approx(before.scores.mean())
    assert 0.8 < before.value < 1
    assert change.high < 0
    assert change.lost > change.gained


def test_one_number_for_all_rows_is_asked_again_on_rows_that_are_drawn_again() -> None:
    """Average precision of two detectors: its interval holds the value, is paired, and says how it was made."""
    (near, true), (far, _) = boxes(0.05), boxes(0.3)
    before, after = (measured("average_precision", answers, true, least="0.7") for answers in (near, far))
    change, own = difference(Metric.CUSTOM, before, after)(0.95), own_interval(after)(0.95)

    assert own.low < own.value < own.high
    assert change.high < 0
    assert "drawn again 200 times" in change.unit
    assert resampled_difference(before, before).interval(0.95).low == 0.0
    assert standard_error(after) == pytest.approx(resampled(after).standard_error, rel=0.4)


def test_the_interval_of_one_number_is_about_that_of_the_mean_that_it_is() -> None:
    """A mean error, told as one number, is as uncertain as its rows say."""
    generator = np.random.default_rng(3)
    errors, true = generator.normal(size=ROWS), np.zeros(ROWS)
    answers = Answers(values=errors, outputs={"value": errors})
    ends = own_interval(measured("error", answers, true, metric=Metric.CUSTOM_LOSS))(0.95)
    rows = own_interval(evaluate(Metric.MAE, answers, rows_of(true)))(0.95)

    assert ends.value == pytest.approx(rows.value)
    assert ends.high - ends.low == pytest.approx(rows.high - rows.low, rel=0.25)


def test_right_and_wrong_by_code_are_shares() -> None:
    """A model that misses no box of these is not proven to miss none, as a loss or as a share."""
    exact, true = boxes(0.0)
    share, loss = (measured("misses", exact, true, metric=metric) for metric in (Metric.CUSTOM, Metric.CUSTOM_LOSS))

    assert (share.is_share, loss.is_share) == (True, False)
    for evaluation in (share, loss):
        assert own_interval(evaluation)(0.95).high == pytest.approx(1.96**2 / (ROWS + 1.96**2), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "says", "next_step"),
    [
        ("below", "it is -0.3, and a metric is at least 0", "Add a constant"),
        ("words", "it returned a str for 120 rows", "one number a row"),
        ("short", r"it returned a ndarray of shape \(3,\) for 120 rows", "one number a row"),
        ("infinite", "120 of the 120 numbers that it returned are not finite", "finite"),
        ("threshold", "it cannot be called: it is a float", "def threshold(outputs, labels)"),
        ("positional", "it cannot be called: missing a required argument", "def positional(outputs, labels)"),
        ("absent", "it is not there", "Correct model.customMetric"),
    ],
)
def test_what_is_no_metric_is_refused_in_a_sentence(name: str, says: str, next_step: str) -> None:
    """Nothing of it reaches a person as a traceback, and every sentence has a next step."""
    answers, true = boxes(0.1)
    with pytest.raises(custom.CustomMetricError, match=says) as caught:
        measured(name, answers, true)

    assert caught.value.refusal.object == f"metric shopquality:{name}"
    assert next_step in caught.value.refusal.next_step


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken", "computing it raises KeyError: 'logits'"),
        ("dying", r"the process that computes it died \(exit code 3\)"),
    ],
)
def test_code_that_fails_is_refused_in_a_sentence(name: str, says: str) -> None:
    """Whatever it raises, and even if it ends its process."""
    answers, true = boxes(0.1)
    with pytest.raises(custom.CustomMetricError, match=says) as caught:
        measured(name, answers, true)

    assert "Correct its code" in caught.value.refusal.next_step


def test_other_functions_of_the_image_are_not_called() -> None:
    """A spec names only what takes outputs and labels."""
    answers, true = boxes(0.1)
    with pytest.raises(custom.CustomMetricError, match="cannot be called"):
        evaluate(
            Metric.CUSTOM,
            answers,
            rows_of(true),
            yardstick=Yardstick(custom=CustomMetric(entry_point="shutil:rmtree")),
        )


@pytest.mark.usefixtures("apart")
def test_the_code_sees_no_secrets() -> None:
    """It runs in a process without the credentials of the Job."""
    answers, true = boxes(0.1)
    assert measured("secret", answers, true).value == 0.0


def test_code_that_is_too_slow_for_an_interval_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an interval, a number decides nothing."""
    monkeypatch.setattr(custom, "LEAST_DRAWS", 201)
    answers, true = boxes(0.1)
    with pytest.raises(custom.CustomMetricError, match="its interval needs 201 calls"):
        own_interval(measured("average_precision", answers, true))


def test_one_number_cannot_be_weighted_and_no_code_measures_nothing() -> None:
    """Both are said with the field or the form that helps."""
    answers, true = boxes(0.1)
    metric = Yardstick(custom=CustomMetric(entry_point="shopquality:average_precision"))
    with pytest.raises(custom.CustomMetricError, match="cannot be weighted"):
        evaluate(Metric.CUSTOM, answers, rows_of(true, weights=np.ones(ROWS)), yardstick=metric)
    with pytest.raises(UnfitAnswersError, match=r"needs model\.customMetric"):
        evaluate(Metric.CUSTOM, answers, rows_of(true))


def test_a_metric_that_few_draws_define_is_not_known() -> None:
    """Its interval is everything, so that it decides nothing."""
    unknown = Coarse.of(0.5, np.asarray([np.nan] * 150 + [0.5] * 50), rows=100).interval(0.95)
    assert (unknown.low, unknown.high) == (-np.inf, np.inf)
