"""What a winner is worth in requests, or why that cannot be said: only where its times are those of a server.

It shapes no verdict. When in doubt, nothing is said: a number of servers that is too low hurts whoever believes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.evidence import Evidence
from optimizer_jobs.commands.judge.rules import Rules
from optimizer_jobs.commands.judge.verdict import Decision
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.capacity import LEAST_ROUNDS, Capacity, capacity
from optimizer_jobs.measure.latency import Timings
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.engine import EngineOptions
from retune.api.metrics import Metric
from retune.api.objectives import GoalType
from retune.api.worth import LimitOf
from retune.contract.results import JudgeResult, Verdict
from retune.contract.worth import JudgedWorth, Span

_WORDS_LIMIT = 300


@dataclass(frozen=True)
class Appraisal:
    """What a winner is worth."""

    worth: JudgedWorth | None
    words: str
    """Within which limit of time, or why nothing can be said; without a full stop."""

    def added_to(self, result: JudgeResult) -> JudgeResult:
        """Return the judge's result with what is said of the worth."""
        unknown = None if self.worth else printable(self.words, limit=_WORDS_LIMIT)
        return result.model_copy(update={"worth": self.worth, "worth_unknown": unknown})


def appraise(
    decision: Decision,
    evidence: Evidence,
    *,
    timings: Mapping[str, Timings],
    engines: Mapping[str, EngineOptions],
    rules: Rules,
) -> Appraisal | None:
    """Return what the winner is worth; None where nothing is promoted.

    Args:
        decision: The verdict.
        evidence: What it was based on.
        timings: Times of all models in the same rounds, by digest.
        engines: How they ran, by digest.
        rules: The rules of the judgement.
    """
    if decision.verdict is not Verdict.PROMOTE or decision.subject is None:
        return None
    before, after = evidence.champion.bundle.digest, decision.subject.contender.bundle.digest
    doubt = _doubt_of_node(evidence, rules, timings[before]) or _doubt_of_engines(
        engines[before], engines[after], rules
    )
    if doubt is not None:
        return Appraisal(None, doubt)
    asked, confidence = _asked_ms(rules), rules.confidence
    answered = capacity(timings[before], timings[after], asked_ms=asked, confidence=confidence, seed=rules.seed)
    return Appraisal(_as_result(answered.widened(evidence.widening), rules.threads), _limit_in_words(answered, asked))


def _doubt_of_node(evidence: Evidence, rules: Rules, champion: Timings) -> str | None:
    """Return why times that were measured on this node say nothing of a server, or None."""
    rounds = len(champion.blocks)
    if evidence.noise is not None:
        return f"latency cannot be judged on this node: {evidence.noise}"
    if rounds < LEAST_ROUNDS:
        return f"calls were timed in {rounds} rounds only, and {LEAST_ROUNDS} are needed"
    return rules.cpu_doubt


def _doubt_of_engines(champion: EngineOptions, winner: EngineOptions, rules: Rules) -> str | None:
    """Return why one request after the other is no fair comparison, or None.

    Where the winner needs fewer threads, its server may answer more than is said; that deceives nobody.
    """
    before, after = (rules.threads // options.threads for options in (champion, winner))
    if before <= after:
        return None
    return (
        f"with {rules.threads} threads a server may answer {before} requests at a time with the champion and {after} "
        "with the winner, and calls that were timed one after the other do not show which are more"
    )


def _asked_ms(rules: Rules) -> float | None:
    """Return the owner's own limit for the 95th percentile of latency, in milliseconds."""
    goals = (objective.goal for objective in rules.objectives if objective.metric is Metric.LATENCY_P95_MS)
    return next((float(goal.value) for goal in goals if goal and goal.type is GoalType.THRESHOLD), None)


def _limit_in_words(answered: Capacity, asked: float | None) -> str:
    limit = words.milliseconds(answered.limit_ms)
    if answered.is_asked:
        return f"95 % of the requests wait and are answered within {limit}, the limit of the objectives"
    missed = f"; it hardly keeps the limit of {words.milliseconds(asked)} of the objectives" if asked else ""
    return f"95 % of the requests wait and are answered within {limit}, as by the champion while half busy{missed}"


def _as_result(answered: Capacity, threads: int) -> JudgedWorth:
    return JudgedWorth(
        limit_ms=_short(answered.limit_ms),
        limit_of=LimitOf.OBJECTIVE if answered.is_asked else LimitOf.CHAMPION,
        threads=threads,
        before=_span(answered.champion),
        after=_span(answered.candidate),
        ratio=_span(answered.ratio),
    )


def _span(interval: Interval) -> Span:
    return Span(value=_short(interval.value), low=_short(interval.low), high=_short(interval.high))


def _short(number: float) -> float:
    """Return a number with four significant digits: a termination message is short."""
    return float(f"{number:.4g}")
