"""The measurements of champion and finalists, in the form that gate and selection read.

Only data and arithmetic: nothing here measures, reads files or decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer_jobs.measure.stats import Interval, PairedDifference
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import GoalType, Objective
from retune.contract.requests import BundleRef

LATENCIES = {Metric.LATENCY_P50_MS: 0.50, Metric.LATENCY_P95_MS: 0.95}
"""Quantile (0..1) of each latency metric."""

TIMED = frozenset({*LATENCIES, Metric.THROUGHPUT_RPS})
"""Metrics that cannot be judged on a noisy machine."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A model's own measurements on the test rows and this machine."""

    bundle: BundleRef
    plan: str
    """What was done to the model and how it is run, in words."""
    techniques: tuple[str, ...]
    metrics: Mapping[Metric, Interval]
    """Values in the metric's unit: first the quality metrics, then latencies and resources."""

    @property
    def main(self) -> Metric:
        """The first quality metric of the objectives, or else the most important one of the task."""
        return next(metric for metric in self.metrics if metric.kind is MetricKind.QUALITY)

    @property
    def size_bytes(self) -> int:
        """Size of the model."""
        return round(self.metrics[Metric.SIZE_BYTES].value)


@dataclass(frozen=True, kw_only=True)
class ClassLoss:
    """A class that a finalist knows less well than the champion."""

    label: str
    rows: int
    champion: float
    """Share of the class's rows that the champion gets right."""
    candidate: float


@dataclass(frozen=True, kw_only=True)
class AtSize:
    """p95 latency of requests of one size, where requests differ in size."""

    size: int
    """Rows of a request."""
    share: float
    """Share of the requests, 0..1."""
    champion: Interval
    """In milliseconds, as `candidate`."""
    candidate: Interval
    ratio: Interval
    """Candidate divided by champion, with the interval widened by what the champion differs from itself."""

    @property
    def slower(self) -> bool:
        """Whether the candidate is slower by more than the noise."""
        return self.ratio.low > 1


@dataclass(frozen=True, kw_only=True)
class Contender(Standing):
    """A finalist, compared with the champion on the same rows and in the same rounds."""

    trial: int
    differences: Mapping[Metric, PairedDifference]
    """Candidate minus champion for every quality metric, at `confidence`; the main metric first."""
    confidence: float
    """Confidence (0..1) of the quality intervals; stricter when several finalists are judged together (Holm)."""
    agreement: Interval
    """How alike both models answer, from 0 to 1; needs no labels."""
    ratios: Mapping[Metric, Interval]
    """Candidate divided by champion, for latencies and resources."""
    sizes: tuple[AtSize, ...] = ()
    """Latency by size of the requests; empty where all are alike."""
    worst_size: int | None = None
    """The size of requests at which its main metric counts, if its answers depend on the size."""
    spread: float = 1.0
    """How much its answers differ from row to row, divided by how much the champion's do."""
    class_losses: tuple[ClassLoss, ...] = ()
    """Classes of which it is proven to get fewer rows right than the champion, the largest loss first."""
    process_bytes: int | None = None
    """Peak memory of a whole process with the model; None when it was not measured."""

    @property
    def difference(self) -> PairedDifference:
        """The paired difference of the main quality metric."""
        return next(iter(self.differences.values()))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a verdict is based on."""

    champion: Standing
    contenders: tuple[Contender, ...]
    noise: str | None
    """Why latency cannot be judged on this node; None when it can."""
    doubt: str | None = None
    """Why the intervals of latency were widened; None when they were not."""
    widening: float = 1.0
    """Factor by which they were widened."""
    memory: int | None = None
    """Most bytes for a process with the model; None without a limit."""
    threads: str | None = None
    """Why the threads that were judged are not those that were asked for or can run; None when they are."""


def gain(metric: Metric, contender: Contender, champion: Standing) -> Interval:
    """Return the gain on a metric relative to the champion: above 0, the contender is better; the low end is the worst.

    For example, 0.5 means that latency is halved, or that throughput is half as much again.
    """
    if metric.kind is MetricKind.QUALITY:
        base = max(abs(champion.metrics[metric].value), 1e-12)
        difference = contender.differences[metric].interval
        better = difference if metric.higher_is_better else _negative(difference)
        return Interval(better.value / base, low=better.low / base, high=better.high / base, samples=better.samples)
    ratio = contender.ratios[metric]
    if metric.higher_is_better:
        return Interval(value=ratio.value - 1, low=ratio.low - 1, high=ratio.high - 1, samples=ratio.samples)
    return Interval(value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low, samples=ratio.samples)


def _negative(interval: Interval) -> Interval:
    return Interval(value=-interval.value, low=-interval.high, high=-interval.low, samples=interval.samples)


def pessimistic(objective: Objective, contender: Contender, champion: Standing) -> float:
    """Return the bad end of the contender's interval, in the metric's unit, to which the objective's goal applies.

    For an absolute goal, it is the end of the contender's own interval; for a goal relative to the champion, it comes
    from the interval of the comparison.
    """
    metric = objective.metric
    absolute = objective.goal is not None and objective.goal.type is GoalType.THRESHOLD
    own, base = contender.metrics[metric], champion.metrics[metric].value
    if metric.kind is MetricKind.QUALITY:
        difference = contender.differences[metric]
        compared = base + (difference.low if metric.higher_is_better else difference.high)
    else:
        ratio = contender.ratios[metric]
        compared = base * (ratio.low if metric.higher_is_better else ratio.high)
    return (own.low if metric.higher_is_better else own.high) if absolute else compared


def estimate(objective: Objective, contender: Contender, champion: Standing) -> float:
    """Return the contender's estimate, in the metric's unit, from the same comparison as `pessimistic`."""
    metric = objective.metric
    relative = objective.goal is not None and objective.goal.type is not GoalType.THRESHOLD
    if relative and metric.kind is not MetricKind.QUALITY:
        return champion.metrics[metric].value * contender.ratios[metric].value
    return contender.metrics[metric].value
