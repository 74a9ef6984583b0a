"""The numbers of a verdict in the form of the API: champion, candidate and change of each metric."""

import numpy as np

from optimizer_jobs.commands.judge.evidence import AtSize, Contender, Standing
from optimizer_jobs.measure.stats import Interval
from retune.api.metrics import Metric, MetricKind
from retune.api.objects import Comparison
from retune.api.search import at_size
from retune.api.status import Measurement

MOST_COMPARISONS = 16
"""Most lines of a result, as the API takes them."""
_WHOLE = 1e6
"""From this size on, a number is written without a fraction."""


def comparisons(champion: Standing, contender: Contender) -> tuple[Comparison, ...]:
    """Return a line for each metric, then one for each size of requests where they differ in size."""
    metrics = tuple(
        Comparison(
            name=metric.value,
            champion=measurement(metric, champion.metrics[metric]),
            candidate=measurement(metric, contender.metrics[metric]),
            change=_change(metric, contender),
        )
        for metric in champion.metrics
    )
    return (*metrics, *map(_at_size, contender.sizes))[:MOST_COMPARISONS]


def _at_size(at: AtSize) -> Comparison:
    """Return p95 in requests of one size, in few words: there may be eight."""
    name, ratio = at_size(Metric.LATENCY_P95_MS.value, at.size), at.ratio
    low, value, high = (decimal(float(f"{number:.4g}")) for number in (ratio.low, ratio.value, ratio.high))
    return Comparison(
        name=name,
        champion=Measurement(name=name, value=decimal(float(f"{at.champion.value:.4g}"))),
        candidate=Measurement(name=name, value=decimal(float(f"{at.candidate.value:.4g}"))),
        change=Measurement(name=name, value=value, low=low, high=high),
    )


def _change(metric: Metric, contender: Contender) -> Measurement:
    """Return the paired comparison, whose interval is narrower than that of two separate intervals."""
    quality = metric.kind is MetricKind.QUALITY
    return _measured(metric, contender.differences[metric].interval if quality else contender.ratios[metric])


def measurement(metric: Metric, interval: Interval) -> Measurement:
    """Return an interval in the form of the API; the size in bytes is exact and has no ends."""
    if metric is Metric.SIZE_BYTES:
        return Measurement(name=metric.value, value=f"{interval.value:.0f}")
    return _measured(metric, interval)


def _measured(metric: Metric, interval: Interval) -> Measurement:
    low, value, high = (decimal(number) for number in (interval.low, interval.value, interval.high))
    return Measurement(name=metric.value, value=value, low=low, high=high, samples=interval.samples)


def decimal(number: float) -> str:
    """Return a number with six significant digits and no exponent; from a million on, without a fraction."""
    if abs(number) >= _WHOLE:
        return f"{number:.0f}"
    return str(np.format_float_positional(number + 0.0, precision=6, fractional=False, trim="-"))
