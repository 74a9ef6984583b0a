"""Which candidates of a study go to the judge.

The search measures on few rows, and the best of many candidates is partly lucky. So the finalists are a mixture: some
gain much but may fail, others gain less but will almost surely pass, so that a run does not end without a result. The
best that a user would get in one line is always among them, so that a run never ends with less.
"""

from collections.abc import Callable, Sequence

import optuna

from optimizer_jobs.seal import Seal
from optimizer_jobs.study.objectives import ranked
from optimizer_jobs.study.trials import Candidate, TrialResult, candidates
from retune.api.objectives import Objective

Chance = Callable[[TrialResult], float]
"""Returns the probability (0..1) that the judge can prove a candidate's quality."""

EVEN, SURE = 0.5, 0.9
"""Probability from which a candidate is worth judging, and probability from which it will almost surely pass."""


def finalists(
    study: optuna.Study,
    objectives: Sequence[Objective],
    *,
    count: int,
    exclude_digests: Sequence[str] = (),
    chance: Chance | None = None,
    seal: Seal | None = None,
) -> tuple[Candidate, ...]:
    """Return the candidates of a study that go to the judge, in order of preference.

    Args:
        study: The run's study.
        objectives: Objectives of the spec.
        count: Most candidates that are returned, without the one that a user would get in one line.
        exclude_digests: Digests of bundles that must not be judged again.
        chance: Probability that a candidate's quality can be proven; None ignores it.
        seal: Seal of the run's search, which every candidate must have; None believes everything.

    Returns:
        Feasible candidates: first those of the Pareto front, then those behind it. With `chance`, candidates of
        different probability, from EVEN up to SURE, and besides them the best of those that a user would get in one
        line. If no candidate is feasible, the one that violates the limits
        least, so that the judge can say why it fails.
    """
    return finalists_of(candidates(study, exclude_digests, seal=seal), objectives, count=count, chance=chance)


def finalists_of(
    every: Sequence[Candidate], objectives: Sequence[Objective], *, count: int, chance: Chance | None = None
) -> tuple[Candidate, ...]:
    """Return the finalists among these candidates, as `finalists` does."""
    feasible = [candidate for candidate in every if candidate.feasible]
    if not feasible:
        return tuple(sorted(every, key=lambda candidate: (candidate.result.violation, candidate.trial))[:1])
    front = [candidate for candidate in feasible if not _dominated(candidate, feasible)]
    behind = [candidate for candidate in feasible if candidate not in front]
    order = _by_importance(front, objectives) + _by_importance(behind, objectives)
    if chance is None:
        return tuple(order[:count])
    chosen = _bold_and_cautious(order, objectives, count=count, chance=chance)
    as_one_line = [candidate for candidate in order if candidate.result.one_line and _gains(candidate, objectives)][:1]
    return tuple(candidate for candidate in order if candidate in (*chosen, *as_one_line))


def _bold_and_cautious(
    order: Sequence[Candidate], objectives: Sequence[Objective], *, count: int, chance: Chance
) -> list[Candidate]:
    """Return `count` candidates of different probability to be proven, in the given order.

    The required probability rises from EVEN to SURE, and each step takes the best remaining candidate that reaches it,
    or else the most probable one. Otherwise near copies of one bold candidate would take all places.
    """
    chances = {candidate.trial: chance(candidate.result) for candidate in order}
    remaining = [candidate for candidate in order if _gains(candidate, objectives)]
    chosen = set[int]()
    for step in range(min(count, len(remaining))):
        required = EVEN + (SURE - EVEN) * step / max(1, count - 1)
        likely = next((candidate for candidate in remaining if chances[candidate.trial] >= required), None)
        taken = likely or max(remaining, key=lambda candidate: chances[candidate.trial])
        chosen.add(taken.trial)
        remaining.remove(taken)
    others = [candidate.trial for candidate in order if candidate.trial not in chosen]
    chosen |= set(others[: count - len(chosen)])
    return [candidate for candidate in order if candidate.trial in chosen]


def _gains(candidate: Candidate, objectives: Sequence[Objective]) -> bool:
    """Return whether a candidate is better than the champion in at least one ranked objective."""
    equals = (0.0 if objective.metric.is_share else 1.0 for objective in ranked(objectives))
    return any(cost < equal for cost, equal in zip(candidate.result.costs, equals, strict=True))


def _dominated(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    """Return whether another candidate is at least as good in every objective and better in one."""
    mine = candidate.result.costs
    return any(
        theirs != mine and all(their <= own for their, own in zip(theirs, mine, strict=True))
        for theirs in (other.result.costs for other in others)
    )


def _by_importance(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> list[Candidate]:
    """Sort candidates by the objectives in their order; costs within an objective's tolerance count as equal.

    Of equal candidates, the one with fewer techniques comes first, then the one of the earlier trial.
    """
    waiting, order = list(candidates), []
    while waiting:
        tied = waiting
        for position, objective in enumerate(ranked(objectives)):
            best = min(candidate.result.costs[position] for candidate in tied)
            band = best + float(objective.tolerance) * _scale(objective, best)
            tied = [candidate for candidate in tied if candidate.result.costs[position] <= band]
        chosen = min(tied, key=lambda candidate: (len(candidate.result.techniques), candidate.trial))
        order.append(chosen)
        waiting.remove(chosen)
    return order


def _scale(objective: Objective, best: float) -> float:
    """Return the number that a tolerance is multiplied with: the cost itself if it is a ratio, 1 for shares."""
    return 1.0 if objective.metric.is_share else best
