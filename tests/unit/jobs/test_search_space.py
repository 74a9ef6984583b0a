"""One space of techniques and engine options, sampled without repeats."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.space import Plan, Space
from retune.api.techniques import (
    Calibration,
    CalibrationMethod,
    Quantization,
    QuantizationScheme,
    Technique,
    TechniqueType,
)
from tests.unit.jobs.models_for_tests import subject

GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)
SUBJECT, UNCALIBRATED = subject(), subject(calibration=False)


def plans(space: Space) -> list[Plan]:
    """Return the plans that a study tries first."""
    return [space.draw(FixedTrial(params)) for params in space.first()]


def test_every_study_starts_with_the_same_questions() -> None:
    """Nothing but the engine, each technique alone, then all together: what each step buys can be told apart."""
    space = Space((GRAPH, QUANTIZE), SUBJECT, threads=2)
    assert [plan.words for plan in plans(space)] == [
        "as delivered, all graph, 2 threads",
        "quantize_dynamic as one line, all graph, 2 threads",
        "quantize_static as one line, all graph, 2 threads",
        "slim and folded graph, all graph, 2 threads",
        "int8 static minmax, all graph, 2 threads",
        "int8 static percentile, all graph, 2 threads",
        "int8 dynamic, all graph, 2 threads",
        "slim and folded graph, int8 static minmax, all graph, 2 threads",
        "slim and folded graph, int8 static percentile, all graph, 2 threads",
        "slim and folded graph, int8 dynamic, all graph, 2 threads",
    ]


def test_a_rewritten_file_is_asked_in_every_engine_before_anything_trains() -> None:
    """The same 8-bit file may be slow in one engine and fast in another: neither is left to the sampler's luck."""
    prune = Technique(name="prune", type=TechniqueType.PRUNING)
    found = plans(Space((prune, GRAPH, QUANTIZE), SUBJECT, threads=2, engine_names=("onnxruntime", "openvino")))
    asked = {(tuple(step.words for step in plan.steps), plan.engine.engine): rank for rank, plan in enumerate(found)}
    training = min(rank for (steps, _), rank in asked.items() if any("pruned" in step for step in steps))
    for variant in ("int8 static minmax", "int8 static percentile", "int8 dynamic", "slim and folded graph"):
        assert max(asked[(variant,), engine] for engine in ("onnxruntime", "openvino")) < training
    together = ("pruned by 37.5 %", "slim and folded graph", "int8 static minmax")
    assert {(together, "onnxruntime"), (together, "openvino")} <= set(asked)
    assert len(found) == len(asked)


TUNE = Technique(name="tune", type=TechniqueType.HYPERPARAMETER_TUNING)
ENGINES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("budget", [8, 12])
def test_a_small_budget_tries_every_technique_before_a_second_engine(budget: int) -> None:
    """No technique that the owner names is left to the sampler's luck, however many engines there are."""
    space = Space((TUNE, GRAPH, QUANTIZE), SUBJECT, threads=2, engine_names=ENGINES)
    names = {space.draw(FixedTrial(params)).names for params in space.first(budget)}
    assert {("tune",), ("graph",), ("quantize",)} <= names


@pytest.mark.parametrize("budget", [6, 8, 12, None])
def test_where_quality_is_to_rise_training_comes_first(budget: int | None) -> None:
    """A rewritten file cannot know data that the model never saw; a budget may end before what comes last."""
    space = Space((TUNE, GRAPH, QUANTIZE), SUBJECT, threads=2, engine_names=ENGINES, restores=True)
    first = [space.draw(FixedTrial(params)).names for params in space.first(budget)]
    tuned = ["tune" in names for names in first]
    assert tuned == [False, *sorted(tuned[1:], reverse=True)]
    assert tuned.count(True) >= 2
    assert ("tune", "graph", "quantize") in first


RECALIBRATE = Technique(name="recalibrate", type=TechniqueType.RECALIBRATION)


@pytest.mark.parametrize("budget", [3, 6, 8, 12, None])
def test_where_quality_is_to_rise_the_cheapest_cure_comes_first(budget: int | None) -> None:
    """Corrected probabilities take seconds: they are tried before anything trains, alone and on top of cheap steps."""
    space = Space((TUNE, GRAPH, QUANTIZE, RECALIBRATE), SUBJECT, threads=2, engine_names=ENGINES, restores=True)
    first = [space.draw(FixedTrial(params)).names for params in space.first(budget)]
    assert first[:2] == [(), ("recalibrate",)]
    trained = [place for place, names in enumerate(first) if "tune" in names]
    cured = [place for place, names in enumerate(first) if "recalibrate" in names and "tune" not in names]
    assert max(cured) < min(trained, default=99)
    if budget != 3:
        assert ("graph", "quantize", "recalibrate") in first
        assert trained


def test_the_best_earlier_combination_is_cured_too() -> None:
    """What made the champion small stays on, so that the cure does not cost what was won; nothing is cured twice."""
    techniques = (GRAPH, QUANTIZE, RECALIBRATE)
    space = Space(techniques, SUBJECT, threads=2, restores=True)
    small = next(params for params in space.first() if space.draw(FixedTrial(params)).names == ("quantize",))
    cured = space.cured(small)
    assert cured is not None
    assert space.draw(FixedTrial(cured)).names == ("quantize", "recalibrate")
    assert space.is_cure(cured)
    assert space.cured(cured) is None
    assert Space(techniques, SUBJECT, threads=2).cured(small) is None
    assert Space((GRAPH, QUANTIZE), SUBJECT, threads=2, restores=True).cured(small) is None


def test_recalibration_leaves_the_other_questions_as_they_were() -> None:
    """Where quality is only held, what was asked without it is still asked."""
    without, with_it = (
        [plan.words for plan in plans(Space(techniques, SUBJECT, threads=2))]
        for techniques in ((GRAPH, QUANTIZE), (GRAPH, QUANTIZE, RECALIBRATE))
    )
    assert [words for words in with_it if "corrected" not in words] == without
    assert "temperature and shares of classes corrected, all graph, 2 threads" in with_it


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30))
def test_the_first_variant_in_another_engine_outlives_a_small_budget(budget: int) -> None:
    """What a budget cannot pay for are further variants, and at most two thirds of a larger one are spent on these."""
    space = Space((GRAPH, QUANTIZE), SUBJECT, threads=2, engine_names=("onnxruntime", "openvino"))
    first = [space.draw(FixedTrial(params)) for params in space.first(budget)]
    assert len(first) <= max(min(budget, 8), 2 * budget // 3)
    asked = {(plan.words, plan.engine.engine) for plan in first}
    if budget >= 8:
        assert any(words.startswith("int8 static minmax, OpenVINO") for words, _ in asked)


@pytest.mark.parametrize("budget", [3, 4, 8, 30])
def test_what_a_user_would_try_in_one_line_is_tried_first_whatever_the_budget(budget: int) -> None:
    """Only the delivered model itself, in every engine, comes before it: no search ends with less."""
    prune = Technique(name="prune", type=TechniqueType.PRUNING)
    space = Space((prune, GRAPH, QUANTIZE), SUBJECT, threads=2)
    words = [space.draw(FixedTrial(params)).words for params in space.first(budget)]
    assert words[1:3] == [f"quantize_{scheme} as one line, all graph, 2 threads" for scheme in ("dynamic", "static")]


def test_one_line_stays_within_the_settings_of_the_spec() -> None:
    """Who allows static quantization alone, or other ranges, gets nothing else in one line either."""
    for allowed, expected in (
        (Quantization(schemes=(QuantizationScheme.STATIC,)), ["static"]),
        (Quantization(schemes=(QuantizationScheme.WEIGHT_ONLY,)), []),
        (Quantization(calibration=Calibration(methods=(CalibrationMethod.ENTROPY,))), ["dynamic"]),
    ):
        space = Space((QUANTIZE.model_copy(update={"quantization": allowed}),), SUBJECT, threads=1)
        words = [plan.words for plan in plans(space) if "as one line" in plan.words]
        assert words == [f"quantize_{scheme} as one line, all graph, 1 thread" for scheme in expected]


def test_without_calibration_rows_nothing_static_is_tried() -> None:
    """Static quantization needs data that the search may look at."""
    space = Space((QUANTIZE,), UNCALIBRATED, threads=1)
    assert [plan.words for plan in plans(space)] == [
        "as delivered, all graph, 1 thread",
        "quantize_dynamic as one line, all graph, 1 thread",
        "int8 dynamic, all graph, 1 thread",
    ]


def test_settings_of_the_spec_bound_the_space() -> None:
    """Only the schemes and methods that the user allows appear in any plan."""
    settings = Quantization(
        schemes=(QuantizationScheme.STATIC,), calibration=Calibration(methods=(CalibrationMethod.ENTROPY,), samples=64)
    )
    spec = QUANTIZE.model_copy(update={"quantization": settings})
    space = Space((spec,), SUBJECT, threads=1)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    steps = [step for _ in range(60) for step in space.draw(study.ask()).steps]
    assert {(step.params["scheme"], step.params["method"], step.params["samples"]) for step in steps} == {
        ("Static", "Entropy", 64)
    }


@given(st.integers(1, 64))
def test_threads_never_exceed_the_limit(limit: int) -> None:
    """The limit itself is always a choice, and one thread too."""
    space = Space((), UNCALIBRATED, threads=limit)
    study = optuna.create_study(sampler=RandomSampler(seed=limit))
    drawn = {space.draw(study.ask()).engine.threads for _ in range(10)}
    assert max(drawn) <= limit
    assert plans(space)[0].engine.threads == limit


def test_what_does_not_matter_does_not_tell_plans_apart() -> None:
    """Spinning means nothing to a single thread, and calibration nothing to dynamic quantization."""
    space = Space((QUANTIZE,), SUBJECT, threads=2)
    told = {
        "quantize.variant": "Dynamic",
        "quantize.per_channel": True,
        "quantize.scope": "Layers",
        "quantize.kept": 0,
        "engine.threads": 1,
        "engine.spinning": True,
        "engine.graph_level": "all",
    }
    other = told | {"quantize.scope": "LayersAndBetween", "engine.spinning": False}
    assert space.draw(FixedTrial(told)).key == space.draw(FixedTrial(other)).key
    assert space.draw(FixedTrial(told | {"quantize.per_channel": False})).key != space.draw(FixedTrial(told)).key


def test_fresh_finds_what_is_not_known_until_nothing_is_left() -> None:
    """All 15 engine plans of 4 threads are found, then there are no more."""
    space = Space((), UNCALIBRATED, threads=4)
    known: set[str] = set()
    while (params := space.fresh(known)) is not None:
        key = space.draw(FixedTrial(params)).key
        assert key not in known
        known.add(key)
    assert len(known) == 15
