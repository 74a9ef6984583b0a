"""How likely a candidate is to be proven: chances rise with what speaks for it, and come true as often as they say."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.metrics.evaluation import mean_of, root_mean_of
from optimizer_jobs.study.finalists import SURE
from optimizer_jobs.study.prospects import Hurdle, standard_error
from optimizer_jobs.study.trials import TrialResult
from retune.api.metrics import Metric
from retune.api.objectives import GoalType
from tests.unit.jobs.judge_for_tests import limit
from tests.unit.jobs.models_for_tests import digits, fit_mlp

MARGIN = 0.04
GOAL = limit(Metric.ACCURACY, GoalType.MAX_DEGRADATION, str(MARGIN))
CONFIDENCE = 0.95


def found(slack: float, error: float, rows: int = 300) -> TrialResult:
    """Return a candidate this far on the good side of its limit."""
    return TrialResult(plan="p", shortfalls={"accuracy": -slack}, errors={"accuracy": error}, rows=rows)


@given(st.floats(0, 0.05), st.floats(0.001, 0.05), st.integers(50, 5000), st.integers(50, 5000))
def test_distance_and_rows_speak_for_a_candidate(slack: float, error: float, seen: int, coming: int) -> None:
    """More distance to the limit never makes it less likely to be proven; nor do more test rows, from the limit on."""
    chance = Hurdle(coming, CONFIDENCE).chance(found(slack, error, seen))
    assert 0 <= chance <= 1
    assert Hurdle(coming, CONFIDENCE).chance(found(slack + 0.01, error, seen)) >= chance
    assert Hurdle(coming, 0.99).chance(found(slack, error, seen)) <= chance
    assert Hurdle(2 * coming, CONFIDENCE).chance(found(slack, error, seen)) >= chance - 1e-9


def test_what_is_not_known_is_no_obstacle() -> None:
    """A study of an earlier version, or a run without a limit on quality, chooses as if all were sure."""
    assert Hurdle(100, CONFIDENCE).chance(TrialResult(plan="p", shortfalls={"accuracy": -1.0})) == 1.0
    assert Hurdle(100, CONFIDENCE).chance(found(0.0, 0.0)) == 1.0
    assert Hurdle(100, CONFIDENCE).chance(found(-0.01, 0.0)) == 0.0


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", 1), ("rmse", -1)])
def test_a_lead_on_few_rows_is_taken_for_luck(metric: str, sign: int) -> None:
    """The best of sixty looks better than the champion on validation whatever it is; it is judged as its equal."""

    def chance(lead: float, slack: float) -> float:
        """Return the chance of a candidate that leads the champion, and keeps its limit, by so much."""
        told = TrialResult(
            plan="p",
            values={metric: 0.5 + sign * lead},
            champion={metric: 0.5},
            shortfalls={metric: -slack},
            errors={metric: 0.02},
            rows=300,
        )
        return Hurdle(300, CONFIDENCE).chance(told)

    assert chance(0.05, 0.03 + 0.05) == pytest.approx(chance(0.0, 0.03))
    assert chance(-0.01, 0.03 - 0.01) < chance(0.0, 0.03)
    assert chance(0.05, 0.02) > chance(0.05, 0.0)


def test_a_lead_that_luck_cannot_explain_counts() -> None:
    """A model that has learned new data answers many rows otherwise: its error is large, and its lead far larger."""
    told = TrialResult(
        plan="trained on",
        values={"accuracy": 0.980},
        champion={"accuracy": 0.682},
        shortfalls={"accuracy": -0.318},
        errors={"accuracy": 0.0198},
        rows=488,
    )
    assert Hurdle(488, 0.983).chance(told) > SURE


def test_an_absolute_limit_is_measured_by_the_candidates_own_error() -> None:
    """The champion's mistakes on the same rows cancel in a difference, and say nothing of an absolute limit."""
    right = mean_of(np.array([1.0] * 900 + [0.0] * 100), is_share=True)
    absolute = limit(Metric.ACCURACY, GoalType.THRESHOLD, "0.8")
    assert standard_error(absolute, right, right) > 2 * standard_error(GOAL, right, right)


@pytest.mark.parametrize("metric", [Metric.RMSE, Metric.MAE])
@pytest.mark.parametrize("goal", [GoalType.MAX_DEGRADATION, GoalType.THRESHOLD])
def test_errors_of_means_are_those_that_resampling_gives(metric: Metric, goal: GoalType) -> None:
    """Two real regressions of the diabetes data: the short way agrees with the judge's long one."""
    rows, targets = load_diabetes(return_X_y=True)
    errors = [
        np.abs(Ridge(alpha).fit(rows[:200], targets[:200]).predict(rows[200:]) - targets[200:]) for alpha in (0, 9)
    ]
    champion, candidate = (root_mean_of(error**2) if metric is Metric.RMSE else mean_of(error) for error in errors)
    absolute = goal is GoalType.THRESHOLD
    judge = (own_interval(candidate) if absolute else difference(metric, champion, candidate))(0.95)
    expected = (judge.high - judge.low) / 2 / norm.ppf(0.975)
    assert standard_error(limit(metric, goal, "1"), champion, candidate) == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_chances_come_true_about_as_often_as_they_say() -> None:
    """Real networks on real digits, split anew each time: a small one is hardly ever proven, a large one mostly is.

    The chance knows the validation rows alone, so over their draws it lies nearer to a half than what comes of it: by
    a factor of root 3 in standard errors, where both splits are of one size.
    """
    (some, some_labels), (more, more_labels) = digits("validation"), digits("test")
    images, labels = np.concatenate([some, more]), np.concatenate([some_labels, more_labels])
    champion, *candidates = (
        (fit_mlp(hidden=hidden).predict(images) == labels).astype(np.float64) for hidden in (256, 32, 64, 128)
    )
    generator, proven = np.random.default_rng(0), list[float]()
    for candidate in candidates:
        drawn = [np.array_split(generator.integers(0, len(labels), len(labels)), 2) for _ in range(200)]
        chances = [expected(champion, candidate, seen, rows=len(coming)) for seen, coming in drawn]
        shown = [
            difference(Metric.ACCURACY, share(champion[coming]), share(candidate[coming]))(CONFIDENCE).low
            for _, coming in drawn
        ]
        proven.append(float(np.mean(np.array(shown) >= -MARGIN)))
        nearer = norm.cdf(norm.ppf(np.clip(proven[-1], 0.005, 0.995)) / np.sqrt(3))
        assert np.mean(chances) == pytest.approx(nearer, abs=0.08)
    assert (min(proven) < 0.3, max(proven) > 0.6) == (True, True), f"these networks show nothing: {proven}"


share = partial(mean_of, is_share=True)


def expected(champion: np.ndarray, candidate: np.ndarray, seen: np.ndarray, *, rows: int) -> float:
    """Return the chance that these rows promise."""
    gap = float(candidate[seen].mean() - champion[seen].mean())
    error = standard_error(GOAL, share(champion[seen]), share(candidate[seen]))
    return Hurdle(rows, CONFIDENCE).chance(found(MARGIN + gap, error, len(seen)))
