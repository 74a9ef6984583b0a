"""From a pod's metrics in Prometheus' text format to the few totals that live numbers are made of.

Only lines of wanted metrics are parsed, within bounds on their length, number and time, and only sums over their labels
are kept: neither a large nor a strange exposition costs much memory or time. A value that cannot be a total, negative
or not finite, makes the whole scrape unusable.
"""

import math
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from retune.api.monitoring import PodMetrics
from retune.signals.bounded import UnreadableError

MAX_SAMPLES = 5000
"""Most wanted lines of one exposition."""
LONGEST_LINE = 1024
"""Most characters of a wanted line."""
MOST_SECONDS = 0.3
"""Most CPU time of the thread that reads one exposition."""
MAX_BUCKETS = 200
"""Most different bounds of a histogram."""
_CPU = "process_cpu_seconds_total"
_STARTED = "process_start_time_seconds"
_PERIODS = "container_cpu_cfs_periods_total"
_THROTTLED = "container_cpu_cfs_throttled_periods_total"
STATUS_LABELS = ("status_code", "code", "status")
"""Labels that may hold the status code of a request, the first one first."""
PATH_LABELS = ("path", "handler")
"""Labels that may hold the path of a request, the first one first."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What one process has counted since it started, or by how much that grew; None where it does not count it."""

    requests: float | None = None
    """Requests answered."""
    errors: float | None = None
    """Requests answered with a status of 500 and above; None where no label holds the status."""
    refused: float | None = None
    """Requests answered with a status of 400 to 499; None where no label holds the status."""
    buckets: Mapping[float, float] = field(default_factory=dict)
    """Requests that took at most so many seconds, by the upper bound of their bucket."""
    cpu: float | None = None
    """Seconds of CPU."""
    periods: float | None = None
    """Scheduling periods in which the container's CPU limit was in force."""
    throttled: float | None = None
    """Scheduling periods in which the container was throttled."""
    started: float | None = None
    """When the process started, in seconds since 1970."""


def read(text: str, metrics: PodMetrics) -> Totals:
    """Return the totals in an exposition.

    Args:
        text: The exposition, in Prometheus' text format.
        metrics: Names of the metrics that count requests, and which paths count.

    Raises:
        UnreadableError: A wanted line is malformed or its value cannot be a total.
    """
    names = _names(metrics)
    return _totals(list(samples_of(text, names, most=MAX_SAMPLES)), metrics)


def samples_of(text: str, names: Container[str], *, most: int) -> Iterator[Sample]:
    """Yield the samples of the metrics with these names; everything else, comments included, is passed over unread.

    Args:
        text: The exposition, in Prometheus' text format.
        names: Names of the wanted samples.
        most: Most samples.

    Raises:
        UnreadableError: A wanted line is malformed or too long, or there are too many of them.
    """
    began = time.thread_time()
    for number, line in enumerate(_wanted(text, names)):
        if number == most:
            raise UnreadableError(f"the metrics have more than {most} samples of the metrics that are read")
        if len(line) > LONGEST_LINE:
            raise UnreadableError(f"the metrics have a line of more than {LONGEST_LINE} characters")
        if time.thread_time() - began > MOST_SECONDS:
            raise UnreadableError(f"the metrics take more than {MOST_SECONDS:g} s to read")
        yield from _parsed(line)


def _parsed(line: str) -> list[Sample]:
    try:
        return [sample for family in text_string_to_metric_families(f"{line}\n") for sample in family.samples]
    except (ValueError, IndexError, KeyError, RecursionError) as error:
        raise UnreadableError(f"the metrics are malformed: {' '.join(str(error).split())[:120]}") from error


def _names(metrics: PodMetrics) -> frozenset[str]:
    of_requests = {f"{metrics.latency}_bucket", f"{metrics.latency}_count", metrics.requests}
    return frozenset(of_requests | {_CPU, _STARTED, _PERIODS, _THROTTLED})


def _wanted(text: str, names: Container[str]) -> Iterator[str]:
    for line in text.split("\n"):
        if line.partition("{")[0].split(" ", 1)[0].strip() in names:
            yield line


def _totals(samples: list[Sample], metrics: PodMetrics) -> Totals:
    for sample in samples:
        if not (math.isfinite(sample.value) and sample.value >= 0):
            raise UnreadableError(f"the metrics say {sample.name} is {sample.value}, which is no total")
    counted = [sample for sample in samples if _is_of_path(sample, metrics.path_suffix)]
    requests = [sample for sample in counted if sample.name == metrics.requests]
    timed = [sample for sample in counted if sample.name == f"{metrics.latency}_count"]
    return Totals(
        requests=_sum(requests or timed),
        errors=_answered_with("5", requests or timed),
        refused=_answered_with("4", requests or timed),
        buckets=_buckets(sample for sample in counted if sample.name == f"{metrics.latency}_bucket"),
        cpu=_only(samples, _CPU),
        periods=_only(samples, _PERIODS),
        throttled=_only(samples, _THROTTLED),
        started=_only(samples, _STARTED),
    )


def _is_of_path(sample: Sample, suffix: str) -> bool:
    """Return whether a sample counts requests of a path with this end, or no label holds the path."""
    path = next((sample.labels[label] for label in PATH_LABELS if label in sample.labels), None)
    return path is None or path.endswith(suffix)


def _sum(samples: list[Sample]) -> float | None:
    return math.fsum(sample.value for sample in samples) if samples else None


def _only(samples: list[Sample], name: str) -> float | None:
    return _sum([sample for sample in samples if sample.name == name])


def _answered_with(digit: str, samples: list[Sample]) -> float | None:
    """Return the requests that were answered with a status of this first digit; None where no label holds it."""
    by_status = [(status, sample.value) for sample in samples if (status := _status(sample)) is not None]
    return math.fsum(value for status, value in by_status if status.startswith(digit)) if by_status else None


def _status(sample: Sample) -> str | None:
    return next((sample.labels[label] for label in STATUS_LABELS if label in sample.labels), None)


def _buckets(samples: Iterable[Sample]) -> Mapping[float, float]:
    """Return the sum of each bucket over all labels; raises UnreadableError where a bound is no number."""
    buckets: dict[float, float] = {}
    for sample in samples:
        try:
            bound = float(sample.labels["le"])
        except (KeyError, ValueError) as error:
            raise UnreadableError(f"the metrics have a bucket of {sample.name} without a bound") from error
        if math.isnan(bound):
            raise UnreadableError(f"the metrics have a bucket of {sample.name} with bound NaN")
        buckets[bound] = buckets.get(bound, 0.0) + sample.value
        if len(buckets) > MAX_BUCKETS:
            raise UnreadableError(f"the metrics have more than {MAX_BUCKETS} buckets of {sample.name}")
    return dict(sorted(buckets.items()))


def increase(before: Totals | None, after: Totals) -> Totals:
    """Return by how much the totals of one process grew.

    A counter that fell has begun again at zero, as Prometheus takes it.

    Args:
        before: Totals at the earlier scrape; None for a process that has started since.
        after: Totals at the later scrape.
    """
    base = before if before is not None and not _began_again(before, after) else Totals()
    return Totals(
        requests=_grown(base.requests, after.requests),
        errors=_grown(base.errors, after.errors),
        refused=_grown(base.refused, after.refused),
        buckets={bound: _grown(base.buckets.get(bound), value) or 0.0 for bound, value in after.buckets.items()},
        cpu=_grown(base.cpu, after.cpu),
        periods=_grown(base.periods, after.periods),
        throttled=_grown(base.throttled, after.throttled),
    )


def _began_again(before: Totals, after: Totals) -> bool:
    if before.started is not None and after.started is not None and after.started > before.started + 1:
        return True
    return any(
        old is not None and new is not None and new < old
        for old, new in ((before.requests, after.requests), (before.cpu, after.cpu))
    )


def _grown(before: float | None, after: float | None) -> float | None:
    if after is None:
        return None
    return after - before if before is not None and before <= after else after


def added(left: Totals, right: Totals) -> Totals:
    """Return the sum of two growths; what neither counted stays None."""
    bounds = sorted(left.buckets.keys() | right.buckets.keys())
    return Totals(
        requests=_plus(left.requests, right.requests),
        errors=_plus(left.errors, right.errors),
        refused=_plus(left.refused, right.refused),
        buckets={bound: left.buckets.get(bound, 0.0) + right.buckets.get(bound, 0.0) for bound in bounds},
        cpu=_plus(left.cpu, right.cpu),
        periods=_plus(left.periods, right.periods),
        throttled=_plus(left.throttled, right.throttled),
    )


def _plus(left: float | None, right: float | None) -> float | None:
    return right if left is None else left if right is None else left + right
