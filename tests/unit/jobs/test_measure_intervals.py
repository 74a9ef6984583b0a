"""Resampled intervals: against theory, by simulated coverage with a fixed seed, and by property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from optimizer_jobs.measure.bootstrap import DRAWS, resampled, resampled_difference
from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.metrics.evaluation import Evaluation, mean_of, root_mean_of
from optimizer_jobs.measure.stats import required_rows_of_mean
from retune.api.metrics import Metric, MetricKind
from tests.unit.jobs.tasks_for_tests import diabetes

QUALITY = [metric for metric in Metric if metric.kind is MetricKind.QUALITY]


def of(scores: np.ndarray, *, root: bool = False) -> Evaluation:
    """Return the mean of scores, or its root, as a metric."""
    return root_mean_of(scores) if root else mean_of(scores)


scores = st.lists(st.floats(0, 100), min_size=2, max_size=40).map(np.asarray)


@settings(max_examples=40, deadline=None)
@given(scores, st.floats(0.5, 0.99), st.booleans())
def test_interval_contains_its_figure_and_widens_with_confidence(
    found: np.ndarray,
    confidence: float,
    root: bool,  # noqa: FBT001 - Hypothesis gives it by position
) -> None:
    """For every sample, the mean or its root lies inside, and more confidence never narrows."""
    drawn = resampled(of(found, root=root))
    narrow, wide = drawn.interval(confidence), drawn.interval((1 + confidence) / 2)

    assert narrow.low <= narrow.value <= narrow.high
    assert wide.low <= narrow.low
    assert wide.high >= narrow.high
    assert narrow.value == pytest.approx(np.sqrt(found.mean()) if root else found.mean())


@settings(max_examples=40, deadline=None)
@given(scores)
def test_swapping_the_models_mirrors_the_difference(found: np.ndarray) -> None:
    """Who is called the candidate changes the sign and nothing else."""
    other = np.roll(found, 1) + np.arange(len(found), dtype=np.float64)
    there, back = (resampled_difference(mean_of(one), mean_of(two)) for one, two in ((found, other), (other, found)))

    assert there.value == pytest.approx(-back.value)
    assert there.interval(0.9).low == pytest.approx(-back.interval(0.9).high, abs=1e-6 + 0.1 * there.spread)


def test_same_rows_give_the_same_interval() -> None:
    """Nothing depends on when or where it is asked."""
    _, y = diabetes("test")
    assert resampled(of(y)).interval(0.95) == resampled(of(y)).interval(0.95)
    assert len(resampled(of(y)).draws) == DRAWS


def test_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    """For many rows, half the width is z times the standard error."""
    _, y = diabetes("training")
    found = resampled(of(y)).interval(0.95)
    error = y.std() / np.sqrt(len(y))

    assert (found.high - found.low) / 2 == pytest.approx(norm.ppf(0.975) * error, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("root", [False, True])
def test_simulated_coverage_is_what_is_promised(*, root: bool) -> None:
    """Of 300 samples of squared errors, whose truth is 1 and which are very skewed, about 95 % of intervals hold it."""
    generator = np.random.default_rng(7)
    samples = generator.standard_normal((300, 80)) ** 2
    held = [
        found.low <= 1 <= found.high for found in (resampled(of(each, root=root)).interval(0.95) for each in samples)
    ]

    assert 0.90 <= np.mean(held) <= 0.98


@pytest.mark.slow
def test_simulated_differences_are_covered_on_paired_rows() -> None:
    """Two models that share most of their error are told apart far better than apart, and the truth is held."""
    generator = np.random.default_rng(8)
    held, widths = [], []
    for _ in range(200):
        shared = generator.standard_normal(100)
        before, after = np.abs(shared), np.abs(shared) + generator.normal(0.02, 0.05, 100)
        found = resampled_difference(of(before), of(after)).interval(0.95)
        held.append(found.low <= 0.02 <= found.high)
        widths.append(found.high - found.low)

    assert np.mean(held) >= 0.9
    assert np.mean(widths) < 0.03


@pytest.mark.parametrize("metric", QUALITY)
def test_a_model_compared_with_itself_has_no_difference(metric: Metric) -> None:
    """Every quality metric finds 0, a p-value of 1, and no row on which one is better."""
    found = difference(metric, of(np.asarray([0.0, 1.0, 1.0, 1.0])), of(np.asarray([0.0, 1.0, 1.0, 1.0])))(0.95)

    assert (found.value, found.p_value, found.discordant) == (0.0, 1.0, 0)
    assert found.low <= 0 <= found.high


@pytest.mark.parametrize("metric", QUALITY)
def test_gained_are_the_rows_that_the_candidate_answers_better(metric: Metric) -> None:
    """A row with a smaller error, or a larger likeness, is gained."""
    worse, better = (0.0, 1.0) if metric.higher_is_better else (1.0, 0.0)
    champion, candidate = np.asarray([worse, worse, better, 1.0]), np.asarray([better, better, worse, 1.0])
    found = difference(metric, of(champion), of(candidate))(0.9)

    assert (found.gained, found.lost, found.rows) == (2, 1, 4)
    assert (found.value > 0) == metric.higher_is_better


def test_a_share_of_rows_keeps_its_exact_interval() -> None:
    """With no row wrong, the interval still reaches below 1: resampling would not."""
    found = own_interval(mean_of(np.ones(50), is_share=True))(0.95)

    assert found.value == 1.0
    assert 0.9 < found.low < 1.0


@pytest.mark.slow
def test_rows_named_for_a_mean_show_it_in_nine_of_ten_cases() -> None:
    """With as many rows as named, the interval of an equal model stays within the margin as often as promised."""
    generator = np.random.default_rng(9)
    rows = required_rows_of_mean(margin=0.1, spread=0.5, confidence=0.95)
    shown = [resampled(of(generator.normal(0, 0.5, rows))).interval(0.95).high < 0.1 for _ in range(200)]

    assert 0.84 <= np.mean(shown) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_the_spread_by_which_rows_are_named_is_seldom_too_small(share: float) -> None:
    """Where few rows contribute, a sample that has few of them by chance names hardly fewer rows than are needed."""
    generator = np.random.default_rng(3)

    def contributions(rows: int) -> np.ndarray:
        found = generator.normal(0, 1, (2, rows)) ** 2
        return np.where(generator.random(rows) < share, found[0] - found[1], 0.0)

    true = contributions(1_000_000).std()
    named = [resampled(of(contributions(1000))).spread for _ in range(60)]
    assert np.mean(np.asarray(named) >= true) >= 0.7


def test_rows_are_only_named_for_a_margin() -> None:
    """No number of rows shows that nothing at all is lost."""
    with pytest.raises(ValueError, match="above 0"):
        required_rows_of_mean(margin=0, spread=1, confidence=0.95)


def test_differences_need_pairs() -> None:
    """Rows of different number are no pairs."""
    with pytest.raises(ValueError, match="same rows"):
        resampled_difference(of(np.ones(3)), of(np.ones(4)))
