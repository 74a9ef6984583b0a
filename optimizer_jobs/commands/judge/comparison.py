"""Compare the measurements of finalists with the champion's, and give them intervals. Nothing here runs a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.judge.by_class import by_class, losses
from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, AtSize, Contender, Evidence, Standing
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.commands.judge.scoring import Scored
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import alike, spread
from optimizer_jobs.measure.bootstrap import resampled
from optimizer_jobs.measure.intervals import Difference, OwnInterval, difference, own_interval
from optimizer_jobs.measure.latency import Timings, ratio
from optimizer_jobs.measure.metrics.evaluation import mean_of
from optimizer_jobs.measure.resources import Usage
from optimizer_jobs.measure.stats import Interval, holm_confidences, wilson
from optimizer_jobs.study.objectives import limits, shortfall
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import Goal, GoalType, Objective

Floats = NDArray[np.float64]

_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Node:
    """What the A/A check says about latency on this node."""

    noise: str | None = None
    """Why latency cannot be judged; None when it can."""
    doubt: str | None = None
    """Why intervals of latency are widened; None when they are not."""
    widening: float = 1.0
    """Factor by which intervals of latency are widened."""
    by_size: Mapping[int, float] = field(default_factory=dict)
    """How far the champion's p95 is from itself in requests of each size, as a factor of at least 1."""


@dataclass(frozen=True)
class Comparison:
    """Compares finalists with the champion. Mappings are by bundle digest."""

    champion: Entrant
    rows: Rows
    quality: Scored
    timings: Mapping[str, Timings]
    usage: Mapping[str, Usage]
    rules: Rules
    node: Node

    def evidence(self, finalists: Sequence[Entrant]) -> Evidence:
        """Return the evidence for a verdict on the finalists."""
        return Evidence(
            champion=self.standing,
            contenders=self.contenders(finalists),
            memory=self.rules.memory,
            noise=self.node.noise,
            doubt=self.node.doubt,
            widening=self.node.widening,
            threads=self.rules.threads_doubt,
        )

    @cached_property
    def standing(self) -> Standing:
        """The champion's own measurements."""
        return Standing(
            bundle=self.champion.ref,
            plan=self.champion.plan,
            techniques=self.champion.bundle.manifest.techniques,
            metrics=self._metrics(self.champion, self.rules.confidence),
        )

    def contenders(self, finalists: Sequence[Entrant]) -> tuple[Contender, ...]:
        """Return the finalists with their measurements, compared with the champion."""
        confidences = self._confidences([finalist.bundle.digest for finalist in finalists])
        return tuple(self._contender(finalist, confidences[finalist.bundle.digest]) for finalist in finalists)

    @property
    def _base(self) -> str:
        return self.champion.bundle.digest

    def _metrics(self, entrant: Entrant, confidence: float) -> dict[Metric, Interval]:
        """Return a model's own measurements; `confidence` is that of the quality intervals."""
        digest, timings = entrant.bundle.digest, self.timings[entrant.bundle.digest]
        quality = {metric: self._own[digest, metric](confidence) for metric in self.quality.own[digest]}
        percentile = partial(timings.percentile, confidence=self.rules.confidence)
        timed = {metric: percentile(quantile) for metric, quantile in LATENCIES.items()}
        used = self._needed(self.usage[digest].metrics) if digest in self.usage else {}
        size = Interval.exact(entrant.bundle.manifest.size_bytes)
        return {**quality, **self._widened({**timed, Metric.SIZE_BYTES: size, **used})}

    def _confidences(self, digests: Sequence[str]) -> dict[str, float]:
        """Return the confidence of each finalist's quality intervals, by Holm's method over all finalists.

        A finalist passes a step of the method if it keeps every limit on quality; without limits, if it is not worse
        than the champion.
        """
        goals = [limit for limit in limits(self.rules.objectives) if limit.metric.kind is MetricKind.QUALITY]
        slack = {digest: partial(self._slack, goals or [_no_worse(self.standing.main)], digest) for digest in digests}
        return holm_confidences(slack, limit=0.0, confidence=self.rules.confidence)

    def _slack(self, goals: Sequence[Objective], digest: str, confidence: float) -> float:
        """Return by how much a finalist keeps its limits, by the bad ends of its intervals; the least amount counts."""
        missed = [shortfall(goal, self._worst(goal, digest, confidence), self._base_of(goal.metric)) for goal in goals]
        return -max(missed)

    def _worst(self, goal: Objective, digest: str, confidence: float) -> float:
        """Return the value that a goal applies to: the bad end of the finalist's own interval, or of the comparison."""
        metric = goal.metric
        if goal.goal is not None and goal.goal.type is GoalType.THRESHOLD:
            own = self._own[digest, metric](confidence)
            return own.low if metric.higher_is_better else own.high
        change = self._compared[digest, metric](confidence)
        return self._base_of(metric) + (change.low if metric.higher_is_better else change.high)

    def _base_of(self, metric: Metric) -> float:
        """Return the champion's value of a metric."""
        return self.standing.metrics[metric].value

    def _needed(self, used: Mapping[Metric, Interval]) -> dict[Metric, Interval]:
        """Return the resources that an objective or a limit needs."""
        return {metric: used[metric] for metric in Metric if metric in self.rules.resources}

    @cached_property
    def _own(self) -> Mapping[tuple[str, Metric], OwnInterval]:
        """Own intervals by digest and metric."""
        return {
            (digest, metric): own_interval(values)
            for digest, evaluations in self.quality.own.items()
            for metric, values in evaluations.items()
        }

    @cached_property
    def _compared(self) -> Mapping[tuple[str, Metric], Difference]:
        """Differences to the champion by digest and metric."""
        return {
            (digest, metric): difference(metric, champion, self.quality.own[digest][metric])
            for digest, evaluations in self.quality.base.items()
            for metric, champion in evaluations.items()
        }

    def _contender(self, entrant: Entrant, confidence: float) -> Contender:
        digest = entrant.bundle.digest
        champion, candidate = self.quality.answers[self._base], self.quality.answers[digest]
        own = self._metrics(entrant, confidence)
        return Contender(
            bundle=entrant.ref,
            plan=entrant.plan,
            techniques=entrant.bundle.manifest.techniques,
            metrics=own,
            trial=entrant.trial or 0,
            differences={metric: self._compared[digest, metric](confidence) for metric in self.quality.base[digest]},
            confidence=confidence,
            agreement=_agreement(alike(champion, candidate), self.rules.confidence),
            spread=spread(candidate) / max(spread(champion), _NO_SPREAD),
            sizes=self._sizes(digest),
            worst_size=self.quality.worst.get(digest),
            class_losses=losses(by_class(champion, candidate, self.rows)),
            ratios=self._ratios(digest, own[Metric.SIZE_BYTES].value),
            process_bytes=self.usage[digest].process_bytes if digest in self.usage else None,
        )

    def _ratios(self, digest: str, size: float) -> dict[Metric, Interval]:
        to_champion = partial(ratio, self.timings[self._base], self.timings[digest], confidence=self.rules.confidence)
        timed = {metric: to_champion(quantile) for metric, quantile in LATENCIES.items()}
        used = self._needed(self.usage[digest].ratios) if digest in self.usage else {}
        return self._widened({**timed, Metric.SIZE_BYTES: Interval.exact(size / self.standing.size_bytes), **used})

    def _sizes(self, digest: str) -> tuple[AtSize, ...]:
        """Return p95 by size of the requests, where they differ in size."""
        before, after = self.timings[self._base], self.timings[digest]
        return tuple(self._at(size, float(share), before, after) for size, share in before.mix if len(before.mix) > 1)

    def _at(self, size: int, share: float, before: Timings, after: Timings) -> AtSize:
        champion, candidate, confidence = before.of_size(size), after.of_size(size), self.rules.confidence
        return AtSize(
            size=size,
            share=share,
            champion=champion.percentile(0.95, confidence=confidence),
            candidate=candidate.percentile(0.95, confidence=confidence),
            ratio=ratio(champion, candidate, 0.95, confidence=confidence).widened(self.node.by_size.get(size, 1.0)),
        )

    def _widened(self, intervals: Mapping[Metric, Interval]) -> dict[Metric, Interval]:
        """Return the intervals, with those of times widened as the A/A check of this node requires."""
        factor = self.node.widening
        return {
            metric: interval.widened(factor) if metric in TIMED else interval for metric, interval in intervals.items()
        }


def _no_worse(metric: Metric) -> Objective:
    return Objective(metric=metric, goal=Goal(type=GoalType.MAX_DEGRADATION, value="0"))


def _agreement(likeness: Floats, confidence: float) -> Interval:
    """Return the mean of how alike two models answer (N,), with its interval: Wilson's if each row is 0 or 1."""
    if np.isin(likeness, (0.0, 1.0)).all():
        return wilson(int(likeness.sum()), len(likeness), confidence=confidence)
    return resampled(mean_of(likeness)).interval(confidence)
