"""Which of the finalists that passed replaces the champion, if any: lexicographic, deterministic, explainable.

The champion stays whenever it is not beaten: a tie never changes what serves. The same evidence gives the same choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.judge.evidence import TIMED, Contender, Evidence, gain
from optimizer_jobs.study.objectives import ranked
from retune.api.objectives import Metric, Objective


@dataclass(frozen=True, kw_only=True)
class Duel:
    """How one finalist fares against the champion."""

    contender: Contender
    decided_by: Metric | None
    """The first objective on which one is better than the other; None is a tie."""
    wins: bool
    gains: tuple[Metric, ...]
    """Every objective on which the finalist gains enough."""


def duel(contender: Contender, evidence: Evidence, *, objectives: Sequence[Objective], min_gain: float) -> Duel:
    """Compare a finalist with the champion, objective by objective.

    It wins by the first objective whose gain reaches what is asked for with the pessimistic end, and loses by the first
    on which it is worse beyond the tolerance with the optimistic end. Between the two, the next objective decides.
    """
    judged = _judged(objectives, evidence)
    gains = {objective.metric: gain(objective.metric, contender, evidence.champion) for objective in judged}
    asked = {objective.metric: gain_asked(objective, min_gain) for objective in judged}
    enough = tuple(metric for metric, found in gains.items() if found.low >= asked[metric] and found.low > 0)
    for objective in judged:
        if objective.metric in enough:
            return Duel(contender=contender, decided_by=objective.metric, wins=True, gains=enough)
        if gains[objective.metric].high < -float(objective.tolerance):
            return Duel(contender=contender, decided_by=objective.metric, wins=False, gains=enough)
    return Duel(contender=contender, decided_by=None, wins=False, gains=enough)


def gain_asked(objective: Objective, min_gain: float) -> float:
    """Return the relative gain on an objective that is worth replacing the champion for: its own, else the general."""
    return min_gain if objective.min_gain is None else float(objective.min_gain)


def best(contenders: Sequence[Contender], evidence: Evidence, *, objectives: Sequence[Objective]) -> Contender:
    """Return the best of at least one finalist.

    Objective by objective, those within tolerance or noise of the best stay. Then: fewer techniques, smaller file,
    lower digest.
    """
    tied = list(contenders)
    for objective in _judged(objectives, evidence):
        tied = _near_best(tied, objective, evidence)
    return min(tied, key=lambda each: (len(each.techniques), each.size_bytes, each.bundle.digest))


def _judged(objectives: Sequence[Objective], evidence: Evidence) -> tuple[Objective, ...]:
    """Return the ranked objectives that this node can tell apart: latency is a tie where it is too noisy."""
    noisy = evidence.noise is not None
    return tuple(each for each in ranked(objectives) if not (noisy and each.metric in TIMED))


def _near_best(contenders: Sequence[Contender], objective: Objective, evidence: Evidence) -> list[Contender]:
    metric, tolerance = objective.metric, float(objective.tolerance)
    gains = [gain(metric, each, evidence.champion) for each in contenders]
    top = max(found.value for found in gains)
    edge = (1 + top) * (1 - tolerance) if metric.higher_is_better else 2 - (1 - top) * (1 + tolerance)
    return [each for each, found in zip(contenders, gains, strict=True) if 1 + found.high >= edge]
