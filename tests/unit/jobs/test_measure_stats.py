"""Intervals and tests: against published values, by property, and by simulated coverage with a fixed seed."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from optimizer_jobs.measure.stats import (
    Interval,
    PairedDifference,
    holm_confidences,
    paired_difference,
    required_rows,
    tango_interval,
    wilson,
)

Table = tuple[int, int, int]
"""Rows gained, rows lost, rows in all."""

tables = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000)).map(
    lambda counts: (counts[0], counts[1], max(1, sum(counts)))
)
confidences = st.floats(0.5, 0.999)


def outcomes(gained: int, lost: int, rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether champion and candidate are right, row by row, with these disagreements."""
    champion, candidate = np.ones(rows, dtype=bool), np.ones(rows, dtype=bool)
    champion[:gained] = False
    candidate[gained : gained + lost] = False
    return champion, candidate


@pytest.mark.parametrize(
    ("table", "confidence", "published", "digits"),
    [
        pytest.param((1, 7, 21), 0.95, (-0.517, -0.026), 3, id="Fagerland, Lydersen and Laake 2014, table V"),
        pytest.param((28, 25, 618), 0.90, (-0.0148, 0.0247), 4, id="scoreci.mp of the R package PropCIs"),
    ],
)
def test_tango_interval_equals_published_values(
    table: Table, confidence: float, published: tuple[float, float], digits: int
) -> None:
    """The interval is the one that others computed from the same table."""
    low, high = tango_interval(*table, confidence=confidence)

    assert (round(low, digits), round(high, digits)) == published


@given(tables, confidences)
def test_interval_contains_the_estimate_and_stays_a_difference_of_shares(table: Table, confidence: float) -> None:
    """For every table: -1 <= low <= estimate <= high <= 1."""
    low, high = tango_interval(*table, confidence=confidence)

    assert -1 <= low <= (table[0] - table[1]) / table[2] <= high <= 1


@given(tables, confidences, confidences)
def test_more_confidence_never_narrows_the_interval(table: Table, one: float, other: float) -> None:
    """For every table the interval at the larger confidence holds the other."""
    narrow, wide = (tango_interval(*table, confidence=level) for level in sorted((one, other)))

    assert wide[0] <= narrow[0] + 1e-9
    assert wide[1] >= narrow[1] - 1e-9


@given(tables, confidences)
def test_swapping_the_models_mirrors_the_interval(table: Table, confidence: float) -> None:
    """Champion against candidate is the negative of candidate against champion."""
    gained, lost, rows = table
    low, high = tango_interval(gained, lost, rows, confidence=confidence)

    assert tango_interval(lost, gained, rows, confidence=confidence) == pytest.approx((-high, -low), abs=1e-9)


@given(st.integers(1, 5000), confidences)
def test_models_that_never_disagree_are_not_called_exactly_equal(rows: int, confidence: float) -> None:
    """Without a discordant row the interval is the closed form z² / (n + z²), not zero wide."""
    z = float(norm.ppf(0.5 + confidence / 2))
    assume(z > 0.01)
    expected = z * z / (rows + z * z)

    assert tango_interval(0, 0, rows, confidence=confidence) == pytest.approx((-expected, expected), rel=1e-4)


@given(tables)
def test_ends_of_the_interval_are_where_the_score_test_turns(table: Table) -> None:
    """Each end satisfies Tango's own equation: the deviation is z standard errors under that difference."""
    gained, lost, rows = table
    low, high = tango_interval(gained, lost, rows, confidence=0.95)
    for end in (low, high):
        if -1 < end < 1:
            b = -gained - lost + (2 * rows - gained + lost) * end
            share = (math.sqrt(max(0, b * b + 8 * rows * lost * end * (1 - end))) - b) / (4 * rows)
            variance = rows * (2 * share + end * (1 - end))
            assert abs(gained - lost - rows * end) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-3)


@pytest.mark.parametrize("true_difference", [-0.02, 0.0, 0.01])
@pytest.mark.parametrize("rows", [60, 360, 1500])
def test_simulated_coverage_is_what_is_promised(rows: int, true_difference: float) -> None:
    """In 2,000 simulated test splits the 95 % interval holds the true difference in 93 % of them or more."""
    generator = np.random.default_rng(7)
    discordance = 0.06
    shares = ((discordance + true_difference) / 2, (discordance - true_difference) / 2, 1 - discordance)
    draws = generator.multinomial(rows, shares, size=2000)
    ends = [tango_interval(int(gained), int(lost), rows, confidence=0.95) for gained, lost, _ in draws]

    assert np.mean([low <= true_difference <= high for low, high in ends]) >= 0.93


def test_paired_difference_counts_flips_and_tests_them_exactly() -> None:
    """10 rows gained and 2 lost give the exact binomial p-value of 2 or fewer heads in 12 throws, doubled."""
    found = paired_difference(*outcomes(10, 2, 100), confidence=0.95)

    assert (found.gained, found.lost, found.discordant, found.value) == (10, 2, 12, 0.08)
    assert found.p_value == pytest.approx(2 * sum(math.comb(12, k) for k in range(3)) / 2**12)


def test_paired_difference_without_disagreement_is_no_evidence_of_a_difference() -> None:
    """Equal answers give p = 1 and an interval around 0."""
    found = paired_difference(*outcomes(0, 0, 200), confidence=0.95)

    assert isinstance(found, PairedDifference)
    assert found.p_value == 1
    assert found.low < 0 < found.high


@pytest.mark.parametrize(("champion", "candidate"), [(0, 0), (3, 4)])
def test_paired_difference_refuses_rows_that_are_not_pairs(champion: int, candidate: int) -> None:
    """Different or no rows are an error, never a number."""
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(np.ones(champion, dtype=bool), np.ones(candidate, dtype=bool), confidence=0.95)


@given(st.integers(1, 3000), confidences, st.data())
def test_wilson_contains_the_share_and_stays_within_0_and_1(rows: int, confidence: float, data: st.DataObject) -> None:
    """For every count: 0 <= low <= share <= high <= 1, with some width."""
    successes = data.draw(st.integers(0, rows))
    found = wilson(successes, rows, confidence=confidence)

    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.samples == rows


def test_wilson_equals_a_published_value() -> None:
    """81 of 263 at 95 %: 0.2553 to 0.3662 (Newcombe 1998, method 3)."""
    found = wilson(81, 263, confidence=0.95)

    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("discordance", [0.005, 0.02, 0.08])
@pytest.mark.parametrize("margin", [0.01, 0.02])
def test_required_rows_give_the_power_they_promise(margin: float, discordance: float) -> None:
    """With the rows named, an equally good model passes in about nine of ten simulated splits; with a third, fewer."""
    rows = required_rows(margin=margin, discordance=discordance, confidence=0.95)

    assert simulated_power(rows, margin, discordance) >= 0.85
    assert simulated_power(rows // 3, margin, discordance) < simulated_power(rows, margin, discordance)


def simulated_power(rows: int, margin: float, discordance: float) -> float:
    """Return how often an equally good model is shown to stay within the margin."""
    shares = (discordance / 2, discordance / 2, 1 - discordance)
    draws = np.random.default_rng(11).multinomial(rows, shares, size=600)
    return float(np.mean([tango_interval(int(g), int(k), rows, confidence=0.95)[0] >= -margin for g, k, _ in draws]))


def test_required_rows_refuses_a_margin_of_zero() -> None:
    """No number of rows proves exact equality."""
    with pytest.raises(ValueError, match="margin above 0"):
        required_rows(margin=0, discordance=0.02, confidence=0.95)


def test_holm_judges_at_the_strictest_level_as_long_as_all_pass() -> None:
    """Three finalists that pass at the first step are all judged at 1 - alpha/3; none is judged laxer than needed."""
    judged = holm_confidences(dict.fromkeys("abc", lower_end(0.0)), limit=-0.5, confidence=0.95)

    assert list(judged.values()) == pytest.approx(3 * [1 - 0.05 / 3])


def test_holm_stops_at_the_first_step_nobody_passes() -> None:
    """One clear finalist passes at alpha/2; the other is then judged at alpha alone."""
    ends = {"clear": lower_end(0.0), "hopeless": lower_end(-0.3)}
    judged = holm_confidences(ends, limit=-0.03, confidence=0.95)

    assert judged["clear"] == pytest.approx(0.975)
    assert judged["hopeless"] == pytest.approx(0.95)


@given(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=5), st.floats(-0.1, 0.1))
def test_holm_lies_between_no_correction_and_bonferroni(values: list[float], limit: float) -> None:
    """Every finalist is judged at a confidence from 95 % to 1 - alpha/K."""
    ends = {str(position): lower_end(value) for position, value in enumerate(values)}
    judged = holm_confidences(ends, limit=limit, confidence=0.95)

    assert judged.keys() == ends.keys()
    assert all(0.95 - 1e-12 <= level <= 1 - 0.05 / len(values) + 1e-12 for level in judged.values())


@pytest.mark.slow
def test_holm_keeps_the_chance_of_any_wrong_acceptance() -> None:
    """Of 800 simulated verdicts on five finalists that lie exactly on the margin, 2.5 % or so accept any."""
    generator = np.random.default_rng(3)
    accepted = 0
    for _ in range(800):
        draws = generator.multinomial(800, (0.02, 0.04, 0.94), size=5)
        ends = {str(k): table_end(int(gained), int(lost), 800) for k, (gained, lost, _) in enumerate(draws)}
        judged = holm_confidences(ends, limit=-0.02, confidence=0.95)
        accepted += any(ends[name](level) >= -0.02 for name, level in judged.items())

    assert accepted / 800 <= 0.04


def lower_end(value: float) -> Callable[[float], float]:
    """Return the lower end of a normal interval around `value` with a standard error of 0.01."""
    return lambda confidence: value - 0.01 * float(norm.ppf(0.5 + confidence / 2))


def table_end(*table: int) -> Callable[[float], float]:
    """Return the lower end of Tango's interval for a table."""
    gained, lost, rows = table
    return lambda confidence: tango_interval(gained, lost, rows, confidence=confidence)[0]


@given(st.floats(0.01, 100), st.floats(0, 0.9), st.floats(1, 10))
def test_a_widened_interval_holds_the_one_it_was(value: float, spread: float, factor: float) -> None:
    """Both ends move away by the same factor, and the estimate stays."""
    found = Interval(value, low=value * (1 - spread), high=value * (1 + spread), samples=10)
    wide = found.widened(factor)
    assert wide.low <= found.low <= wide.value == value <= found.high <= wide.high
    assert wide.high / wide.value == pytest.approx(factor * (1 + spread))
