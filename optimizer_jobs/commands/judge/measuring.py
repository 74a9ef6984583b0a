"""Measure champion and finalists side by side: quality on the same rows, latency in the same rounds.

The only part of the judge that runs models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Contender, Evidence, Standing
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.robust.attack import method_for, withstood
from optimizer_jobs.measure.bootstrap import resampled
from optimizer_jobs.measure.intervals import Difference, OwnInterval, difference, own_interval
from optimizer_jobs.measure.latency import Effort, Timings, aa_check, interleave_until, ratio
from optimizer_jobs.measure.quality import MAIN, Answers, UnfitAnswersError, alike, answer, scores
from optimizer_jobs.measure.resources import RESOURCES, Conditions, Served, Usage, measure_resources
from optimizer_jobs.measure.stats import Interval, holm_confidences, wilson
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import EngineOptions, Session, limited, open_session
from optimizer_jobs.study.objectives import limits, shortfall
from retune.api.objectives import Goal, GoalType, Metric, MetricKind, Objective
from retune.api.quantities import memory_bytes
from retune.api.search import Serving
from retune.api.techniques import Adversarial
from retune.contract.requests import BundleRef
from retune.contract.results import Reason

Floats = NDArray[np.float64]

TWIN = "champion again"
"""Name of the champion that is opened a second time, for the A/A check."""
NARROWEST_BAND = 0.03
WIDEST_BAND = 0.10
TOO_RESTLESS = 1.5
"""If a model's latency differs from itself by more than this factor, latency cannot be judged on the node."""
THOROUGH = Effort()
_GLANCE_WIDTH, _GLANCE_SECONDS = 0.05, 8.0
"""Precision and time of a latency measurement on which no objective depends."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A verified bundle that takes part in the comparison."""

    bundle: Bundle
    ref: BundleRef
    plan: str
    """What was done to the model and how it is run, in words."""
    trial: int | None = None
    """Number of the trial that made it; None for the champion and the model as delivered."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of the judgement."""

    objectives: tuple[Objective, ...]
    confidence: float
    """Confidence of the intervals, 0..1."""
    min_gain: float
    """Smallest relative gain that is worth replacing the champion."""
    threads: int
    """Threads that the serving container may use."""
    serving: Serving = field(default_factory=Serving)
    attack: Adversarial = field(default_factory=Adversarial)
    """The attack under which robust accuracy is measured."""
    seed: int

    @property
    def band(self) -> float:
        """Largest relative difference of a model's latency from itself; it follows the smallest gain that counts."""
        return min(max(self.min_gain, NARROWEST_BAND), WIDEST_BAND)

    @property
    def memory(self) -> int | None:
        """Most bytes for a process with the model; None without a limit."""
        return int(memory_bytes(self.serving.memory)) if self.serving.memory else None

    @property
    def resources(self) -> frozenset[Metric]:
        """The resources that an objective needs, and memory if it is limited."""
        needed = {objective.metric for objective in self.objectives} & RESOURCES
        return frozenset(needed | ({Metric.PEAK_MEMORY_BYTES} if self.memory is not None else set()))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The evidence, and what only the report needs. Mappings are by bundle digest."""

    evidence: Evidence
    rows: Rows
    """The N test rows."""
    answers: Mapping[str, Answers]
    scores: Mapping[str, Mapping[Metric, Floats]]
    """Scores (N,) by quality metric."""
    engines: Mapping[str, EngineOptions]
    timings: Mapping[str, Timings]
    self_ratio: Interval
    """p95 latency of the champion divided by its own, measured as if it were two models."""
    attack: str | None
    """The attack that all models were put under for robust accuracy, if an objective needs it."""


@dataclass(frozen=True)
class _Node:
    """What the A/A check says about latency on this node."""

    noise: str | None = None
    """Why latency cannot be judged; None when it can."""
    doubt: str | None = None
    """Why intervals of latency are widened; None when they are not."""
    widening: float = 1.0
    """Factor by which intervals of latency are widened."""


def measure(
    champion: Entrant,
    finalists: Sequence[Entrant],
    rows: Rows,
    *,
    original: Entrant,
    rules: Rules,
    effort: Effort = THOROUGH,
) -> Measured:
    """Measure all models, and return the evidence for a verdict.

    Args:
        champion: The champion.
        finalists: The models that may replace it.
        rows: The test rows.
        original: The model as delivered, with which embeddings are compared.
        rules: The rules of the judgement.
        effort: How long to measure latency.

    Raises:
        JobError: The outputs of a model do not fit its task.
    """
    entrants = (champion, *finalists)
    reference = _answers(original, rows, rules=rules)
    answers = {entrant.bundle.digest: _answers(entrant, rows, rules=rules) for entrant in entrants}
    attack = _attack(entrants, rules)
    score = partial(_scores, reference=reference, rows=rows, rules=rules, attack=attack)
    scored = {entrant.bundle.digest: score(entrant, answers[entrant.bundle.digest]) for entrant in entrants}
    timings = _race(entrants, rows, rules=rules, effort=effort)
    usage = _usage(entrants, rows, rules=rules)
    first, twin = timings[champion.bundle.digest], timings[TWIN]
    comparison = _Comparison(champion, answers, scored, timings, usage, rules, _node(first, twin, rules))
    return Measured(
        evidence=comparison.evidence(finalists),
        rows=rows,
        answers=answers,
        scores=scored,
        timings=timings,
        engines={entrant.bundle.digest: _engine(entrant, rules) for entrant in entrants},
        self_ratio=ratio(first, twin, 0.95, confidence=rules.confidence),
        attack=attack,
    )


def fitting(effort: Effort, objectives: Sequence[Objective], *, compared: bool) -> Effort:
    """Return how long to measure latency: the full effort only if an objective depends on it.

    Args:
        effort: The full effort.
        objectives: Objectives of the spec.
        compared: Whether there is any finalist to compare the champion with.
    """
    if not compared:
        return replace(effort, max_rounds=effort.min_rounds)
    if any(objective.metric in TIMED for objective in objectives):
        return effort
    width, seconds = max(effort.half_width, _GLANCE_WIDTH), min(effort.max_seconds, _GLANCE_SECONDS)
    return replace(effort, half_width=width, max_seconds=seconds)


def _node(first: Timings, twin: Timings, rules: Rules) -> _Node:
    """Return what the A/A check says; `first` and `twin` are timings of the champion measured as two models."""
    unrest = aa_check(first, twin, quantiles=_quantiles(rules), band=rules.band, confidence=rules.confidence)
    if unrest is None:
        return _Node()
    if unrest.factor > TOO_RESTLESS:
        return _Node(noise=unrest.words)
    return _Node(doubt=unrest.words, widening=unrest.factor)


def _engine(entrant: Entrant, rules: Rules) -> EngineOptions:
    return limited(entrant.bundle.manifest.engine, rules.threads)


def _quantiles(rules: Rules) -> tuple[float, ...]:
    """Return the quantiles of the latency metrics in the objectives; p95 when there are none."""
    named = {LATENCIES[objective.metric] for objective in rules.objectives if objective.metric in LATENCIES}
    return tuple(sorted(named)) or (0.95,)


def _session(entrant: Entrant, rules: Rules) -> Session:
    return open_session(entrant.bundle, threads_limit=rules.threads)


def _answers(entrant: Entrant, rows: Rows, *, rules: Rules) -> Answers:
    """Return the answers to requests of the served batch size, on which the answers of dynamic int8 models depend."""
    manifest, batch = entrant.bundle.manifest, rules.serving.batch_size
    try:
        return answer(_session(entrant, rules), rows, task=manifest.task, classes=manifest.classes or None, batch=batch)
    except UnfitAnswersError as error:
        raise JobError(
            Reason.MODEL_INVALID, entrant.ref.uri, f"{error}.", "Give a model whose outputs fit spec.model.task."
        ) from error


def _scores(
    entrant: Entrant, answers: Answers, *, reference: Answers, rows: Rows, rules: Rules, attack: str | None
) -> dict[Metric, Floats]:
    """Return scores (N,) by quality metric of the task, the metrics of the objectives first."""
    metrics = MAIN[entrant.bundle.manifest.task]
    scored = {metric: scores(metric, answers, rows, reference=reference) for metric in metrics}
    if attack is not None:
        scored[Metric.ROBUST_ACCURACY] = _withstood(entrant, rows, rules, attack)
    named = [objective.metric for objective in rules.objectives if objective.metric in scored]
    return {metric: scored[metric] for metric in dict.fromkeys([*named, *scored])}


def _attack(entrants: Sequence[Entrant], rules: Rules) -> str | None:
    """Return the attack that all models are put under, if an objective needs robust accuracy."""
    if not any(objective.metric is Metric.ROBUST_ACCURACY for objective in rules.objectives):
        return None
    return method_for(entrant.bundle.model for entrant in entrants)


def _withstood(entrant: Entrant, rows: Rows, rules: Rules, attack: str) -> Floats:
    return withstood(
        entrant.bundle.model,
        _session(entrant, rules),
        rows,
        method=attack,
        settings=rules.attack,
        classes=entrant.bundle.manifest.classes,
        seed=rules.seed,
        batch=rules.serving.batch_size,
    )


def _race(entrants: Sequence[Entrant], rows: Rows, *, rules: Rules, effort: Effort) -> dict[str, Timings]:
    """Time all models, and the champion a second time under the name TWIN."""
    champion = entrants[0].bundle
    sessions = {entrant.bundle.digest: _session(entrant, rules) for entrant in entrants}
    sessions[TWIN] = _session(entrants[0], rules)
    batch = sessions[TWIN].signature.batch or min(rules.serving.batch_size, len(rows))
    return interleave_until(
        sessions,
        rows,
        reference=champion.digest,
        quantiles=_quantiles(rules),
        confidence=rules.confidence,
        seed=rules.seed,
        batch=batch,
        effort=effort,
    )


def _usage(entrants: Sequence[Entrant], rows: Rows, *, rules: Rules) -> Mapping[str, Usage]:
    """Measure what resources all models use, if an objective or a memory limit of the server needs it."""
    if not rules.resources:
        return {}
    subjects = {entrant.bundle.digest: Served.of(entrant.bundle) for entrant in entrants}
    conditions = Conditions(
        batch=min(rules.serving.batch_size, len(rows)),
        threads=rules.threads,
        serving=rules.serving,
        repeats=3,
        seed=rules.seed,
        confidence=rules.confidence,
    )
    return measure_resources(subjects, rows, reference=entrants[0].bundle.digest, conditions=conditions)


@dataclass(frozen=True)
class _Comparison:
    """Compares finalists with the champion. Mappings are by bundle digest."""

    champion: Entrant
    answers: Mapping[str, Answers]
    scored: Mapping[str, Mapping[Metric, Floats]]
    timings: Mapping[str, Timings]
    usage: Mapping[str, Usage]
    rules: Rules
    node: _Node

    def evidence(self, finalists: Sequence[Entrant]) -> Evidence:
        """Return the evidence for a verdict on the finalists."""
        return Evidence(
            champion=self.standing,
            contenders=self.contenders(finalists),
            memory=self.rules.memory,
            noise=self.node.noise,
            doubt=self.node.doubt,
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
        quality = {metric: self._own[digest, metric](confidence) for metric in self.scored[digest]}
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
            (digest, metric): own_interval(metric, scores_)
            for digest, scored in self.scored.items()
            for metric, scores_ in scored.items()
        }

    @cached_property
    def _compared(self) -> Mapping[tuple[str, Metric], Difference]:
        """Differences to the champion by digest and metric."""
        champion = self.scored[self._base]
        return {
            (digest, metric): difference(metric, champion[metric], scores_)
            for digest, scored in self.scored.items()
            for metric, scores_ in scored.items()
            if digest != self._base
        }

    def _contender(self, entrant: Entrant, confidence: float) -> Contender:
        digest = entrant.bundle.digest
        likeness = alike(self.answers[self._base], self.answers[digest])
        own = self._metrics(entrant, confidence)
        return Contender(
            bundle=entrant.ref,
            plan=entrant.plan,
            techniques=entrant.bundle.manifest.techniques,
            metrics=own,
            trial=entrant.trial or 0,
            differences={metric: self._compared[digest, metric](confidence) for metric in self.scored[digest]},
            confidence=confidence,
            agreement=_agreement(likeness, self.rules.confidence),
            ratios=self._ratios(digest, own[Metric.SIZE_BYTES].value),
            process_bytes=self.usage[digest].process_bytes if digest in self.usage else None,
        )

    def _ratios(self, digest: str, size: float) -> dict[Metric, Interval]:
        to_champion = partial(ratio, self.timings[self._base], self.timings[digest], confidence=self.rules.confidence)
        timed = {metric: to_champion(quantile) for metric, quantile in LATENCIES.items()}
        used = self._needed(self.usage[digest].ratios) if digest in self.usage else {}
        return self._widened({**timed, Metric.SIZE_BYTES: Interval.exact(size / self.standing.size_bytes), **used})

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
    return resampled(likeness).interval(confidence)
