"""Which sampler proposes the next plan: the one in the spec, or with Auto the one that suits the budget.

A sampler that cannot be used for the study is refused with advice, or replaced with a sentence that says so: on fresh
data, quality is optimized besides what the spec names, and the spec's author could not know.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler

from optimizer_jobs.commands.search.evolution import EvolutionSampler
from optimizer_jobs.errors import JobError
from optimizer_jobs.study.objectives import ranked
from retune.api.objectives import Objective
from retune.api.search import Search
from retune.contract.results import Reason

NSGA_FROM_TRIALS = 200
GP_UP_TO_TRIALS = 50
_SEVERAL = "TPE"
"""Sampler that takes the place of one that knows a single objective."""
_LIBRARIES = {"GP": "torch", "CMAES": "cmaes"}
"""Library that a sampler needs besides Optuna."""


def sampler(search: Search, objectives: Sequence[Objective], *, worker: int, started: int) -> BaseSampler:
    """Return the sampler of one worker.

    With Grid, every worker takes its combinations from a list, and what is not in the list is drawn at random.

    Args:
        search: The search of the spec.
        objectives: Objectives of the spec.
        worker: Index of the worker.
        started: Number of trials in the study; it changes the seed, so that a restarted worker does not repeat itself.

    Raises:
        JobError: The sampler cannot be used: a library is missing, or the budget does not fit it.
    """
    refuse(search)
    seed = (search.seed + 7919 * worker + 104729 * started) % 2**31
    first = max(4, search.max_trials // 4)
    make: Mapping[str, Callable[[], BaseSampler]] = {
        "Grid": lambda: RandomSampler(seed=seed),
        "Random": lambda: RandomSampler(seed=seed),
        "TPE": lambda: TPESampler(multivariate=True, n_startup_trials=first, seed=seed),
        "GP": lambda: GPSampler(n_startup_trials=first, warn_independent_sampling=False, seed=seed),
        "CMAES": lambda: EvolutionSampler(seed=seed),
        "NSGAII": lambda: NSGAIISampler(population_size=population(search.max_trials), seed=seed),
        "NSGAIII": lambda: NSGAIIISampler(population_size=population(search.max_trials), seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna has warned of GP and NSGA-III for years
        return make[_kind(search, objectives)]()


def replaced(search: Search, objectives: Sequence[Objective]) -> str | None:
    """Return which sampler takes the place of the spec's for these objectives and why, in words, or None."""
    optimized = [str(objective.metric) for objective in ranked(objectives)]
    if search.sampler != "CMAES" or len(optimized) <= 1:
        return None
    return f"sampler {_SEVERAL} takes the place of CMAES, which optimizes one objective and not {', '.join(optimized)}"


def refuse(search: Search) -> None:
    """Raise JobError when the sampler of the spec cannot be used for this budget or in this image."""
    reason = _unusable(search)
    if reason is not None:
        message, next_step = reason
        raise JobError(Reason.REQUEST_INVALID, f"search.sampler {search.sampler}", message, next_step)


def population(budget: int) -> int:
    """Return a population size that allows about ten generations in a budget of trials."""
    return min(50, max(4, budget // 10))


def _kind(search: Search, objectives: Sequence[Objective]) -> str:
    if replaced(search, objectives) is not None:
        return _SEVERAL
    if search.sampler != "Auto":
        return search.sampler
    return "TPE" if search.max_trials < NSGA_FROM_TRIALS else "NSGAII"


def _unusable(search: Search) -> tuple[str, str] | None:
    library = _LIBRARIES.get(search.sampler)
    if library is not None and find_spec(library) is None:
        return f"it needs {library}, which this image does not have.", "Use Auto, or an image that has it."
    if search.sampler == "GP" and search.max_trials > GP_UP_TO_TRIALS:
        return (
            f"a Gaussian process is too slow for {search.max_trials} trials.",
            f"Use Auto, or set search.maxTrials to at most {GP_UP_TO_TRIALS}.",
        )
    return None
