"""Numbers, ages and names in the form people read. Pure; never rounds a difference away without saying so."""

from datetime import datetime

from retune.api.objects import Comparison
from retune.api.spec import Metric
from retune.api.status import Measurement, Version

_UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB"))
_BETTER = {Metric.LATENCY_P50_MS: "faster", Metric.LATENCY_P95_MS: "faster", Metric.SIZE_BYTES: "smaller"}
_WORSE = {"faster": "slower", "smaller": "larger"}
NONE = "-"


def age(moment: datetime | None, now: datetime) -> str:
    """Return the time since `moment` as kubectl shows it, such as 45s, 12m, 5h or 3d."""
    if moment is None:
        return NONE
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def size(count: int | None) -> str:
    """Return bytes in decimal units, such as 4.29 MB."""
    if count is None:
        return NONE
    return next((f"{count / unit:.2f} {name}" for unit, name in _UNITS if count >= unit), f"{count} B")


def number(metric: str, text: str) -> str:
    """Return one value of a metric with its unit."""
    try:
        value = float(text)
    except ValueError:
        return text
    if metric == Metric.SIZE_BYTES:
        return size(round(value))
    if metric in {Metric.LATENCY_P50_MS, Metric.LATENCY_P95_MS}:
        return f"{value:.3g} ms" if value >= 1 else f"{value:.3f} ms"
    return f"{value:.4f}"


def measurement(measured: Measurement) -> str:
    """Return a value with its interval, such as `0.9903 [0.9801, 0.9953]`."""
    text = number(measured.name, measured.value)
    if measured.low is None or measured.high is None:
        return text
    low, high = (number(measured.name, end).removesuffix(" ms") for end in (measured.low, measured.high))
    return f"{text} [{low}, {high}]"


def change(row: Comparison) -> str:
    """Return what the candidate changes: points of accuracy, or how many times faster or smaller."""
    try:
        before, after = float(row.champion.value), float(row.candidate.value)
    except ValueError:
        return NONE
    if row.name == Metric.ACCURACY:
        points = 100 * (after - before)
        return "equal" if points == 0 else f"{points:+.2f} points"
    if before == after or min(before, after) <= 0:
        return "equal" if before == after else NONE
    better = _BETTER.get(Metric(row.name), "better") if row.name in set(Metric) else "lower"
    factor, word = (before / after, better) if before > after else (after / before, _WORSE.get(better, "higher"))
    return f"{factor:.2f}x {word}"


def digest(text: str | None) -> str:
    """Return the start of a digest, long enough to tell bundles apart."""
    return text.removeprefix("sha256:")[:12] if text else NONE


def version(found: Version | None) -> str:
    """Return a version with what was done to make it."""
    if found is None:
        return NONE
    made = " + ".join(found.techniques) or ("as delivered" if found.run_name is None else "no technique")
    return f"v{found.version} ({made})"
