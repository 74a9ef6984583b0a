"""Which finalist that passed all limits replaces the champion, if any. Objectives are compared one after the other.

The champion stays unless it is beaten; a tie never changes what serves. The same evidence always gives the same choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.judge.evidence import TIMED, Contender, Evidence, gain
from optimizer_jobs.study.objectives import ranked
from retune.api.metrics import Metric
from retune.api.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Duel:
    """The comparison of one finalist with the champion."""

    contender: Contender
    decided_by: Metric | None
    """The first objective on which one is better than the other; None is a tie."""
    wins: bool
    gains: tuple[Metric, ...]
    """Every objective on which the finalist gains enough."""


def duel(contender: Contender, evidence: Evidence, *, objectives: Sequence[Objective], min_gain: float) -> Duel:
    """Compare a finalist with the champion, one objective after the other, until one decides.

    The finalist wins on an objective if even the low end of its gain reaches the required gain. It loses if even the
    high end is worse than the tolerance. Otherwise the next objective decides.

    Args:
        contender: The finalist.
        evidence: All measurements.
        objectives: Objectives of the spec.
        min_gain: Required relative gain of objectives without their own.
    """
    judged = judged_objectives(objectives, evidence)
    gains = {objective.metric: gain(objective.metric, contender, evidence.champion) for objective in judged}
    required = {objective.metric: required_gain(objective, min_gain) for objective in judged}
    enough = tuple(metric for metric, gained in gains.items() if gained.low >= required[metric] and gained.low > 0)
    for objective in judged:
        if objective.metric in enough:
            return Duel(contender=contender, decided_by=objective.metric, wins=True, gains=enough)
        if gains[objective.metric].high < -float(objective.tolerance):
            return Duel(contender=contender, decided_by=objective.metric, wins=False, gains=enough)
    return Duel(contender=contender, decided_by=None, wins=False, gains=enough)


def required_gain(objective: Objective, min_gain: float) -> float:
    """Return the relative gain on an objective that is worth replacing the champion: its own, or else `min_gain`."""
    return min_gain if objective.min_gain is None else float(objective.min_gain)


def best(contenders: Sequence[Contender], evidence: Evidence, *, objectives: Sequence[Objective]) -> Contender:
    """Return the best of one or more finalists.

    With each objective, the finalists remain that are within tolerance or noise of the best. Of several that remain at
    the end, the one with the fewest techniques is chosen, then the smallest file, then the lowest digest.
    """
    tied = list(contenders)
    for objective in judged_objectives(objectives, evidence):
        tied = _near_best(tied, objective, evidence)
    return min(tied, key=lambda contender: (len(contender.techniques), contender.size_bytes, contender.bundle.digest))


def judged_objectives(objectives: Sequence[Objective], evidence: Evidence) -> tuple[Objective, ...]:
    """Return the ranked objectives that can be judged on this node: without latency if the node is too noisy."""
    noisy = evidence.noise is not None
    return tuple(objective for objective in ranked(objectives) if not (noisy and objective.metric in TIMED))


def _near_best(contenders: Sequence[Contender], objective: Objective, evidence: Evidence) -> list[Contender]:
    """Return the finalists whose gain on an objective may be within its tolerance of the best gain."""
    metric, tolerance = objective.metric, float(objective.tolerance)
    gains = [gain(metric, contender, evidence.champion) for contender in contenders]
    top = max(gained.value for gained in gains)
    edge = (1 + top) * (1 - tolerance) if metric.higher_is_better else 2 - (1 - top) * (1 + tolerance)
    return [contender for contender, gained in zip(contenders, gains, strict=True) if 1 + gained.high >= edge]
