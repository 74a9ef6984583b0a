"""Measure champion and finalists side by side: quality on the same rows, latency in the same rounds.

The only part of the judge that runs models. It opens the test split once and hands on nothing but numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.judge.evidence import LATENCIES, Contender, Evidence, Standing
from optimizer_jobs.judge.gate import limit_value
from optimizer_jobs.measure.bootstrap import mean_interval
from optimizer_jobs.measure.intervals import difference, own_interval
from optimizer_jobs.measure.latency import Effort, Timings, aa_check, interleave_until, ratio
from optimizer_jobs.measure.quality import MAIN, Answers, UnfitAnswersError, alike, answer, scores
from optimizer_jobs.measure.resources import RESOURCES, Served, Usage, measure_resources
from optimizer_jobs.measure.stats import Interval, holm_confidences, wilson
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import Session, open_session
from optimizer_jobs.search.objectives import limits
from retune.api.model import Task
from retune.api.objectives import GoalType, Metric, MetricKind, Objective
from retune.api.search import Serving
from retune.api.techniques import Adversarial
from retune.contract.requests import BundleRef
from retune.contract.results import Reason

Floats = NDArray[np.float64]

TWIN = "champion again"
"""The champion opened a second time, for the A/A check."""
NARROWEST_BAND = 0.03
WIDEST_BAND = 0.10
THOROUGH = Effort()


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


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The evidence, and what only the report needs. Mappings are by bundle digest."""

    evidence: Evidence
    rows: Rows
    scores: Mapping[str, Mapping[Metric, Floats]]
    """(N,) what each quality metric is the mean of."""
    timings: Mapping[str, Timings]
    self_ratio: Interval
    """p95 of the champion divided by its own, measured as if it were two models."""


def gather(
    champion: Entrant, finalists: Sequence[Entrant], rows: Rows, *, original: Entrant, rules: Rules,
    effort: Effort = THOROUGH,
) -> Gathered:  # fmt: skip
    """Return the evidence for one verdict; raises JobError when a model does not answer as its task asks."""
    entrants = (champion, *finalists)
    reference = _answers(original, rows, rules=rules)
    answers = {each.bundle.digest: _answers(each, rows, rules=rules) for each in entrants}
    scored = {each.bundle.digest: _scores(each, answers, reference, rows, rules=rules) for each in entrants}
    timings = _race(entrants, rows, rules=rules, effort=effort)
    usage = _usage(entrants, rows, rules=rules)
    twin, first = timings[TWIN], timings[champion.bundle.digest]
    noise = aa_check(first, twin, quantiles=_quantiles(rules), band=rules.band, confidence=rules.confidence)
    comparison = _Comparison(champion, answers, scored, timings, usage, rules)
    contenders = comparison.contenders(finalists)
    evidence = Evidence(champion=comparison.standing, contenders=contenders, noise=noise)
    return Gathered(evidence=evidence, rows=rows, scores=scored, timings=timings, self_ratio=ratio(first, twin, 0.95))


def _quantiles(rules: Rules) -> tuple[float, ...]:
    """Return the quantiles that objectives speak of; p95 when none does."""
    asked = {LATENCIES[each.metric] for each in rules.objectives if each.metric in LATENCIES}
    return tuple(sorted(asked)) or (0.95,)


def _session(entrant: Entrant, rules: Rules) -> Session:
    return open_session(entrant.bundle, threads_limit=rules.threads)


def _answers(entrant: Entrant, rows: Rows, *, rules: Rules) -> Answers:
    manifest = entrant.bundle.manifest
    try:
        return answer(_session(entrant, rules), rows, task=manifest.task, classes=manifest.classes or None)
    except UnfitAnswersError as error:
        raise JobError(
            Reason.MODEL_INVALID, entrant.ref.uri, f"{error}.", "Give a model whose outputs fit spec.model.task."
        ) from error


def _scores(
    entrant: Entrant, answers: Mapping[str, Answers], reference: Answers, rows: Rows, *, rules: Rules
) -> dict[Metric, Floats]:
    """Return the scores of every quality metric of the task, and under attack where an objective asks for it."""
    found = answers[entrant.bundle.digest]
    scored = {metric: scores(metric, found, rows, reference=reference) for metric in MAIN[entrant.bundle.manifest.task]}
    if any(each.metric is Metric.ROBUST_ACCURACY for each in rules.objectives):
        scored[Metric.ROBUST_ACCURACY] = _robust(entrant, rows, rules)
    return scored


def _robust(entrant: Entrant, rows: Rows, rules: Rules) -> Floats:
    from optimizer_jobs.robust.attack import attacked

    session, classes = _session(entrant, rules), entrant.bundle.manifest.classes
    changed = attacked(
        entrant.bundle.model, session, rows, settings=rules.attack, classes=classes, seed=rules.seed
    )  # fmt: skip
    return scores(
        Metric.ACCURACY, answer(session, changed.rows, task=Task.CLASSIFICATION, classes=classes or None), rows
    )


def _race(entrants: Sequence[Entrant], rows: Rows, *, rules: Rules, effort: Effort) -> dict[str, Timings]:
    """Time everyone, and the champion a second time under the name TWIN."""
    champion = entrants[0].bundle
    sessions = {each.bundle.digest: _session(each, rules) for each in entrants}
    sessions[TWIN] = _session(entrants[0], rules)
    batch = sessions[TWIN].signature.batch or min(rules.serving.batch_size, len(rows))
    return interleave_until(
        sessions, rows, reference=champion.digest, quantiles=_quantiles(rules), confidence=rules.confidence,
        seed=rules.seed, batch=batch, effort=effort,
    )  # fmt: skip


def _usage(entrants: Sequence[Entrant], rows: Rows, *, rules: Rules) -> Mapping[str, Usage]:
    """Return what resources everyone uses, if any objective or the serving memory asks."""
    asked = {each.metric for each in rules.objectives} & RESOURCES
    if not asked and rules.serving.memory is None:
        return {}
    subjects = {each.bundle.digest: Served.of(each.bundle) for each in entrants}
    return measure_resources(
        subjects, rows, reference=entrants[0].bundle.digest, batch=min(rules.serving.batch_size, len(rows)),
        threads=rules.threads, serving=rules.serving, repeats=3, seed=rules.seed, confidence=rules.confidence,
    )  # fmt: skip


@dataclass(frozen=True)
class _Comparison:
    """Finalists against one champion. Mappings are by bundle digest."""

    champion: Entrant
    answers: Mapping[str, Answers]
    scored: Mapping[str, Mapping[Metric, Floats]]
    timings: Mapping[str, Timings]
    usage: Mapping[str, Usage]
    rules: Rules

    @cached_property
    def standing(self) -> Standing:
        """The champion's own numbers."""
        return Standing(
            bundle=self.champion.ref, plan=self.champion.plan, techniques=self.champion.bundle.manifest.techniques,
            metrics=self._metrics(self.champion, self.rules.confidence),
        )  # fmt: skip

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
        quality = {
            metric: own_interval(metric, found, confidence=confidence) for metric, found in self.scored[digest].items()
        }
        timed = {m: self.timings[digest].percentile(q, confidence=self.rules.confidence) for m, q in LATENCIES.items()}
        used = self.usage[digest].metrics if digest in self.usage else {}
        size = Interval.exact(entrant.bundle.manifest.size_bytes)
        return {**quality, **timed, Metric.SIZE_BYTES: size, **used}

    def _confidences(self, digests: Sequence[str]) -> dict[str, float]:
        """Return the confidence of each finalist's quality intervals, by Holm over all of them for the first limit."""
        goal = next((each for each in limits(self.rules.objectives) if each.metric.kind is MetricKind.QUALITY), None)
        metric = self.standing.main if goal is None else goal.metric
        absolute = goal is not None and goal.goal is not None and goal.goal.type is GoalType.THRESHOLD
        base, sign = self.standing.metrics[metric].value, 1.0 if metric.higher_is_better else -1.0
        limit = 0.0 if goal is None else sign * (limit_value(goal, base) - (0.0 if absolute else base))
        ends = {digest: self._bad_end(metric, digest, absolute=absolute) for digest in digests}
        return holm_confidences(ends, limit=limit, confidence=self.rules.confidence)

    def _bad_end(self, metric: Metric, digest: str, *, absolute: bool) -> Callable[[float], float]:
        """Return the pessimistic end of a quality as a function of confidence, so turned that more is better."""

        def end(confidence: float) -> float:
            mine = self.scored[digest][metric]
            found = (
                own_interval(metric, mine, confidence=confidence) if absolute
                else difference(metric, self.scored[self._base][metric], mine, confidence=confidence).interval
            )  # fmt: skip
            return found.low if metric.higher_is_better else -found.high

        return end

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
            differences={
                metric: difference(metric, self.scored[self._base][metric], mine, confidence=confidence)
                for metric, mine in self.scored[digest].items()
            },
            confidence=confidence,
            agreement=_agreed(same, self.rules.confidence),
            ratios=self._ratios(digest, own[Metric.SIZE_BYTES].value),
        )

    def _ratios(self, digest: str, size: float) -> dict[Metric, Interval]:
        base = self.timings[self._base]
        timed = {
            metric: ratio(base, self.timings[digest], q, confidence=self.rules.confidence)
            for metric, q in LATENCIES.items()
        }
        used = self.usage[digest].ratios if digest in self.usage else {}
        return {**timed, Metric.SIZE_BYTES: Interval.exact(size / self.standing.size_bytes), **used}


def _agreed(same: Floats, confidence: float) -> Interval:
    whole = bool(np.isin(same, (0.0, 1.0)).all())
    if whole:
        return wilson(int(same.sum()), len(same), confidence=confidence)
    return mean_interval(same, confidence=confidence)
