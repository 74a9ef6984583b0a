"""One space of techniques and engine options, sampled without repeats."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FixedTrial

from optimizer_jobs.search.space import Plan, Space, population, sampler
from retune.api.spec import (
    Calibration,
    CalibrationMethod,
    Quantization,
    QuantizationScheme,
    Search,
    Technique,
    TechniqueType,
)

GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)


def plans(space: Space) -> list[Plan]:
    """Return the plans that a study tries first."""
    return [space.draw(FixedTrial(params)) for params in space.first()]


def test_every_study_starts_with_the_same_questions() -> None:
    """Nothing but the engine, each technique alone, then all together: what each step buys can be told apart."""
    space = Space((GRAPH, QUANTIZE), threads=2, calibration=True)
    assert [plan.words for plan in plans(space)] == [
        "as delivered, all graph, 2 threads",
        "slim and folded graph, all graph, 2 threads",
        "int8 static minmax, all graph, 2 threads",
        "int8 static percentile, all graph, 2 threads",
        "int8 dynamic, all graph, 2 threads",
        "slim and folded graph, int8 static minmax, all graph, 2 threads",
        "slim and folded graph, int8 static percentile, all graph, 2 threads",
        "slim and folded graph, int8 dynamic, all graph, 2 threads",
    ]


def test_without_calibration_rows_nothing_static_is_tried() -> None:
    """Static quantization needs data that the search may look at."""
    space = Space((QUANTIZE,), threads=1, calibration=False)
    assert [plan.words for plan in plans(space)] == [
        "as delivered, all graph, 1 thread",
        "int8 dynamic, all graph, 1 thread",
    ]


def test_settings_of_the_spec_bound_the_space() -> None:
    """Only the schemes and methods that the user allows appear in any plan."""
    settings = Quantization(
        schemes=(QuantizationScheme.STATIC,), calibration=Calibration(methods=(CalibrationMethod.ENTROPY,), samples=64)
    )
    spec = QUANTIZE.model_copy(update={"quantization": settings})
    space = Space((spec,), threads=1, calibration=True)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    steps = [step for _ in range(60) for step in space.draw(study.ask()).steps]
    assert {(step.params["scheme"], step.params["method"], step.params["samples"]) for step in steps} == {
        ("Static", "Entropy", 64)
    }


@given(st.integers(1, 64))
def test_threads_never_exceed_the_limit(limit: int) -> None:
    """The limit itself is always a choice, and one thread too."""
    space = Space((), threads=limit, calibration=False)
    study = optuna.create_study(sampler=RandomSampler(seed=limit))
    drawn = {space.draw(study.ask()).engine.threads for _ in range(10)}
    assert max(drawn) <= limit
    assert plans(space)[0].engine.threads == limit


def test_what_does_not_matter_does_not_tell_plans_apart() -> None:
    """Spinning means nothing to a single thread, and calibration nothing to dynamic quantization."""
    space = Space((QUANTIZE,), threads=2, calibration=True)
    told = {
        "quantize.variant": "Dynamic", "quantize.per_channel": True, "quantize.scope": "Layers",
        "engine.threads": 1, "engine.spinning": True, "engine.graph_level": "all",
    }  # fmt: skip
    other = told | {"quantize.scope": "LayersAndBetween", "engine.spinning": False}
    assert space.draw(FixedTrial(told)).key == space.draw(FixedTrial(other)).key
    assert space.draw(FixedTrial(told | {"quantize.per_channel": False})).key != space.draw(FixedTrial(told)).key


def test_fresh_finds_what_is_not_known_until_nothing_is_left() -> None:
    """All 15 engine plans of 4 threads are found, then there are no more."""
    space = Space((), threads=4, calibration=False)
    known: set[str] = set()
    while (params := space.fresh(known)) is not None:
        key = space.draw(FixedTrial(params)).key
        assert key not in known
        known.add(key)
    assert len(known) == 15


@pytest.mark.parametrize(
    ("name", "trials", "kind"),
    [
        ("Auto", 24, TPESampler),
        ("Auto", 200, NSGAIISampler),
        ("Random", 24, RandomSampler),
        ("NSGAII", 24, NSGAIISampler),
        ("TPE", 500, TPESampler),
    ],
)
def test_sampler_follows_spec_and_budget(name: str, trials: int, kind: type) -> None:
    """Auto means TPE for small budgets and NSGA-II from 200 trials."""
    search = Search.model_validate({"sampler": name, "maxTrials": trials})
    assert type(sampler(search, worker=0, started=0)) is kind


@given(st.integers(1, 1000))
def test_population_leaves_generations(budget: int) -> None:
    """A population is never so large that the budget holds only a few generations of it."""
    assert 2 <= population(budget) <= 50
    assert budget < 40 or budget // population(budget) >= 10


def test_workers_and_restarts_sample_differently() -> None:
    """The same seed gives the same draws, but not to another worker and not after a restart."""
    search = Search(sampler="Random", max_trials=24)

    def draws(worker: int, started: int) -> list[str]:
        study = optuna.create_study(sampler=sampler(search, worker=worker, started=started))
        return [Space((GRAPH, QUANTIZE), threads=8, calibration=True).draw(study.ask()).key for _ in range(6)]

    assert draws(0, 0) == draws(0, 0)
    assert len({tuple(draws(worker, started)) for worker, started in [(0, 0), (1, 0), (0, 9), (1, 9)]}) == 4
