"""The best combinations of earlier runs, which a search tries again first.

Only the combinations are reused, never their measurements: data, champion and machine may have changed, so each is
measured again like any other trial. A study that cannot be read, or a combination that the space does not have any
more, is left out.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.errors import printable
from optimizer_jobs.progress import say
from optimizer_jobs.study.finalists import finalists_of
from optimizer_jobs.study.objectives import limits, ranked, rate
from optimizer_jobs.study.trials import NUMBER, PLAN, Candidate, candidates, open_study
from optimizer_jobs.technique import Params
from retune.api.objectives import Objective
from retune.contract.requests import SearchRequest

A_RUN, IN_ALL = 3, 5
"""Most combinations taken from one run, and from all of them."""


def warm_start(request: SearchRequest, space: Space) -> tuple[Params, ...]:
    """Return the trial parameters of the best plans of earlier runs, the newest run first, without duplicates."""
    chosen: dict[str, Params] = {}
    most = min(IN_ALL, max(1, request.search.max_trials // 4))
    for run in request.warm_start if request.search.warm_start else ():
        best = _best_of_run(run, request, space)
        if best is not None:
            new = [(key, params) for key, params in best.items() if key not in chosen][: most - len(chosen)]
            chosen |= dict(new)
            say(f"warm start: {len(new)} of the best combinations of run {run}")
    return tuple(chosen.values())


def _best_of_run(run: str, request: SearchRequest, space: Space) -> dict[str, Params] | None:
    """Return the trial parameters of a run's best plans by their key, or None when its study cannot be read."""
    try:
        study = open_study(request.store, run)
        best = _best(study, request.objectives, excluded=request.rejected)
        trials = {trial.user_attrs.get(NUMBER): trial for trial in study.get_trials(deepcopy=False)}
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an old study must not cost the new one
        say(f"warm start: run {run} is left out: {printable(str(error), limit=200)}")
        return None
    plans: dict[str, Params] = {}
    for candidate in best:
        trial = trials[candidate.trial]
        key = str(trial.user_attrs.get(PLAN))
        params = _translated(trial.params, space, key=key)
        if params is not None and len(plans) < A_RUN:
            plans[key] = params
    return plans


def _translated(earlier: Params, space: Space, *, key: str) -> Params | None:
    """Return the trial parameters in this space for a plan of an earlier space, or None when this space lacks it.

    Args:
        earlier: Trial parameters in the earlier space; new parameters switch their technique off.
        space: The space of this run.
        key: Key of the plan; the plan in this space must have the same key.
    """
    control = space.control()
    params = control | {name: value for name, value in earlier.items() if name in control}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan = space.draw(FixedTrial(params))
    except (ValueError, UserWarning):
        return None
    return params if plan.key == key else None


def _best(study: optuna.Study, objectives: Sequence[Objective], *, excluded: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the best candidates of a study by the current objectives, only those that keep all limits."""
    rated = [_rated(candidate, objectives) for candidate in candidates(study, excluded)]
    feasible = [candidate for candidate in rated if candidate is not None and candidate.feasible]
    return finalists_of(feasible, objectives, count=2 * A_RUN)


def _rated(candidate: Candidate, objectives: Sequence[Objective]) -> Candidate | None:
    """Return a candidate with costs and shortfalls by the current objectives, or None when a metric is missing."""
    values, champion = candidate.result.values, candidate.result.champion
    needed = {str(objective.metric) for objective in (*ranked(objectives), *limits(objectives))}
    if not needed <= values.keys() or not needed <= champion.keys():
        return None
    rating = rate(objectives, values=values, champion=champion)
    result = replace(candidate.result, costs=rating.costs, shortfalls=rating.shortfalls)
    return replace(candidate, result=result)
