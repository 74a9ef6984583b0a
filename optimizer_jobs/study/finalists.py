"""Which candidates of a study the judge gets to see.

The search's numbers are of few rows, and the best of many is lucky: finalists are bold and cautious ones, so that a run
does not end with nothing while something sure lay behind.
"""

from collections.abc import Callable, Sequence

import optuna

from optimizer_jobs.study.objectives import ranked
from optimizer_jobs.study.trials import Candidate, Found, candidates
from retune.api.objectives import Objective

Chance = Callable[[Found], float]
"""Returns how likely a candidate's quality is to be proven, 0 to 1."""

EVEN, SURE = 0.5, 0.9
"""Chances to be proven from which on a candidate is worth the judge's time, and is as good as proven."""


def finalists(
    study: optuna.Study,
    objectives: Sequence[Objective],
    *,
    count: int,
    exclude_digests: Sequence[str] = (),
    chance: Chance | None = None,
) -> tuple[Candidate, ...]:
    """Return at most `count` candidates, best first: feasible ones of the Pareto front, then of those behind it.

    With chances they are bold and cautious ones: from likelier than not to be proven up to as good as sure. When no
    candidate keeps the limits, the single least bad one is returned, for the judge to say why it fails.
    """
    return finalists_of(candidates(study, exclude_digests), objectives, count=count, chance=chance)


def finalists_of(
    every: Sequence[Candidate], objectives: Sequence[Objective], *, count: int, chance: Chance | None = None
) -> tuple[Candidate, ...]:
    """Return the finalists among these candidates, as `finalists` does."""
    feasible = [candidate for candidate in every if candidate.feasible]
    if not feasible:
        return tuple(sorted(every, key=lambda candidate: (candidate.found.violation, candidate.trial))[:1])
    front = [candidate for candidate in feasible if not _dominated(candidate, feasible)]
    behind = [candidate for candidate in feasible if candidate not in front]
    order = _by_importance(front, objectives) + _by_importance(behind, objectives)
    return tuple(order[:count] if chance is None else _with_prospects(order, objectives, count=count, chance=chance))


def _with_prospects(
    order: Sequence[Candidate], objectives: Sequence[Objective], *, count: int, chance: Chance
) -> list[Candidate]:
    """Return the best of those likelier than not to be proven, the best of those as good as sure, and some between.

    Near copies of one bold candidate would else take all places. Where nobody is likely enough, the likeliest is taken.
    """
    chances = {each.trial: chance(each.found) for each in order}
    left = [each for each in order if _gains(each, objectives)]
    chosen = set[int]()
    for step in range(min(count, len(left))):
        least = EVEN + (SURE - EVEN) * step / max(1, count - 1)
        likely = next((each for each in left if chances[each.trial] >= least), None)
        taken = likely or max(left, key=lambda each: chances[each.trial])
        chosen.add(taken.trial)
        left.remove(taken)
    others = [each.trial for each in order if each.trial not in chosen]
    chosen |= set(others[: count - len(chosen)])
    return [each for each in order if each.trial in chosen]


def _gains(candidate: Candidate, objectives: Sequence[Objective]) -> bool:
    """Return whether a candidate is better than the champion by something that is ranked."""
    even = (0.0 if objective.metric.is_share else 1.0 for objective in ranked(objectives))
    return any(cost < equal for cost, equal in zip(candidate.found.costs, even, strict=True))


def _dominated(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    mine = candidate.found.costs
    return any(
        theirs != mine and all(one <= own for one, own in zip(theirs, mine, strict=True))
        for theirs in (other.found.costs for other in others)
    )


def _by_importance(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> list[Candidate]:
    """Sort by the first objective; within its tolerance of the best left, by the next; then by the trial's number."""
    waiting, order = list(candidates), []
    while waiting:
        tied = waiting
        for position, objective in enumerate(ranked(objectives)):
            best = min(candidate.found.costs[position] for candidate in tied)
            band = best + float(objective.tolerance) * _scale(objective, best)
            tied = [candidate for candidate in tied if candidate.found.costs[position] <= band]
        chosen = min(tied, key=lambda candidate: (len(candidate.found.techniques), candidate.trial))
        order.append(chosen)
        waiting.remove(chosen)
    return order


def _scale(objective: Objective, best: float) -> float:
    """Return what a relative tolerance is relative to: the ratio itself, or 1 for a difference of shares."""
    return 1.0 if objective.metric.is_share else best
