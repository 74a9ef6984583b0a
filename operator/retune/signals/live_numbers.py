"""From totals of a window to live numbers: quantiles, shares and rates, or the reason why there is none."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from retune.api.monitoring import LiveKind, LiveSignal, PodMetrics
from retune.plan.observed import LiveNumber
from retune.signals.exposition import Totals


@dataclass(frozen=True, slots=True)
class Window:
    """What the target's pods counted in one window."""

    grown: Totals
    """By how much the totals of all pods grew."""
    seconds: float
    """Seconds of the window in which some pod was seen."""
    allowed: float | None
    """Seconds of CPU that the pods might have used at most; None where they are not limited."""

    @property
    def saturation(self) -> float | None:
        """CPU used as a share of what is allowed, or the share of throttled periods, whichever is larger; or None."""
        used, limit = self.grown.cpu, self.allowed
        shares = [used / limit] if used is not None and limit else []
        if self.grown.periods and self.grown.throttled is not None:
            shares.append(self.grown.throttled / self.grown.periods)
        return max(shares, default=None)


def number(signal: LiveSignal, window: Window, metrics: PodMetrics) -> LiveNumber:
    """Return a signal's number: seconds for a latency, requests a second for a throughput, else a share.

    Args:
        signal: A signal without a query.
        window: What the target's pods counted.
        metrics: Names of the pods' metrics, for the message.
    """
    if signal.kind == LiveKind.LATENCY:
        return _latency(signal, window, metrics)
    if signal.kind == LiveKind.ERROR_RATE:
        return _error_rate(signal, window, metrics)
    if signal.kind == LiveKind.THROUGHPUT:
        return _throughput(signal, window, metrics)
    if signal.kind == LiveKind.SATURATION:
        value = window.saturation
        if value is None:
            return no_number(signal, "NoData", "The pods tell no CPU time, or have neither a CPU limit nor a request.")
        return _measured(signal, value, f"{100 * value:.1f} % of the CPU allowed")
    return no_number(
        signal, "NoData", "Pods do not tell quality: give the signal a query, or watch quality with labels."
    )


def no_number(signal: LiveSignal, reason: str, message: str) -> LiveNumber:
    """Return that there is no number, and why, as one word and as a sentence."""
    return LiveNumber(signal.name, None, reason, message)


def _measured(signal: LiveSignal, value: float, words: str) -> LiveNumber:
    if not math.isfinite(value):
        return no_number(signal, "NotANumber", "The pods' metrics give no finite number.")
    return LiveNumber(signal.name, value, "Measured", f"{words}.")


def _latency(signal: LiveSignal, window: Window, metrics: PodMetrics) -> LiveNumber:
    share = signal.percentile_share
    if not window.grown.buckets:
        return no_number(signal, "NoData", f"The pods tell no histogram {metrics.latency}{_of_path(metrics)}.")
    value = quantile(share, window.grown.buckets)
    if value is None:
        return no_number(signal, "NoData", "No request was answered in the window.")
    return _measured(signal, value, f"{100 * share:.0f} % of requests took at most {value:.4g} s")


def _error_rate(signal: LiveSignal, window: Window, metrics: PodMetrics) -> LiveNumber:
    requests, errors = window.grown.requests, window.grown.errors
    if requests is None or errors is None:
        return no_number(signal, "NoData", f"The pods tell no {metrics.requests} with a status{_of_path(metrics)}.")
    if not requests:
        return no_number(signal, "NoData", "No request was answered in the window.")
    return _measured(signal, errors / requests, f"{errors:.0f} of {requests:.0f} requests failed")


def _throughput(signal: LiveSignal, window: Window, metrics: PodMetrics) -> LiveNumber:
    if window.grown.requests is None or not window.seconds:
        return no_number(signal, "NoData", f"The pods tell no {metrics.requests}{_of_path(metrics)}.")
    rate = window.grown.requests / window.seconds
    return _measured(signal, rate, f"{rate:.4g} requests a second")


def _of_path(metrics: PodMetrics) -> str:
    return f" of a path that ends in {metrics.path_suffix}" if metrics.path_suffix else ""


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return a quantile by interpolation within buckets, as Prometheus' histogram_quantile(); None without requests.

    Args:
        share: Share of requests that take at most so long, between 0 and 1.
        buckets: Requests by upper bound in seconds, ascending, the last bound infinite. A count below the one before it
            is raised to it.
    """
    bounds = list(buckets)
    if len(bounds) < 2 or not math.isinf(bounds[-1]):
        return None
    counts = list(accumulate(buckets.values(), max))
    if not counts[-1]:
        return None
    rank = share * counts[-1]
    at = next(index for index, count in enumerate(counts) if count >= rank)
    if at == len(bounds) - 1:
        return bounds[-2]
    if at == 0 and bounds[0] <= 0:
        return bounds[0]
    low, below = (bounds[at - 1], counts[at - 1]) if at else (0.0, 0.0)
    return low + (bounds[at] - low) * (rank - below) / (counts[at] - below)
