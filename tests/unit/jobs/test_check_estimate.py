"""Accuracy from confidence alone, on a real model's: near the truth where inputs change, and silent without rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from optimizer_jobs.commands.check.estimated_quality import judge_confidence
from retune.api.monitoring import Quality
from retune.api.watched import Verdict

Floats = NDArray[np.float64]
ROWS, TRUTH = load_digits(return_X_y=True)
KEPT = slice(500, None)


@pytest.fixture(scope="module", name="model")
def _model() -> LogisticRegression:
    return LogisticRegression(max_iter=2000).fit(ROWS[:500], TRUTH[:500])


def answered(model: LogisticRegression, rows: Floats) -> tuple[Floats, Floats]:
    """Return the model's confidence in the rows it has not learnt from, and whether it is right."""
    shares = model.predict_proba(rows)
    return shares.max(axis=1), (shares.argmax(axis=1) == TRUTH[KEPT]).astype(np.float64)


def noisy(rows: Floats, deviation: float) -> Floats:
    """Real digits, seen through noise."""
    return rows + np.random.default_rng(0).normal(0, deviation, rows.shape)


def test_the_reference_s_own_confidence_is_its_accuracy(model: LogisticRegression) -> None:
    """What confidence promises too much is taken off."""
    confidence, right = answered(model, ROWS[KEPT])
    assert abs(confidence.mean() - right.mean()) > 0.01
    verdict = judge_confidence(Quality(), reference_confidence=confidence, reference_right=right, confidence=confidence)
    assert verdict is not None
    assert (verdict.verdict, verdict.estimated) == (Verdict.CLEAR, True)
    assert float(verdict.value or 0) == pytest.approx(right.mean(), abs=1e-3)
    assert "Estimated from the model's confidence" in verdict.message


@pytest.mark.parametrize("deviation", [2.0, 4.0, 6.0])
def test_noise_costs_confidence_and_the_loss_is_estimated_as_too_small(
    model: LogisticRegression, deviation: float
) -> None:
    """The estimate lies between the truth and the reference: a model is too sure of what it has never seen."""
    confidence, right = answered(model, ROWS[KEPT])
    seen, now_right = answered(model, noisy(ROWS[KEPT], deviation))
    verdict = judge_confidence(Quality(), reference_confidence=confidence, reference_right=right, confidence=seen)
    assert verdict is not None
    assert now_right.mean() < float(verdict.value or 0) < right.mean()


def test_a_model_that_is_merely_less_sure_is_estimated_as_worse(model: LogisticRegression) -> None:
    """Digits at half the contrast are answered as well and less surely: why an estimate alone raises no signal."""
    confidence, right = answered(model, ROWS[KEPT])
    seen, now_right = answered(model, ROWS[KEPT] / 2)
    verdict = judge_confidence(Quality(), reference_confidence=confidence, reference_right=right, confidence=seen)
    assert verdict is not None
    assert now_right.mean() == pytest.approx(right.mean(), abs=0.01)
    assert (verdict.verdict, verdict.estimated) == (Verdict.BREACH, True), verdict.message


@pytest.mark.slow
def test_quiet_windows_estimate_no_loss(model: LogisticRegression) -> None:
    """A hundred windows of 300 rows, against a reference of half the rows."""
    confidence, right = answered(model, ROWS[KEPT])
    generator = np.random.default_rng(0)
    order = generator.permutation(len(right))
    known = order[: len(order) // 2]
    verdicts = [
        judge_confidence(
            Quality(),
            reference_confidence=confidence[known],
            reference_right=right[known],
            confidence=confidence[generator.integers(0, len(confidence), 300)],
        )
        for _ in range(100)
    ]
    assert all(each is not None and each.verdict is not Verdict.BREACH for each in verdicts)


@pytest.mark.parametrize("few", ["reference_confidence", "confidence"])
def test_too_few_finite_rows_are_no_estimate(model: LogisticRegression, few: str) -> None:
    """49 numbers among many holes, on either side."""
    confidence, right = answered(model, ROWS[KEPT])
    holes = np.where(np.arange(len(confidence)) < 49, confidence, np.nan)
    given = {"reference_confidence": confidence, "confidence": confidence} | {few: holes}
    assert judge_confidence(Quality(), reference_right=right, **given) is None
