"""The sampler that the spec names proposes the plans, or is refused with what to do."""

from importlib.util import find_spec

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from optimizer_jobs.commands.search import samplers
from optimizer_jobs.commands.search.evolution import EvolutionSampler
from optimizer_jobs.commands.search.samplers import population, refuse, replaced, sampler
from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.errors import JobError
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Objective, Role, default_objectives
from retune.api.search import Search
from retune.api.techniques import Technique, TechniqueType
from retune.contract.results import Reason
from retune.plan.run.restoring import restoring
from tests.unit.jobs.models_for_tests import subject

OBJECTIVES = default_objectives(Task.CLASSIFICATION)
ONE = (Objective(metric=Metric.LATENCY_P95_MS, role=Role.OPTIMIZE),)
GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)
needs_cmaes = pytest.mark.skipif(find_spec("cmaes") is None, reason="needs cmaes")


@pytest.mark.parametrize(
    ("name", "trials", "kind"),
    [
        ("Auto", 24, TPESampler),
        ("Auto", 200, NSGAIISampler),
        ("Grid", 24, RandomSampler),
        ("Random", 24, RandomSampler),
        ("NSGAII", 24, NSGAIISampler),
        ("NSGAIII", 24, NSGAIIISampler),
        ("TPE", 500, TPESampler),
    ],
)
def test_sampler_follows_spec_and_budget(name: str, trials: int, kind: type) -> None:
    """Auto means TPE for small budgets and NSGA-II from 200 trials."""
    search = Search.model_validate({"sampler": name, "maxTrials": trials})
    assert type(sampler(search, OBJECTIVES, worker=0, started=0)) is kind


@given(st.integers(1, 1000))
def test_population_leaves_generations(budget: int) -> None:
    """A population is never so large that the budget holds only a few generations of it."""
    assert 2 <= population(budget) <= 50
    assert budget < 40 or budget // population(budget) >= 10


@pytest.mark.slow
def test_workers_and_restarts_sample_differently() -> None:
    """The same seed gives the same draws, but not to another worker and not after a restart."""
    search = Search(sampler="Random", max_trials=24)

    def draws(worker: int, started: int) -> list[str]:
        study = optuna.create_study(sampler=sampler(search, OBJECTIVES, worker=worker, started=started))
        return [Space((GRAPH, QUANTIZE), subject(), threads=8).draw(study.ask()).key for _ in range(6)]

    assert draws(0, 0) == draws(0, 0)
    assert len({tuple(draws(worker, started)) for worker, started in [(0, 0), (1, 0), (0, 9), (1, 9)]}) == 4


@pytest.mark.parametrize(("name", "library"), [("GP", "torch"), ("CMAES", "cmaes")])
def test_a_sampler_without_its_library_is_refused(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image without the library says which one it is."""
    monkeypatch.setattr(samplers, "find_spec", lambda _: None)
    with pytest.raises(JobError) as caught:
        refuse(Search.model_validate({"sampler": name}))
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert f"needs {library}" in caught.value.message


def test_a_gaussian_process_is_for_small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 50 trials it would take longer than what it saves."""
    monkeypatch.setattr(samplers, "find_spec", lambda _: "there")
    refuse(Search(sampler="GP", max_trials=50))
    with pytest.raises(JobError) as caught:
        refuse(Search(sampler="GP", max_trials=51))
    assert "at most 50" in caught.value.next_step


def test_cmaes_gives_way_where_fresh_data_adds_an_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spec names one, and the run has quality besides: another sampler takes over, and the search says so."""
    monkeypatch.setattr(samplers, "find_spec", lambda _: "there")
    search, both = Search(sampler="CMAES"), restoring(ONE, Task.CLASSIFICATION)
    assert replaced(search, ONE) is None
    assert isinstance(sampler(search, ONE, worker=0, started=0), EvolutionSampler)
    words = "sampler TPE takes the place of CMAES, which optimizes one objective and not accuracy, latency_p95_ms"
    assert replaced(search, both) == words
    assert isinstance(sampler(search, both, worker=0, started=0), TPESampler)


@pytest.mark.torch
def test_a_gaussian_process_proposes_plans() -> None:
    """Several objectives, limits and choices are no obstacle to it."""
    pytest.importorskip("torch")
    search = Search(sampler="GP", max_trials=20)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler(search, OBJECTIVES, worker=0, started=0))
    space = Space((GRAPH, QUANTIZE), subject(), threads=4)
    keys = set()
    for number in range(12):
        trial = study.ask()
        plan = space.draw(trial)
        keys.add(plan.key)
        trial.set_constraint("accuracy", 0.1 if number % 3 == 0 else -0.1)
        study.tell(trial, [plan.engine.threads, len(plan.steps)])
    assert len(keys) > 4


def _hill(trial: optuna.Trial) -> float:
    """Return how far a trial is from (0.3, 0.01, 40), each as a share of its range."""
    share = trial.suggest_float("share", 0.0, 1.0)
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    width = trial.suggest_int("width", 8, 64)
    trial.suggest_categorical("kind", ("a", "b"))
    return float((share - 0.3) ** 2 + ((width - 40) / 56) ** 2 + abs(rate - 0.01) ** 0.5)


@pytest.mark.slow
@needs_cmaes
def test_cmaes_comes_closer_than_chance() -> None:
    """On a hill over numbers of all kinds, 120 trials end nearer to the top than as many random ones."""

    def best(chosen: optuna.samplers.BaseSampler) -> float:
        study = optuna.create_study(sampler=chosen)
        study.optimize(_hill, n_trials=120)
        return float(study.best_value)

    seeds = range(3)
    assert sum(best(EvolutionSampler(seed=seed)) for seed in seeds) < sum(best(RandomSampler(seed)) for seed in seeds)


@needs_cmaes
def test_cmaes_keeps_the_limits_before_it_improves() -> None:
    """The cheapest region misses a limit; most late proposals stay out of it."""
    study = optuna.create_study(sampler=EvolutionSampler(seed=0))
    late = []
    for number in range(150):
        trial = study.ask()
        x, _ = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("accuracy", 0.5 - x)
        study.tell(trial, x)
        late += [x] if number >= 100 else []
    assert sum(x >= 0.5 for x in late) > len(late) / 2


@needs_cmaes
def test_cmaes_stores_nothing_but_the_trials() -> None:
    """The state is rebuilt from the trials, so that a study holds no code and any worker can go on."""
    study = optuna.create_study(sampler=EvolutionSampler(seed=0))
    study.optimize(_hill, n_trials=30)
    assert all("cma" not in name for trial in study.trials for name in trial.system_attrs)
    study.sampler = EvolutionSampler(seed=0)
    again = optuna.create_study(sampler=EvolutionSampler(seed=0))
    again.add_trials(study.trials)
    mine, theirs = study.ask(), again.ask()
    ranges = {"share": FloatDistribution(0, 1), "width": IntDistribution(8, 64)}
    assert [mine._suggest(*one) for one in ranges.items()] == [theirs._suggest(*one) for one in ranges.items()]


def test_cmaes_leaves_a_space_without_numbers_to_tpe() -> None:
    """Choices alone are no space for it; it proposes all the same."""
    study = optuna.create_study(sampler=EvolutionSampler(seed=0))
    for value in range(12):
        trial = study.ask()
        trial.suggest_categorical("kind", ("a", "b", "c"))
        study.tell(trial, value)
    assert study.sampler.infer_relative_search_space(study, study.trials[-1]) == {}


@needs_cmaes
def test_values_stay_in_their_ranges() -> None:
    """Steps, logarithms and whole numbers come out as their distributions allow them."""
    study = optuna.create_study(sampler=EvolutionSampler(seed=0))
    ranges = {
        "stepped": FloatDistribution(0, 1, step=0.25),
        "log": FloatDistribution(1e-3, 1, log=True),
        "whole": IntDistribution(3, 9, step=2),
        "logwhole": IntDistribution(1, 100, log=True),
    }
    middle = {"stepped": 0.5, "log": 0.1, "whole": 5, "logwhole": 10}
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, params=middle, distributions=ranges))
    for _ in range(30):
        trial = study.ask(ranges)
        assert all(kind._contains(kind.to_internal_repr(trial.params[name])) for name, kind in ranges.items())
        study.tell(trial, trial.params["log"])
