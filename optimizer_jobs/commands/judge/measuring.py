"""Measure champion and finalists side by side: quality on the same rows, latency in the same rounds.

The only part of the judge that runs models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optimizer_jobs.commands.judge.comparison import Comparison, Node
from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Evidence
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.commands.judge.scoring import scored
from optimizer_jobs.commands.judge.served import Through, told_as_refusal
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers
from optimizer_jobs.measure.latency import Effort, Timings, aa_check, deviation, interleave_until, ratio
from optimizer_jobs.measure.mix import served_mix
from optimizer_jobs.measure.resources import Conditions, Served, Usage, measure_resources
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.runtime import EngineOptions, Session, limited, open_session
from retune.api.objectives import Objective

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
    served: Through | None = None,
) -> Measured:
    """Measure all models, and return the evidence for a verdict.

    Args:
        champion: The champion.
        finalists: The models that may replace it.
        rows: The test rows.
        original: The model as delivered, with which embeddings are compared.
        rules: The rules of the judgement.
        effort: How long to measure latency.
        served: All models as a server beside us serves them; None times them in this process.

    Raises:
        JobError: The outputs of a model do not fit its task, or the server does not answer or refuses a request.
    """
    entrants = (champion, *finalists)
    quality = scored(champion, finalists, rows, original=original, rules=rules)
    reference = champion.bundle.digest
    opened = served.sessions if served else None
    subjects = opened or {entrant.bundle.digest: session_of(entrant, rules) for entrant in entrants}
    twin = served.twin if served else session_of(champion, rules)
    with told_as_refusal(served):
        timings, node = raced(subjects, rows, twin=twin, reference=reference, rules=rules, effort=effort)
    usage = _usage(entrants, rows, rules=rules)
    comparison = Comparison(champion, rows, quality, timings, usage, rules, node)
    return Measured(
        evidence=comparison.evidence(finalists),
        rows=rows,
        answers=quality.answers,
        delivered=quality.delivered,
        timings=timings,
        engines={entrant.bundle.digest: engine_of(entrant, rules) for entrant in entrants},
        self_ratio=ratio(timings[reference], timings[TWIN], 0.95, confidence=rules.confidence),
        attack=quality.attack,
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
    sizes = [size for size, _ in first.mix] if len(first.mix) > 1 else []
    apart = {size: _apart(first.of_size(size), twin.of_size(size), rules) for size in sizes}
    if unrest is None:
        return Node(by_size=apart)
    if unrest.factor > TOO_RESTLESS:
        return Node(noise=unrest.words, by_size=apart)
    return Node(doubt=unrest.words, widening=unrest.factor, by_size=apart)


def _apart(first: Timings, twin: Timings, rules: Rules) -> float:
    """Return how far the champion's p95 is from itself in requests of one size, as a factor of at least 1."""
    return deviation(ratio(first, twin, 0.95, confidence=rules.confidence))


def engine_of(entrant: Entrant, rules: Rules) -> EngineOptions:
    """Return the options that an entrant is opened with, which are at most those of the server."""
    return limited(entrant.bundle.manifest.engine, rules.threads)


def _quantiles(rules: Rules) -> tuple[float, ...]:
    """Return the quantiles of the latency metrics in the objectives; p95 when there are none."""
    named = {LATENCIES[objective.metric] for objective in rules.objectives if objective.metric in LATENCIES}
    return tuple(sorted(named)) or (0.95,)


def session_of(entrant: Entrant, rules: Rules) -> Session:
    """Return an entrant's model, opened."""
    return open_session(entrant.bundle, threads_limit=rules.threads)


def raced(
    subjects: Mapping[str, Session], rows: Rows, *, twin: Session, reference: str, rules: Rules, effort: Effort
) -> tuple[dict[str, Timings], Node]:
    """Time open models in turns, one of them twice; return the times, and what these two say about the node.

    Args:
        subjects: The models by name.
        rows: Real inputs.
        twin: The reference, opened a second time. Its times are those of TWIN.
        reference: Name of the model that the others are compared with.
        rules: The rules of the judgement.
        effort: How long to measure.
    """
    timings = interleave_until(
        {**subjects, TWIN: twin},
        rows,
        reference=reference,
        quantiles=_quantiles(rules),
        confidence=rules.confidence,
        seed=rules.seed,
        mix=served_mix(rules.serving, subjects[reference].signature),
        effort=effort,
    )
    return timings, _node(timings[reference], timings[TWIN], rules)


def _usage(entrants: Sequence[Entrant], rows: Rows, *, rules: Rules) -> Mapping[str, Usage]:
    """Measure what resources all models use, if an objective or a memory limit of the server needs it."""
    if not rules.resources:
        return {}
    subjects = {entrant.bundle.digest: Served.of(entrant.bundle) for entrant in entrants}
    conditions = Conditions(
        mix=served_mix(rules.serving, entrants[0].bundle.manifest.signature),
        threads=rules.threads,
        serving=rules.serving,
        repeats=3,
        seed=rules.seed,
        confidence=rules.confidence,
    )
    return measure_resources(subjects, rows, reference=entrants[0].bundle.digest, conditions=conditions)
