"""Measure champion and finalists side by side: quality on the same rows, latency in the same rounds.

The only part of the judge that runs models. It opens the test split once and hands on nothing but numbers.
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
"""The champion opened a second time, for the A/A check."""
NARROWEST_BAND = 0.03
WIDEST_BAND = 0.10
TOO_RESTLESS = 1.5
"""A node where a model may be this far from itself, as a factor, tells nothing of latency."""
THOROUGH = Effort()
_GLANCE_WIDTH, _GLANCE_SECONDS = 0.05, 8.0
"""How closely, and for how long, latency is measured that nothing is decided by."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A verified bundle that takes part, with where it lies and where it came from."""

    bundle: Bundle
    ref: BundleRef
    plan: str
    trial: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the numbers are judged by."""

    objectives: tuple[Objective, ...]
    confidence: float
    min_gain: float
    threads: int
    """Threads the serving container may use."""
    serving: Serving = field(default_factory=Serving)
    attack: Adversarial = field(default_factory=Adversarial)
    """What robust accuracy is measured against."""
    seed: int

    @property
    def band(self) -> float:
        """How far a model may differ from itself: noise must stay below the smallest gain that would be acted upon."""
        return min(max(self.min_gain, NARROWEST_BAND), WIDEST_BAND)

    @property
    def memory(self) -> int | None:
        """Bytes that a process with the model must get along with."""
        return int(memory_bytes(self.serving.memory)) if self.serving.memory else None

    @property
    def resources(self) -> frozenset[Metric]:
        """The resources that an objective asks for, and memory where it is limited."""
        asked = {each.metric for each in self.objectives} & RESOURCES
        return frozenset(asked | ({Metric.PEAK_MEMORY_BYTES} if self.memory is not None else set()))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The evidence, and what only the report needs. Mappings are by bundle digest."""

    evidence: Evidence
    rows: Rows
    answers: Mapping[str, Answers]
    scores: Mapping[str, Mapping[Metric, Floats]]
    """(N,) what each quality metric is the mean of."""
    engines: Mapping[str, EngineOptions]
    timings: Mapping[str, Timings]
    self_ratio: Interval
    """p95 of the champion divided by its own, measured as if it were two models."""
    attack: str | None
    """How robust accuracy was measured, the same for everyone, if an objective asks for it."""


def measure(
    champion: Entrant,
    finalists: Sequence[Entrant],
    rows: Rows,
    *,
    original: Entrant,
    rules: Rules,
    effort: Effort = THOROUGH,
) -> Measured:
    """Return the evidence for one verdict; raises JobError when a model does not answer as its task asks."""
    entrants = (champion, *finalists)
    reference = _answers(original, rows, rules=rules)
    answers = {each.bundle.digest: _answers(each, rows, rules=rules) for each in entrants}
    attack = _attack(entrants, rules)
    scored = {
        each.bundle.digest: _scores(each, answers, reference, rows, rules=rules, attack=attack) for each in entrants
    }
    timings = _race(entrants, rows, rules=rules, effort=effort)
    usage = _usage(entrants, rows, rules=rules)
    twin, first = timings[TWIN], timings[champion.bundle.digest]
    unrest = aa_check(first, twin, quantiles=_quantiles(rules), band=rules.band, confidence=rules.confidence)
    useless = unrest is not None and unrest.factor > TOO_RESTLESS
    doubt = unrest if not useless else None
    comparison = _Comparison(champion, answers, scored, timings, usage, rules, doubt.factor if doubt else 1.0)
    contenders = comparison.contenders(finalists)
    evidence = Evidence(
        champion=comparison.standing,
        contenders=contenders,
        memory=rules.memory,
        noise=unrest.words if unrest and useless else None,
        doubt=doubt.words if doubt else None,
    )
    return Measured(
        evidence=evidence,
        rows=rows,
        answers=answers,
        scores=scored,
        timings=timings,
        engines={each.bundle.digest: limited(each.bundle.manifest.engine, rules.threads) for each in entrants},
        self_ratio=ratio(first, twin, 0.95, confidence=rules.confidence),
        attack=attack,
    )


def fitting(effort: Effort, objectives: Sequence[Objective], *, compared: bool) -> Effort:
    """Return how long to measure latency: as asked where it decides, and else no longer than it takes to tell it."""
    if not compared:
        return replace(effort, max_rounds=effort.min_rounds)
    if any(each.metric in TIMED for each in objectives):
        return effort
    width, seconds = max(effort.half_width, _GLANCE_WIDTH), min(effort.max_seconds, _GLANCE_SECONDS)
    return replace(effort, half_width=width, max_seconds=seconds)


def _quantiles(rules: Rules) -> tuple[float, ...]:
    """Return the quantiles that objectives speak of; p95 when none does."""
    asked = {LATENCIES[each.metric] for each in rules.objectives if each.metric in LATENCIES}
    return tuple(sorted(asked)) or (0.95,)


def _session(entrant: Entrant, rules: Rules) -> Session:
    return open_session(entrant.bundle, threads_limit=rules.threads)


def _answers(entrant: Entrant, rows: Rows, *, rules: Rules) -> Answers:
    """Return the answers in requests of the size that is served: dynamic int8 answers depend on it."""
    manifest, batch = entrant.bundle.manifest, rules.serving.batch_size
    try:
        return answer(_session(entrant, rules), rows, task=manifest.task, classes=manifest.classes or None, batch=batch)
    except UnfitAnswersError as error:
        raise JobError(
            Reason.MODEL_INVALID, entrant.ref.uri, f"{error}.", "Give a model whose outputs fit spec.model.task."
        ) from error


def _scores(
    entrant: Entrant,
    answers: Mapping[str, Answers],
    reference: Answers,
    rows: Rows,
    *,
    rules: Rules,
    attack: str | None,
) -> dict[Metric, Floats]:
    """Return the scores of every quality metric of the task, those that objectives speak of first."""
    found = answers[entrant.bundle.digest]
    scored = {metric: scores(metric, found, rows, reference=reference) for metric in MAIN[entrant.bundle.manifest.task]}
    if attack is not None:
        scored[Metric.ROBUST_ACCURACY] = _withstood(entrant, rows, rules, attack)
    asked = [each.metric for each in rules.objectives if each.metric in scored]
    return {metric: scored[metric] for metric in dict.fromkeys([*asked, *scored])}


def _attack(entrants: Sequence[Entrant], rules: Rules) -> str | None:
    """Return the attack that everyone is put to, if an objective asks for robust accuracy."""
    if not any(each.metric is Metric.ROBUST_ACCURACY for each in rules.objectives):
        return None
    return method_for(each.bundle.model for each in entrants)


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
    """Time everyone, and the champion a second time under the name TWIN."""
    champion = entrants[0].bundle
    sessions = {each.bundle.digest: _session(each, rules) for each in entrants}
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
    """Return what resources everyone uses, if any objective or the serving memory asks."""
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
    """Finalists against one champion. Mappings are by bundle digest."""

    champion: Entrant
    answers: Mapping[str, Answers]
    scored: Mapping[str, Mapping[Metric, Floats]]
    timings: Mapping[str, Timings]
    usage: Mapping[str, Usage]
    rules: Rules
    doubt: float
    """How far a model may be from itself on this node: what intervals of times are widened by."""

    @cached_property
    def standing(self) -> Standing:
        """The champion's own numbers."""
        return Standing(
            bundle=self.champion.ref,
            plan=self.champion.plan,
            techniques=self.champion.bundle.manifest.techniques,
            metrics=self._metrics(self.champion, self.rules.confidence),
        )

    def contenders(self, finalists: Sequence[Entrant]) -> tuple[Contender, ...]:
        """Return the finalists with their numbers, each compared with the champion."""
        confidences = self._confidences([each.bundle.digest for each in finalists])
        return tuple(self._contender(each, confidences[each.bundle.digest]) for each in finalists)

    @property
    def _base(self) -> str:
        return self.champion.bundle.digest

    def _metrics(self, entrant: Entrant, confidence: float) -> dict[Metric, Interval]:
        """Return a model's own numbers; quality has a confidence of its own."""
        digest = entrant.bundle.digest
        quality = {metric: self._own[digest, metric](confidence) for metric in self.scored[digest]}
        timed = {m: self.timings[digest].percentile(q, confidence=self.rules.confidence) for m, q in LATENCIES.items()}
        used = self._asked_for(self.usage[digest].metrics) if digest in self.usage else {}
        size = Interval.exact(entrant.bundle.manifest.size_bytes)
        return {**quality, **self._doubted({**timed, Metric.SIZE_BYTES: size, **used})}

    def _confidences(self, digests: Sequence[str]) -> dict[str, float]:
        """Return the confidence of each finalist's quality intervals, by Holm over all of them.

        A finalist passes a step when it keeps every limit on quality; without any, when it is not worse.
        """
        goals = [each for each in limits(self.rules.objectives) if each.metric.kind is MetricKind.QUALITY]
        slack = {digest: partial(self._slack, goals or [_no_worse(self.standing.main)], digest) for digest in digests}
        return holm_confidences(slack, limit=0.0, confidence=self.rules.confidence)

    def _slack(self, goals: Sequence[Objective], digest: str, confidence: float) -> float:
        """Return how far a finalist keeps the limit that it keeps least, by the bad ends of its intervals."""
        return min(-shortfall(goal, self._worst(goal, digest, confidence), self._figure(goal.metric)) for goal in goals)

    def _worst(self, goal: Objective, digest: str, confidence: float) -> float:
        """Return the number that a goal is judged by: of the finalist's own interval where it is absolute."""
        metric = goal.metric
        if goal.goal is not None and goal.goal.type is GoalType.THRESHOLD:
            own = self._own[digest, metric](confidence)
            return own.low if metric.higher_is_better else own.high
        found = self._compared[digest, metric](confidence)
        return self._figure(metric) + (found.low if metric.higher_is_better else found.high)

    def _figure(self, metric: Metric) -> float:
        return self.standing.metrics[metric].value

    def _asked_for(self, used: Mapping[Metric, Interval]) -> dict[Metric, Interval]:
        return {metric: used[metric] for metric in Metric if metric in self.rules.resources}

    @cached_property
    def _own(self) -> Mapping[tuple[str, Metric], OwnInterval]:
        """Own intervals by digest and metric."""
        return {
            (digest, metric): own_interval(metric, found)
            for digest, scored in self.scored.items()
            for metric, found in scored.items()
        }

    @cached_property
    def _compared(self) -> Mapping[tuple[str, Metric], Difference]:
        """Differences to the champion by digest and metric."""
        return {
            (digest, metric): difference(metric, self.scored[self._base][metric], found)
            for digest, scored in self.scored.items()
            for metric, found in scored.items()
            if digest != self._base
        }

    def _contender(self, entrant: Entrant, confidence: float) -> Contender:
        digest = entrant.bundle.digest
        same = alike(self.answers[self._base], self.answers[digest])
        own = self._metrics(entrant, confidence)
        return Contender(
            bundle=entrant.ref,
            plan=entrant.plan,
            techniques=entrant.bundle.manifest.techniques,
            metrics=own,
            trial=entrant.trial or 0,
            differences={metric: self._compared[digest, metric](confidence) for metric in self.scored[digest]},
            confidence=confidence,
            agreement=_agreed(same, self.rules.confidence),
            ratios=self._ratios(digest, own[Metric.SIZE_BYTES].value),
            process_bytes=self.usage[digest].process_bytes if digest in self.usage else None,
        )

    def _ratios(self, digest: str, size: float) -> dict[Metric, Interval]:
        base = self.timings[self._base]
        timed = {
            metric: ratio(base, self.timings[digest], q, confidence=self.rules.confidence)
            for metric, q in LATENCIES.items()
        }
        used = self._asked_for(self.usage[digest].ratios) if digest in self.usage else {}
        return self._doubted({**timed, Metric.SIZE_BYTES: Interval.exact(size / self.standing.size_bytes), **used})

    def _doubted(self, found: Mapping[Metric, Interval]) -> dict[Metric, Interval]:
        """Return numbers with the intervals of times as wide as this node's unrest makes them."""
        return {
            metric: interval.widened(self.doubt) if metric in TIMED else interval for metric, interval in found.items()
        }


def _no_worse(metric: Metric) -> Objective:
    return Objective(metric=metric, goal=Goal(type=GoalType.MAX_DEGRADATION, value="0"))


def _agreed(same: Floats, confidence: float) -> Interval:
    whole = bool(np.isin(same, (0.0, 1.0)).all())
    if whole:
        return wilson(int(same.sum()), len(same), confidence=confidence)
    return resampled(same).interval(confidence)
