"""Measure champion and finalists side by side: quality on the same rows, latency in the same rounds.

The only part of the judge that runs models. It opens the test split once and hands on nothing but numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.judge.evidence import LATENCIES, Contender, Evidence, Standing
from optimizer_jobs.judge.gate import limit_value
from optimizer_jobs.measure.latency import Effort, Timings, aa_check, interleave_until, ratio
from optimizer_jobs.measure.quality import NotAClassifierError, Predictions, agreement, correct, predict
from optimizer_jobs.measure.stats import Interval, holm_confidences, paired_difference, wilson
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.runtime import open_session
from retune.api.spec import GoalType, Metric, Objective
from retune.contract.requests import BundleRef
from retune.contract.results import Reason

BoolArray = NDArray[np.bool_]

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
    correct: Mapping[str, BoolArray]
    timings: Mapping[str, Timings]
    self_ratio: Interval
    """p95 of the champion divided by its own, measured as if it were two models."""


def gather(
    champion: Entrant, finalists: Sequence[Entrant], rows: Rows, *, rules: Rules, effort: Effort = THOROUGH
) -> Gathered:
    """Return the evidence for one verdict; raises JobError when a model does not answer like a classifier."""
    entrants = (champion, *finalists)
    answers = {each.bundle.digest: _answers(each, rows, threads=rules.threads) for each in entrants}
    right = {digest: correct(found, rows) for digest, found in answers.items()}
    timings = _race(entrants, rows, rules=rules, effort=effort)
    twin, first = timings[TWIN], timings[champion.bundle.digest]
    noise = aa_check(first, twin, quantiles=_quantiles(rules), band=rules.band, confidence=rules.confidence)
    standing = Standing(
        bundle=champion.ref,
        plan=champion.plan,
        techniques=champion.bundle.manifest.techniques,
        metrics=_metrics(
            champion, right[champion.bundle.digest], first, confidence=rules.confidence, for_accuracy=rules.confidence
        ),
    )
    comparison = _Comparison(standing, right, answers, timings, rules)
    evidence = Evidence(champion=standing, contenders=comparison.contenders(finalists), noise=noise)
    return Gathered(evidence=evidence, rows=rows, correct=right, timings=timings, self_ratio=ratio(first, twin, 0.95))


def _quantiles(rules: Rules) -> tuple[float, ...]:
    """Return the quantiles that objectives speak of; p95 when none does."""
    asked = {LATENCIES[each.metric] for each in rules.objectives if each.metric in LATENCIES}
    return tuple(sorted(asked)) or (0.95,)


def _answers(entrant: Entrant, rows: Rows, *, threads: int) -> Predictions:
    session = open_session(entrant.bundle, threads_limit=threads)
    try:
        return predict(session, rows, classes=entrant.bundle.manifest.classes or None)
    except NotAClassifierError as error:
        raise JobError(
            Reason.MODEL_INVALID, entrant.ref.uri, f"{error}.", "Give a classifier with one label or one score a class."
        ) from error


def _race(entrants: Sequence[Entrant], rows: Rows, *, rules: Rules, effort: Effort) -> dict[str, Timings]:
    """Time everyone, and the champion a second time under the name TWIN."""
    champion = entrants[0].bundle
    sessions = {each.bundle.digest: open_session(each.bundle, threads_limit=rules.threads) for each in entrants}
    sessions[TWIN] = open_session(champion, threads_limit=rules.threads)
    batch = sessions[TWIN].signature.batch or 1
    return interleave_until(
        sessions, rows, reference=champion.digest, quantiles=_quantiles(rules), confidence=rules.confidence,
        seed=rules.seed, batch=batch, effort=effort,
    )  # fmt: skip


def _metrics(
    entrant: Entrant, right: BoolArray, timings: Timings, *, confidence: float, for_accuracy: float
) -> dict[Metric, Interval]:
    """Return a model's own numbers; accuracy has a confidence of its own."""
    timed = {metric: timings.percentile(q, confidence=confidence) for metric, q in LATENCIES.items()}
    accuracy = wilson(int(right.sum()), len(right), confidence=for_accuracy)
    size = Interval.exact(entrant.bundle.manifest.size_bytes)
    return {Metric.ACCURACY: accuracy, **timed, Metric.SIZE_BYTES: size}


@dataclass(frozen=True)
class _Comparison:
    """Finalists against one champion."""

    champion: Standing
    right: Mapping[str, BoolArray]
    answers: Mapping[str, Predictions]
    timings: Mapping[str, Timings]
    rules: Rules

    def contenders(self, finalists: Sequence[Entrant]) -> tuple[Contender, ...]:
        confidences = self._confidences([each.bundle.digest for each in finalists])
        return tuple(self._contender(each, confidences[each.bundle.digest]) for each in finalists)

    def _confidences(self, digests: Sequence[str]) -> dict[str, float]:
        """Return the confidence of each finalist's accuracy intervals, by Holm over all of them."""
        goal = next((each for each in self.rules.objectives if each.metric is Metric.ACCURACY and each.goal), None)
        absolute = goal is not None and goal.goal is not None and goal.goal.type is GoalType.THRESHOLD
        base = self.champion.metrics[Metric.ACCURACY].value
        limit = 0.0 if goal is None else limit_value(goal, base) - (0.0 if absolute else base)
        ends = {digest: self._lower_end(digest, absolute=absolute) for digest in digests}
        return holm_confidences(ends, limit=limit, confidence=self.rules.confidence)

    def _lower_end(self, digest: str, *, absolute: bool) -> Callable[[float], float]:
        mine, theirs = self.right[digest], self.right[self.champion.bundle.digest]
        if absolute:
            return lambda confidence: wilson(int(mine.sum()), len(mine), confidence=confidence).low
        return lambda confidence: paired_difference(theirs, mine, confidence=confidence).low

    def _contender(self, entrant: Entrant, confidence: float) -> Contender:
        digest, base = entrant.bundle.digest, self.champion.bundle.digest
        usual = self.rules.confidence
        right, same = self.right[digest], agreement(self.answers[base], self.answers[digest])
        own = _metrics(entrant, right, self.timings[digest], confidence=usual, for_accuracy=confidence)
        return Contender(
            bundle=entrant.ref,
            plan=entrant.plan,
            techniques=entrant.bundle.manifest.techniques,
            metrics=own,
            trial=entrant.trial or 0,
            difference=paired_difference(self.right[base], right, confidence=confidence),
            confidence=confidence,
            agreement=wilson(int(same.sum()), len(same), confidence=usual),
            ratios=self._ratios(digest, own[Metric.SIZE_BYTES].value),
        )

    def _ratios(self, digest: str, size: float) -> dict[Metric, Interval]:
        base = self.timings[self.champion.bundle.digest]
        timed = {
            metric: ratio(base, self.timings[digest], q, confidence=self.rules.confidence)
            for metric, q in LATENCIES.items()
        }
        return {**timed, Metric.SIZE_BYTES: Interval.exact(size / self.champion.size_bytes)}
