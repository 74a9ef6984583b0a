"""Measure champion and finalists side by side: quality on the same rows, latency in the same rounds.

The only part of the judge that runs models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.judge.comparison import Comparison, Node
from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Evidence
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.robust.attack import method_for, withstood
from optimizer_jobs.measure.answers import Answers, UnfitAnswersError, answer_as
from optimizer_jobs.measure.custom import CustomMetricError
from optimizer_jobs.measure.latency import Effort, Timings, aa_check, interleave_until, ratio
from optimizer_jobs.measure.metrics.evaluation import Evaluation, mean_of
from optimizer_jobs.measure.quality import counted, evaluate, measured_metrics
from optimizer_jobs.measure.resources import Conditions, Served, Usage, measure_resources
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.runtime import EngineOptions, Session, limited, open_session
from retune.api.metrics import Metric
from retune.api.objectives import Objective
from retune.contract.results import Reason

Floats = NDArray[np.float64]

TWIN = "champion again"
"""Name of the champion that is opened a second time, for the A/A check."""
TOO_RESTLESS = 1.5
"""If a model's latency differs from itself by more than this factor, latency cannot be judged on the node."""
THOROUGH = Effort()
_GLANCE_WIDTH, _GLANCE_SECONDS = 0.05, 8.0
"""Precision and time of a latency measurement on which no objective depends."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The evidence, and what only the report needs. Mappings are by bundle digest."""

    evidence: Evidence
    rows: Rows
    """The N test rows."""
    answers: Mapping[str, Answers]
    delivered: Answers
    """Answers of the model as delivered."""
    engines: Mapping[str, EngineOptions]
    timings: Mapping[str, Timings]
    self_ratio: Interval
    """p95 latency of the champion divided by its own, measured as if it were two models."""
    attack: str | None
    """The attack that all models were put under for robust accuracy, if an objective needs it."""


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
    comparison = Comparison(champion, rows, answers, scored, timings, usage, rules, _node(first, twin, rules))
    return Measured(
        evidence=comparison.evidence(finalists),
        rows=rows,
        answers=answers,
        delivered=reference,
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


def _node(first: Timings, twin: Timings, rules: Rules) -> Node:
    """Return what the A/A check says; `first` and `twin` are timings of the champion measured as two models."""
    unrest = aa_check(first, twin, quantiles=_quantiles(rules), band=rules.band, confidence=rules.confidence)
    if unrest is None:
        return Node()
    if unrest.factor > TOO_RESTLESS:
        return Node(noise=unrest.words)
    return Node(doubt=unrest.words, widening=unrest.factor)


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
    batch = rules.serving.batch_size
    try:
        return answer_as(entrant.bundle.manifest, _session(entrant, rules), rows, batch=batch)
    except UnfitAnswersError as error:
        raise _unfit(entrant, error) from error


def _scores(
    entrant: Entrant, answers: Answers, *, reference: Answers, rows: Rows, rules: Rules, attack: str | None
) -> dict[Metric, Evaluation]:
    """Return the quality metrics of the objectives and of the task, those of the objectives first."""
    metrics = measured_metrics(entrant.bundle.manifest.task, rules.objectives, rules.yardstick)
    score = partial(evaluate, answers=answers, rows=rows, reference=reference, yardstick=rules.yardstick)
    try:
        scored = {metric: score(metric) for metric in metrics}
    except UnfitAnswersError as error:
        raise _unfit(entrant, error) from error
    if attack is not None:
        withstood_rows = mean_of(_withstood(entrant, rows, rules, attack), is_share=True)
        scored[Metric.ROBUST_ACCURACY] = counted(withstood_rows, rows)
    named = [objective.metric for objective in rules.objectives if objective.metric in scored]
    return {metric: scored[metric] for metric in dict.fromkeys([*named, *scored])}


def _unfit(entrant: Entrant, error: UnfitAnswersError) -> JobError:
    if isinstance(error, CustomMetricError):
        return error.refusal
    fix = "Give a model whose outputs fit spec.model.task and the objectives."
    return JobError(Reason.MODEL_INVALID, entrant.ref.uri, f"{error}.", fix)


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
        reading=entrant.bundle.manifest.signature.reading,
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
