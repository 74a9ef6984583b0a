"""Numbers in words: right unit, right direction, and nothing claimed that an interval does not carry."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.objects import Comparison
from retune.api.status import Measurement
from retune.cli import figures
from tests.unit.cli import shelf


def row(metric: str, before: str, after: str, *, change: tuple[str, str, str] | None = None) -> Comparison:
    """A comparison of two values, with the judge's own comparison if given as value, low and high."""
    judged = Measurement(name=metric, value=change[0], low=change[1], high=change[2]) if change else None
    return Comparison(
        name=metric,
        champion=Measurement(name=metric, value=before),
        candidate=Measurement(name=metric, value=after),
        change=judged,
    )


@pytest.mark.parametrize(
    "seconds,text",
    [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_799, "47h"), (172_800, "2d")],
)
def test_ages_read_as_in_kubectl(seconds: int, text: str) -> None:
    """The unit changes at twice its size."""
    assert figures.age(shelf.NOW - timedelta(seconds=seconds), shelf.NOW) == text


@pytest.mark.parametrize(
    "count,text", [(None, "-"), (0, "0 B"), (999, "999 B"), (1_000, "1.00 kB"), (4_287_172, "4.29 MB")]
)
def test_sizes_have_decimal_units(count: int | None, text: str) -> None:
    """As file managers and the report show them."""
    assert figures.size(count) == text


@pytest.mark.parametrize(
    "metric,value,low,high,text",
    [
        ("accuracy", "0.991655", "0.981914", "0.99617", "0.9917 [0.9819, 0.9962]"),
        ("latency_p95_ms", "0.076383", "0.075202", "0.077948", "76.4 µs [75.2, 77.9]"),
        ("latency_p95_ms", "0.998", "0.99", "1.31", "998 µs [990, 1310]"),
        ("latency_p50_ms", "12.34", "12", "13", "12.3 ms [12, 13]"),
        ("size_bytes", "4287220", None, None, "4.29 MB"),
        ("size_bytes", "4287220", "4287220", "4287220", "4.29 MB"),
        ("accuracy", "much", None, None, "much"),
        ("rmse", "54.3217", "50.1", "58.92", "54.32 [50.10, 58.92]"),
        ("neighbor_agreement", "0.95", "0.93", "0.97", "0.9500 [0.9300, 0.9700]"),
        ("throughput_rps", "15234.2", "15100", "15400", "15,234 rows/s [15,100, 15,400]"),
        ("peak_memory_bytes", "20400000", "20100000", "20900000", "20.40 MB [20.10 MB, 20.90 MB]"),
        ("cpu_seconds_per_1000", "0.0312345", "0.03", "0.032", "0.03123 s [0.03000, 0.03200]"),
        ("energy_joules_per_1000", "0.312", "0.3", "0.32", "0.3120 J (estimated) [0.3000, 0.3200]"),
        ("cost_per_1000", "0.000000347", "0.00000034", "0.00000036", "0.0000003470 [0.0000003400, 0.0000003600]"),
    ],
)
def test_a_measurement_shows_its_interval_in_one_unit(
    metric: str, value: str, low: str | None, high: str | None, text: str
) -> None:
    """A counted number has no interval, and an end never has another unit than the value."""
    assert figures.measurement(Measurement(name=metric, value=value, low=low, high=high)) == text


@pytest.mark.parametrize(
    "comparison,text",
    [
        (row("latency_p95_ms", "2", "1"), "2.00x faster"),
        (row("latency_p95_ms", "1", "2"), "2.00x slower"),
        (row("size_bytes", "400", "100"), "4.00x smaller"),
        (row("size_bytes", "100", "400"), "4.00x larger"),
        (row("size_bytes", "100", "100"), "equal"),
        (row("size_bytes", "0", "100"), "-"),
        (row("accuracy", "0.99", "0.98"), "-1.0 points"),
        (row("accuracy", "0.99", "0.99", change=("0", "-0.008", "0.008")), "+0.0 points [-0.8, +0.8]"),
        (row("latency_p95_ms", "2", "1", change=("0.4", "0.3", "0.5")), "2.50x faster"),
        (row("latency_p95_ms@32", "1", "2", change=("2", "1.9", "2.1")), "2.00x slower"),
        (row("latency_p95_ms", "2", "1", change=("0.9", "0.7", "1.1")), "no difference seen"),
        (row("unknown_metric", "2", "1"), "2.00x lower"),
        (row("throughput_rps", "100", "250"), "2.50x higher"),
        (row("peak_memory_bytes", "100", "50", change=("0.5", "0.4", "0.6")), "2.00x lower"),
        (row("rmse", "54", "53.5"), "-0.5000"),
        (row("mae", "54", "54.2", change=("0.2", "-0.1", "0.52")), "+0.2000 [-0.1000, +0.5200]"),
        (row("cosine", "1", "0.991", change=("-0.009", "-0.01", "-0.008")), "-0.9 points [-1.0, -0.8]"),
        (row("accuracy", "much", "more"), "-"),
    ],
)
def test_a_change_is_told_in_words(comparison: Comparison, text: str) -> None:
    """The judge's paired comparison wins over the quotient of two columns, and noise is not called a gain."""
    assert figures.change(comparison) == text


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_a_change_never_points_the_wrong_way(before: float, after: float) -> None:
    """Lower latency is never called slower, higher never faster."""
    words = figures.change(row("latency_p50_ms", f"{before:.9f}", f"{after:.9f}"))
    assert "slower" not in words or after >= before
    assert "faster" not in words or after <= before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("latency_p95_ms@32", "latency_p95_ms, 32 rows"),
        ("latency_p95_ms@1", "latency_p95_ms, 1 row"),
        ("latency_p95_ms", "latency_p95_ms"),
        ("ndcg@5", "ndcg@5"),
    ],
)
def test_latency_of_requests_of_one_size_is_named_in_words(name: str, text: str) -> None:
    """A line of each size has its unit too; what stands behind the `@` of a ranking metric is no size."""
    assert figures.metric_name(name) == text
    assert figures.number(name, "0.5") == ("500 µs" if name.startswith("latency") else "0.5000")
