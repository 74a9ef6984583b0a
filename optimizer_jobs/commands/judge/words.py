"""Numbers in words for people: bytes, ratios, points, intervals. Verdict and report write each in the same way."""

from collections.abc import Sequence

import numpy as np

from optimizer_jobs.measure.stats import Interval
from retune.api.metrics import Metric, MetricKind

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
LABELS = {metric: metric.value.replace("_", " ") for metric in Metric} | {
    Metric.ACCURACY: "accuracy",
    Metric.ROBUST_ACCURACY: "robust accuracy",
    Metric.MAE: "mean absolute error",
    Metric.RMSE: "RMSE",
    Metric.NEIGHBOR_AGREEMENT: "neighbour agreement",
    Metric.MATTHEWS: "Matthews correlation",
    Metric.ROC_AUC: "ROC AUC",
    Metric.BRIER_SCORE: "Brier score",
    Metric.D2_LOG_LOSS: "explained log loss",
    Metric.D2_BRIER: "explained Brier score",
    Metric.R2: "R2",
    Metric.MRR: "MRR",
    Metric.LATENCY_P50_MS: "p50",
    Metric.LATENCY_P95_MS: "p95",
    Metric.THROUGHPUT_RPS: "throughput",
    Metric.SIZE_BYTES: "size",
    Metric.PEAK_MEMORY_BYTES: "peak memory",
    Metric.CPU_SECONDS_PER_1000: "CPU time per 1000",
    Metric.ENERGY_JOULES_PER_1000: "estimated energy per 1000",
    Metric.COST_PER_1000: "cost per 1000",
}
"""Names of the metrics, short enough for a sentence."""
_COMPARED = {
    Metric.SIZE_BYTES: ("smaller", "larger"),
    Metric.LATENCY_P50_MS: ("faster", "slower"),
    Metric.LATENCY_P95_MS: ("faster", "slower"),
    Metric.THROUGHPUT_RPS: ("higher", "lower"),
}
"""Words for better and worse; for all other metrics they are `lower` and `higher`."""


def size(count: float) -> str:
    """Return a number of bytes such as `8.6 MB`."""
    for unit, name in _UNITS:
        if count >= 0.9995 * unit:
            return f"{count / unit:.0f} {name}" if count >= 100 * unit else f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def milliseconds(value: float) -> str:
    """Return a duration in milliseconds with about three digits, such as `0.0213 ms` or `15.3 ms`."""
    return f"{three(value)} ms"


def points(share: float, *, signed: bool = True) -> str:
    """Return a difference of shares (-1..1) in percentage points, such as `-0.1`; never minus zero."""
    value = round(100 * share, 1) + 0.0
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def percent(share: float) -> str:
    """Return a share (0..1) in percent, such as `95 %` or `97.5 %`."""
    return f"{100 * share:.3g} %"


def times(ratio: Interval, *, better: str, worse: str) -> str:
    """Return a ratio to the champion in words, such as `1.8x faster`, `1.2x slower` or `not measurably different`.

    Args:
        ratio: The ratio; below 1 is better.
        better: Word for a ratio below 1.
        worse: Word for a ratio above 1.
    """
    if ratio.low <= 1 <= ratio.high:
        return "unchanged" if ratio.low == ratio.high else "not measurably different"
    return f"{_two(1 / ratio.value)}x {better}" if ratio.value < 1 else f"{_two(ratio.value)}x {worse}"


def compared(metric: Metric, ratio: Interval) -> str:
    """Return a metric's ratio to the champion in words, such as `1.8x faster`, whichever direction is better."""
    better, worse = _COMPARED.get(metric, ("lower", "higher"))
    return times(inverse(ratio) if metric.higher_is_better else ratio, better=better, worse=worse)


def inverse(ratio: Interval) -> Interval:
    """Return 1 divided by a ratio."""
    return Interval(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low, samples=ratio.samples)


def listed(parts: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def value(metric: Metric, number: float) -> str:
    """Return a metric's value with its unit."""
    if metric.is_share:
        return f"{number:.3f}" if metric in _THREE_DIGITS else f"{number:.4f}"
    if metric in {Metric.SIZE_BYTES, Metric.PEAK_MEMORY_BYTES}:
        return size(number)
    if metric.kind is MetricKind.LATENCY:
        return milliseconds(number)
    return f"{three(number)}{_UNIT.get(metric, '')}"


_THREE_DIGITS = frozenset({Metric.ACCURACY, Metric.BALANCED_ACCURACY, Metric.RECALL, Metric.PRECISION, Metric.F1})
_UNIT = {
    Metric.THROUGHPUT_RPS: " rows/s",
    Metric.CPU_SECONDS_PER_1000: " s",
    Metric.ENERGY_JOULES_PER_1000: " J (estimated)",
}


def change(metric: Metric, difference: float) -> str:
    """Return a difference of quality with its sign: in percentage points for a share, else in the metric's unit."""
    return points(difference) if metric.is_share else f"{'+' if difference >= 0 else '-'}{three(abs(difference))}"


def _two(number: float) -> str:
    """Return a factor with one decimal, or with two if it is close to 1."""
    return f"{number:.1f}" if number >= 1.15 else f"{number:.2f}"


def three(number: float) -> str:
    """Return a number with about three significant digits, without an exponent."""
    if number >= 100:
        return f"{number:.0f}"
    if number >= 1:
        return f"{number:.1f}" if number >= 5 else f"{number:.2f}"
    if number >= 0.0001 or number == 0:
        return f"{number:#.3g}" if number else "0"
    return str(np.format_float_positional(number, precision=3, fractional=False, trim="-"))
