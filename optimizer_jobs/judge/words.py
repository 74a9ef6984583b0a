"""Numbers as people read them: bytes, ratios, points, intervals. One way to write each, for verdict and report."""

from optimizer_jobs.measure.stats import Interval
from retune.api.spec import Metric

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
LABELS = {
    Metric.ACCURACY: "accuracy",
    Metric.LATENCY_P50_MS: "p50",
    Metric.LATENCY_P95_MS: "p95",
    Metric.SIZE_BYTES: "size",
}
"""Metric names short enough for a sentence."""


def size(count: float) -> str:
    """Return bytes such as `8.6 MB`."""
    for unit, name in _UNITS:
        if count >= 0.9995 * unit:
            return f"{count / unit:.0f} {name}" if count >= 100 * unit else f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def milliseconds(value: float) -> str:
    """Return a duration with three digits, such as `0.0213 ms` or `15.3 ms`."""
    return f"{_three(value)} ms"


def points(share: float, *, signed: bool = True) -> str:
    """Return a difference of shares in points, such as `-0.1`; never minus zero."""
    value = round(100 * share, 1) + 0.0
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def percent(share: float) -> str:
    """Return a share such as `95 %` or `97.5 %`."""
    return f"{100 * share:.3g} %"


def times(ratio: Interval, *, better: str, worse: str) -> str:
    """Return a ratio to the champion in words: `1.8x faster`, `1.2x slower`, or that no difference is seen."""
    if ratio.low <= 1 <= ratio.high:
        return "unchanged" if ratio.low == ratio.high else "not measurably different"
    return f"{_two(1 / ratio.value)}x {better}" if ratio.value < 1 else f"{_two(ratio.value)}x {worse}"


def value(metric: Metric, number: float) -> str:
    """Return a metric's number with its unit."""
    if metric is Metric.ACCURACY:
        return f"{number:.3f}"
    return size(number) if metric is Metric.SIZE_BYTES else milliseconds(number)


def _two(number: float) -> str:
    """Return a factor with enough digits to differ from 1."""
    return f"{number:.1f}" if number >= 1.15 else f"{number:.2f}"


def _three(number: float) -> str:
    """Return a number of about three significant digits, without an exponent."""
    if number >= 100:
        return f"{number:.0f}"
    if number >= 1:
        return f"{number:.1f}" if number >= 5 else f"{number:.2f}"
    return f"{number:#.3g}" if number >= 0.0001 else f"{number:.6f}"
