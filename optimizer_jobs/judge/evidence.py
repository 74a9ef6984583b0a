"""What was measured of champion and finalists, in the form that gate and selection read.

Pure data and arithmetic: nothing here measures, reads files or decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer_jobs.measure.stats import Interval, PairedDifference
from retune.api.spec import GoalType, Metric, Objective
from retune.contract.requests import BundleRef

LATENCIES = {Metric.LATENCY_P50_MS: 0.50, Metric.LATENCY_P95_MS: 0.95}
"""Latency metrics and the quantile each one is."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model's own numbers on the test split and this machine."""

    bundle: BundleRef
    plan: str
    """How it was made and runs, in words."""
    techniques: tuple[str, ...]
    metrics: Mapping[Metric, Interval]
    """Accuracy as a share, latencies in milliseconds, size in bytes."""

    @property
    def size_bytes(self) -> int:
        """Size of the model file."""
        return round(self.metrics[Metric.SIZE_BYTES].value)


@dataclass(frozen=True, kw_only=True)
class Contender(Standing):
    """A finalist, compared with the champion on the same rows and in the same rounds."""

    trial: int
    difference: PairedDifference
    """Accuracy, candidate minus champion, at `confidence`."""
    confidence: float
    """Confidence of the accuracy intervals, made stricter because several finalists are judged at once (Holm)."""
    agreement: Interval
    """Share of rows on which both models give the same answer; needs no labels."""
    ratios: Mapping[Metric, Interval]
    """Candidate divided by champion, for latencies and size."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a verdict rests on."""

    champion: Standing
    contenders: tuple[Contender, ...]
    noise: str | None
    """Why latency could not be judged on this node; None when it could."""


def gain(metric: Metric, contender: Contender, champion: Standing) -> Interval:
    """Return the relative gain on a metric: above 0 the contender is better, and the low end is the pessimistic one."""
    if metric is Metric.ACCURACY:
        base = max(champion.metrics[metric].value, 1e-12)
        found = contender.difference
        return Interval(value=found.value / base, low=found.low / base, high=found.high / base, samples=found.rows)
    ratio = contender.ratios[metric]
    return Interval(value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low, samples=ratio.samples)


def pessimistic(objective: Objective, contender: Contender, champion: Standing) -> float:
    """Return the contender's number that its goal is checked with: the bad end of its interval, in the metric's unit.

    Absolute goals look at the contender's own interval, relative ones at the interval of the comparison.
    """
    metric = objective.metric
    absolute = objective.goal is not None and objective.goal.type is GoalType.THRESHOLD
    own, base = contender.metrics[metric], champion.metrics[metric].value
    if metric is Metric.ACCURACY:
        return own.low if absolute else base + contender.difference.low
    return own.high if absolute else base * contender.ratios[metric].high


def estimate(objective: Objective, contender: Contender, champion: Standing) -> float:
    """Return the contender's point estimate, in the metric's unit, by the same comparison as `pessimistic`."""
    metric = objective.metric
    if metric in LATENCIES and objective.goal is not None and objective.goal.type is not GoalType.THRESHOLD:
        return champion.metrics[metric].value * contender.ratios[metric].value
    return contender.metrics[metric].value
