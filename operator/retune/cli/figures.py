"""Numbers, ages and names in the form that people read. Pure; never rounds a difference away without saying so."""

from datetime import datetime
from math import floor, log10

from retune.api.metrics import Metric, MetricKind
from retune.api.objects import Comparison
from retune.api.quantities import finite, plain
from retune.api.status import Measurement, Version

_UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))
_KNOWN: dict[str, Metric] = {metric.value: metric for metric in Metric}
_LESS_AND_MORE: dict[str, tuple[str, str]] = {
    Metric.LATENCY_P50_MS: ("faster", "slower"),
    Metric.LATENCY_P95_MS: ("faster", "slower"),
    Metric.SIZE_BYTES: ("smaller", "larger"),
}
_LATENCIES = {Metric.LATENCY_P50_MS, Metric.LATENCY_P95_MS}
_BYTES = {Metric.SIZE_BYTES, Metric.PEAK_MEMORY_BYTES}
_SUFFIXES: dict[str, str] = {
    Metric.THROUGHPUT_RPS: " rows/s",
    Metric.CPU_SECONDS_PER_1000: " s",
    Metric.ENERGY_JOULES_PER_1000: " J (estimated)",
}
_DIGITS = 4
"""Significant digits of a number without a form of its own."""
_WHOLE_FROM = 1000
"""Size from which on such a number is shown without decimals."""
NONE = "-"
"""What stands for a value that is not there."""


def age(moment: datetime | None, now: datetime) -> str:
    """Return the time from `moment` to `now` as kubectl shows it, such as 45s, 12m, 5h or 3d."""
    if moment is None:
        return NONE
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def size(count: int | None) -> str:
    """Return a number of bytes in decimal units, such as 4.29 MB."""
    if count is None:
        return NONE
    return next((f"{count / unit:.2f} {name}" for unit, name in _UNITS if count >= unit), f"{count} B")


def metric_name(name: str) -> str:
    """Return a metric's name, and where it is of requests of one size, that in words: `latency_p95_ms, 32 rows`."""
    metric, _, size = name.rpartition("@")
    return f"{metric}, {size} row{'' if size == '1' else 's'}" if metric in _LATENCIES else name


def _of_all_sizes(name: str) -> str:
    """Return the metric that a name is about, whatever the size of the requests."""
    metric, _, _ = name.rpartition("@")
    return metric if metric in _LATENCIES else name


def number(metric: str, text: str) -> str:
    """Return a value of a metric with its unit, such as `67.6 µs`; as it is where it is no number."""
    metric, value = _of_all_sizes(metric), finite(text)
    return text if value is None else f"{_bare(metric, value, like=value)}{_unit(metric, value)}"


def measurement(measured: Measurement) -> str:
    """Return a value with its interval in the same unit, such as `67.6 µs [67.2, 68.1]`."""
    text = number(measured.name, measured.value)
    value, low, high = (finite(decimal) for decimal in (measured.value, measured.low, measured.high))
    if value is None or low is None or high is None or low == high:
        return text
    metric = _of_all_sizes(measured.name)
    return f"{text} [{_bare(metric, low, like=value)}, {_bare(metric, high, like=value)}]"


def decimal(text: str | None) -> str:
    """Return a number of a status with four digits or more, such as `1234` or `0.02`; as it is where it is none."""
    value = finite(text)
    return text or NONE if value is None else plain(value)


def _bare(metric: str, value: float, *, like: float) -> str:
    """Return a value without its unit, at the scale at which the value `like` is shown."""
    if metric in _BYTES:
        return size(round(value))
    if metric in _LATENCIES:
        scaled = value * 1000 if like < 1 else value
        return f"{scaled:.0f}" if scaled >= 100 else f"{scaled:.3g}"
    if metric in _KNOWN and _KNOWN[metric].is_share:
        return f"{value:.4f}"
    return _plain(value)


def _plain(value: float) -> str:
    """Return four significant digits, whole from a thousand on, never with an exponent."""
    if value == 0 or abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.{max(0, _DIGITS - 1 - floor(log10(abs(value))))}f}"


def _unit(metric: str, value: float) -> str:
    if metric in _LATENCIES:
        return " µs" if value < 1 else " ms"
    return _SUFFIXES.get(metric, "")


def change(row: Comparison) -> str:
    """Return what the candidate changes, such as `2.03x faster`, `-0.14 points [-0.95, +0.67]`, `-0.31 [-0.5, -0.1]`.

    Takes the judge's paired comparison where there is one, else the quotient or difference of the two values.
    """
    compared = row.change or _compared(row)
    value = finite(compared.value) if compared else None
    if compared is None or value is None:
        return NONE
    low, high = (value if end is None else end for end in (finite(compared.low), finite(compared.high)))
    metric = _KNOWN.get(_of_all_sizes(row.name))
    if metric is not None and metric.is_share:
        ends = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if low != high else ""
        return f"{100 * value + 0.0:+.1f} points{ends}"
    if metric is not None and metric.kind is MetricKind.QUALITY:
        ends = f" [{_signed(low)}, {_signed(high)}]" if low != high else ""
        return f"{_signed(value)}{ends}"
    if value <= 0:
        return NONE
    if low <= 1 <= high:
        return "equal" if low == high else "no difference seen"
    return _times(value, _of_all_sizes(row.name))


def _times(ratio: float, metric: str) -> str:
    less, more = _LESS_AND_MORE.get(metric, ("lower", "higher"))
    return f"{1 / ratio:.2f}x {less}" if ratio < 1 else f"{ratio:.2f}x {more}"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_plain(abs(value))}"


def _compared(row: Comparison) -> Measurement | None:
    """Return the difference of two qualities or the ratio of two other values; None where there is none."""
    before, after = finite(row.champion.value), finite(row.candidate.value)
    if before is None or after is None:
        return None
    if row.name in _KNOWN and _KNOWN[row.name].kind is MetricKind.QUALITY:
        return Measurement(name=row.name, value=f"{after - before:.9f}")
    return Measurement(name=row.name, value=f"{after / before:.9g}") if before > 0 and after > 0 else None


def digest(text: str | None) -> str:
    """Return the start of a digest, long enough to tell bundles apart."""
    return text.removeprefix("sha256:")[:12] if text else NONE


def version(shown: Version | None) -> str:
    """Return a version with the techniques that made it, such as `v2 (quantize)`."""
    if shown is None:
        return NONE
    made = " + ".join(shown.techniques) or ("as delivered" if shown.run_name is None else "no technique")
    return f"v{shown.version} ({made})"
