"""The gate: every limit by the pessimistic end of its interval."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.judge.evidence import Contender, pessimistic
from optimizer_jobs.commands.judge.gate import Check, Refusal, gate, limit_value
from retune.api.metrics import Metric
from retune.api.objectives import GoalType, Objective
from tests.unit.jobs.judge_for_tests import CHAMPION_P95, CHAMPION_SIZE, champion, contender, limit

ACCURACY, P95, SIZE = Metric.ACCURACY, Metric.LATENCY_P95_MS, Metric.SIZE_BYTES


def checked(finalist: Contender, objective: Objective, noise: str | None = None) -> Check:
    """Return the one check of the one objective."""
    (check,) = gate(finalist, champion(), objectives=(objective,), noise=noise)
    return check


@pytest.mark.parametrize(
    ("gained", "lost", "margin", "refusal"),
    [
        pytest.param(0, 0, "0.01", None, id="no flip at all"),
        pytest.param(3, 3, "0.01", None, id="few flips, enough rows"),
        pytest.param(20, 20, "0.01", Refusal.TOO_FEW_TEST_ROWS, id="equal, but too many flips for the rows"),
        pytest.param(2, 8, "0.01", Refusal.TOO_FEW_TEST_ROWS, id="worse within the margin, not shown"),
        pytest.param(0, 30, "0.01", Refusal.ACCURACY_BELOW_MARGIN, id="worse than the margin"),
        pytest.param(0, 30, "0.05", None, id="worse, but within a wide margin for sure"),
    ],
)
def test_allowed_drop_of_accuracy_is_judged_by_the_paired_lower_bound(
    gained: int, lost: int, margin: str, refusal: Refusal | None
) -> None:
    """Kept only when the data show it; a margin the rows cannot show is told apart from one that is missed."""
    check = checked(contender(gained=gained, lost=lost), limit(ACCURACY, GoalType.MAX_DEGRADATION, margin))

    assert check.refusal is refusal


@pytest.mark.parametrize(
    ("goal", "value", "kept"),
    [
        (GoalType.THRESHOLD, "0.94", True),
        (GoalType.THRESHOLD, "0.975", False),
        (GoalType.MIN_IMPROVEMENT, "0.005", True),
        (GoalType.MIN_IMPROVEMENT, "0.02", False),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "0.5", True),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "2", False),
        (GoalType.PERCENT_MAX_DEGRADATION, "0", True),
    ],
)
def test_every_kind_of_accuracy_goal_uses_the_lower_end(goal: GoalType, value: str, *, kept: bool) -> None:
    """20 rows gained: accuracy 0.980 with lower end 0.969, difference 2.0 points with lower end 1.3."""
    assert checked(contender(gained=20), limit(ACCURACY, goal, value)).kept is kept


def test_accuracy_threshold_is_judged_by_the_lower_end_of_the_finalists_own_interval() -> None:
    """An estimate of 0.960 does not show 0.955 on 1,000 rows, as the interval begins below it."""
    check = checked(contender(), limit(ACCURACY, GoalType.THRESHOLD, "0.955"))

    assert check.estimate > 0.955 > check.pessimistic
    assert check.refusal is Refusal.TOO_FEW_TEST_ROWS


@pytest.mark.parametrize(
    ("goal", "value", "latency", "refusal"),
    [
        (GoalType.THRESHOLD, "2.1", 1.0, None),
        (GoalType.THRESHOLD, "2.01", 1.0, Refusal.LATENCY_UNCERTAIN),
        (GoalType.THRESHOLD, "1.9", 1.0, Refusal.LATENCY_ABOVE_LIMIT),
        (GoalType.PERCENT_MAX_DEGRADATION, "10", 1.05, None),
        (GoalType.PERCENT_MAX_DEGRADATION, "5.5", 1.05, Refusal.LATENCY_UNCERTAIN),
        (GoalType.MAX_DEGRADATION, "0.2", 1.05, None),
        (GoalType.MAX_DEGRADATION, "0.05", 1.05, Refusal.LATENCY_ABOVE_LIMIT),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "40", 0.5, None),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "49.9", 0.5, Refusal.LATENCY_UNCERTAIN),
        (GoalType.MIN_IMPROVEMENT, "0.9", 0.5, None),
    ],
)
def test_latency_is_judged_by_the_upper_end(
    goal: GoalType, value: str, latency: float, refusal: Refusal | None
) -> None:
    """Absolute goals look at the finalist's own upper end, relative ones at the upper end of the ratio."""
    assert checked(contender(latency=latency), limit(P95, goal, value)).refusal is refusal


@pytest.mark.parametrize(
    ("goal", "value", "refusal"),
    [
        (GoalType.THRESHOLD, str(CHAMPION_SIZE // 2), None),
        (GoalType.THRESHOLD, str(CHAMPION_SIZE // 2 - 1), Refusal.SIZE_ABOVE_LIMIT),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "50", None),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "51", Refusal.SIZE_ABOVE_LIMIT),
    ],
)
def test_size_is_exact_to_the_byte(goal: GoalType, value: str, refusal: Refusal | None) -> None:
    """Half the size keeps a limit of exactly half, and misses one byte less."""
    assert checked(contender(size=0.5), limit(SIZE, goal, value)).refusal is refusal


def test_noisy_node_cannot_show_a_latency_limit_but_every_other() -> None:
    """Latency is refused as unreliable however fast the finalist looks; accuracy and size are judged as ever."""
    finalist = contender(latency=0.1, size=0.5)

    assert checked(finalist, limit(P95, GoalType.THRESHOLD, "2"), "busy").refusal is Refusal.MEASUREMENT_UNRELIABLE
    assert checked(finalist, limit(SIZE, GoalType.PERCENT_MIN_IMPROVEMENT, "10"), "busy").kept
    assert checked(finalist, limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.01"), "busy").kept


def test_margin_that_cannot_be_shown_names_rows_that_would_do() -> None:
    """The rows named exceed those given, and more flips need more rows."""
    few, many = (
        checked(contender(gained=flips, lost=flips), limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.01")).rows_needed
        for flips in (10, 30)
    )

    assert few is not None
    assert many is not None
    assert 1000 < few < many


@pytest.mark.parametrize(("gained", "lost"), [(20, 20), (2, 8), (12, 18)])
def test_rows_named_are_always_more_than_there_are(gained: int, lost: int) -> None:
    """Also for a finalist that looks a little worse: it takes more rows to tell that it stays within the margin."""
    check = checked(contender(gained=gained, lost=lost), limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.01"))

    assert check.refusal is Refusal.TOO_FEW_TEST_ROWS
    assert check.rows_needed is not None
    assert check.rows_needed > 1000


def test_memory_of_serving_is_a_limit_on_the_whole_process() -> None:
    """A process that needs a byte more than it gets is refused; one that was not measured, or has no limit, is not."""
    measured = replace(contender(), process_bytes=300_000_000)

    (over,) = gate(measured, champion(), objectives=(), noise=None, memory=299_999_999)
    (fits,) = gate(measured, champion(), objectives=(), noise="busy", memory=300_000_000)

    assert (over.refusal, over.estimate, over.limit) == (Refusal.MEMORY_ABOVE_LIMIT, 300_000_000, 299_999_999)
    assert fits.kept
    assert gate(contender(), champion(), objectives=(), noise=None, memory=1) == ()
    assert gate(measured, champion(), objectives=(), noise=None) == ()


def test_threshold_that_cannot_be_shown_names_rows_that_would_do() -> None:
    """An accuracy of 0.960 does not show 0.955 on 1,000 rows; many times as many would, fewer for a lower limit."""
    near, far = (
        checked(contender(), limit(ACCURACY, GoalType.THRESHOLD, value)).rows_needed for value in ("0.955", "0.950")
    )

    assert near is not None
    assert far is not None
    assert near > 3 * far > 1000
    assert checked(contender(), limit(ACCURACY, GoalType.THRESHOLD, "0.97")).rows_needed is None


def test_objective_without_a_goal_refuses_nobody() -> None:
    """What is only optimized is no limit."""
    assert gate(contender(latency=9), champion(), objectives=(Objective(metric=P95),), noise=None) == ()


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0.5, 1.5),
    st.floats(0, 0.1),
    st.sampled_from([ACCURACY, P95, SIZE]),
)
def test_deciding_number_is_never_better_than_the_estimate(
    gained: int, lost: int, latency: float, half_width: float, metric: Metric
) -> None:
    """For every finalist and metric the pessimistic end is the worse one."""
    finalist = contender(gained=gained, lost=lost, latency=latency, half_width=half_width)
    worst = pessimistic(Objective(metric=metric), finalist, champion())
    estimate = pessimistic(
        Objective(metric=metric), contender(gained=gained, lost=lost, latency=latency, half_width=0), champion()
    )

    assert worst <= estimate + 1e-9 if metric.higher_is_better else worst >= estimate - 1e-9


@pytest.mark.parametrize(
    ("goal", "value", "expected"),
    [
        (GoalType.THRESHOLD, "1.5", 1.5),
        (GoalType.MAX_DEGRADATION, "0.5", CHAMPION_P95 + 0.5),
        (GoalType.PERCENT_MIN_IMPROVEMENT, "25", 0.75 * CHAMPION_P95),
    ],
)
def test_limit_is_shown_in_the_metrics_unit(goal: GoalType, value: str, expected: float) -> None:
    """Whatever the goal's kind, the report can name the worst value that keeps it."""
    assert limit_value(limit(P95, goal, value), CHAMPION_P95) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spread", "refusal"), [(0.0, Refusal.NEARLY_CONSTANT), (0.09, Refusal.NEARLY_CONSTANT), (0.1, None)]
)
def test_answers_that_hardly_vary_are_refused_whatever_else_is_kept(spread: float, refusal: Refusal | None) -> None:
    """A constant keeps every limit on accuracy where one class is rare; no objective needs to name it."""
    constant = replace(contender(gained=3, lost=0), spread=spread)
    checks = gate(constant, champion(), objectives=(limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.01"),), noise=None)

    assert next((check.refusal for check in checks if not check.kept), None) is refusal
