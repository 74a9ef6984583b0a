"""What was measured of champion and finalists, in the form that gate and selection read.

Pure data and arithmetic: nothing here measures, reads files or decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer_jobs.measure.stats import Interval, PairedDifference
from retune.api.objectives import GoalType, Metric, MetricKind, Objective
from retune.contract.requests import BundleRef

LATENCIES = {Metric.LATENCY_P50_MS: 0.50, Metric.LATENCY_P95_MS: 0.95}
"""Latency metrics and the quantile each one is."""

TIMED = frozenset({*LATENCIES, Metric.THROUGHPUT_RPS})
"""Metrics that a noisy machine makes worthless."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model's own numbers on the test split and this machine."""

    bundle: BundleRef
    plan: str
    """How it was made and runs, in words."""
    techniques: tuple[str, ...]
    metrics: Mapping[Metric, Interval]
    """Quality of the task's metrics first, then latencies and resources; each in the metric's unit."""

    @property
    def main(self) -> Metric:
        """The quality metric that objectives speak of first; else the one that stands for the task."""
        return next(metric for metric in self.metrics if metric.kind is MetricKind.QUALITY)

    @property
    def size_bytes(self) -> int:
        """Size of the model file."""
        return round(self.metrics[Metric.SIZE_BYTES].value)


@dataclass(frozen=True, kw_only=True)
class Contender(Standing):
    """A finalist, compared with the champion on the same rows and in the same rounds."""

    trial: int
    differences: Mapping[Metric, PairedDifference]
    """Candidate minus champion for every quality metric, at `confidence`; the main one first."""
    confidence: float
    """Confidence of the quality intervals, made stricter because several finalists are judged at once (Holm)."""
    agreement: Interval
    """How much both models answer the same, from 0 to 1; needs no labels."""
    ratios: Mapping[Metric, Interval]
    """Candidate divided by champion, for latencies and resources."""
    process_bytes: int | None = None
    """Most memory of a whole process with the model, where it was measured."""

    @property
    def difference(self) -> PairedDifference:
        """The paired difference of the main quality metric."""
        return next(iter(self.differences.values()))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a verdict rests on."""

    champion: Standing
    contenders: tuple[Contender, ...]
    noise: str | None
    """Why latency could not be judged on this node; None when it could."""
    doubt: str | None = None
    """Why intervals of latency are wider than they were measured; None when they are not."""
    memory: int | None = None
    """Bytes that a process with the model must get along with; None without a limit."""


def gain(metric: Metric, contender: Contender, champion: Standing) -> Interval:
    """Return the relative gain on a metric: above 0 the contender is better, and the low end is the pessimistic one."""
    if metric.kind is MetricKind.QUALITY:
        base = max(champion.metrics[metric].value, 1e-12)
        found = contender.differences[metric].interval
        better = found if metric.higher_is_better else _negative(found)
        return Interval(
            value=better.value / base, low=better.low / base, high=better.high / base, samples=found.samples
        )
    ratio = contender.ratios[metric]
    if metric.higher_is_better:
        return Interval(value=ratio.value - 1, low=ratio.low - 1, high=ratio.high - 1, samples=ratio.samples)
    return Interval(value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low, samples=ratio.samples)


def _negative(found: Interval) -> Interval:
    return Interval(value=-found.value, low=-found.high, high=-found.low, samples=found.samples)


def pessimistic(objective: Objective, contender: Contender, champion: Standing) -> float:
    """Return the contender's number that its goal is checked with: the bad end of its interval, in the metric's unit.

    Absolute goals look at the contender's own interval, relative ones at the interval of the comparison.
    """
    metric = objective.metric
    absolute = objective.goal is not None and objective.goal.type is GoalType.THRESHOLD
    own, base = contender.metrics[metric], champion.metrics[metric].value
    if metric.kind is MetricKind.QUALITY:
        found = contender.differences[metric]
        compared = base + (found.low if metric.higher_is_better else found.high)
    else:
        ratio = contender.ratios[metric]
        compared = base * (ratio.low if metric.higher_is_better else ratio.high)
    return (own.low if metric.higher_is_better else own.high) if absolute else compared


def estimate(objective: Objective, contender: Contender, champion: Standing) -> float:
    """Return the contender's point estimate, in the metric's unit, by the same comparison as `pessimistic`."""
    metric = objective.metric
    relative = objective.goal is not None and objective.goal.type is not GoalType.THRESHOLD
    if relative and metric.kind is not MetricKind.QUALITY:
        return champion.metrics[metric].value * contender.ratios[metric].value
    return contender.metrics[metric].value
