"""The best combinations of earlier runs, to be tried again first.

Only the combinations are taken over, never their numbers: data, champion and machine may have changed, so each is
measured anew as any other trial. A study that cannot be read, or a combination that the space no longer has, is left
out.
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
from optimizer_jobs.study.objectives import cost, limits, ranked, shortfall
from optimizer_jobs.study.trials import NUMBER, PLAN, Candidate, candidates, open_study
from optimizer_jobs.technique import Params
from retune.api.objectives import Metric, Objective
from retune.contract.requests import SearchRequest

A_RUN, IN_ALL = 3, 5
"""Most combinations taken from one run, and from all of them."""


def warm_start(request: SearchRequest, space: Space) -> tuple[Params, ...]:
    """Return the trial parameters of the best plans of earlier runs, newest run first, each plan once."""
    found: dict[str, Params] = {}
    most = min(IN_ALL, max(1, request.search.max_trials // 4))
    for run in request.warm_start if request.search.warm_start else ():
        taken = _of_run(run, request, space)
        if taken is not None:
            new = [(key, params) for key, params in taken.items() if key not in found][: most - len(found)]
            found |= dict(new)
            say(f"warm start: {len(new)} of the best combinations of run {run}")
    return tuple(found.values())


def _of_run(run: str, request: SearchRequest, space: Space) -> dict[str, Params] | None:
    try:
        study = open_study(request.store, run)
        best = _best(study, request.objectives, excluded=request.rejected)
        trials = {trial.user_attrs.get(NUMBER): trial for trial in study.get_trials(deepcopy=False)}
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an old study must not cost the new one
        say(f"warm start: run {run} is left out: {printable(str(error), limit=200)}")
        return None
    found: dict[str, Params] = {}
    for one in best:
        key, params = str(trials[one.trial].user_attrs.get(PLAN)), trials[one.trial].params
        told = still_in(space, params, key=key)
        if told is not None and len(found) < A_RUN:
            found[key] = told
    return found


def still_in(space: Space, params: Params, *, key: str) -> Params | None:
    """Return the trial parameters in this space of a plan of an earlier space, or None when it is not in it.

    Parameters that are new switch their technique off; a plan is the same when it has the same key.
    """
    control = space.control()
    told = control | {name: value for name, value in params.items() if name in control}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan = space.draw(FixedTrial(told))
    except (ValueError, UserWarning):
        return None
    return told if plan.key == key else None


def _best(study: optuna.Study, objectives: Sequence[Objective], *, excluded: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the best candidates of a study by the objectives of today, those that keep the limits only."""
    anew = [_judged(one, objectives) for one in candidates(study, excluded)]
    usable = [one for one in anew if one is not None and one.feasible]
    return finalists_of(usable, objectives, count=2 * A_RUN)


def _judged(candidate: Candidate, objectives: Sequence[Objective]) -> Candidate | None:
    """Return a candidate with costs and limits as today's objectives see its numbers; None where one is missing."""
    values, champion = candidate.found.values, candidate.found.champion
    needed = {str(objective.metric) for objective in (*ranked(objectives), *limits(objectives))}
    if not needed <= values.keys() or not needed <= champion.keys():
        return None

    def pair(metric: Metric) -> tuple[float, float]:
        return values[metric.value], champion[metric.value]

    found = replace(
        candidate.found,
        costs=tuple(cost(o.metric, *pair(o.metric)) for o in ranked(objectives)),
        shortfalls={o.metric.value: shortfall(o, *pair(o.metric)) for o in limits(objectives)},
    )
    return replace(candidate, found=found)
