"""A grid names every combination once, the cheap ones first, and says when there are no more."""

from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.grid import Grid, _values
from optimizer_jobs.commands.search.space import Plan, Space
from optimizer_jobs.commands.search.stages import Stage, stage_of
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs.models_for_tests import subject

GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)


def plans(grid: Grid) -> list[Plan]:
    """Return the grid's plans in order."""
    return [grid.space.draw(FixedTrial(dict(params))) for params in grid.first]


def test_a_grid_of_engine_options_is_complete() -> None:
    """Of 4 threads at most: 1 thread, 2 and 4 spinning or not, and three graph levels each."""
    found = plans(Grid(Space((), subject(), threads=4)))
    assert len({plan.key for plan in found}) == len(found) == 15
    assert found[0].words == "as delivered, all graph, 4 threads"


def test_a_grid_holds_each_set_of_techniques_with_each_way_to_run_it() -> None:
    """Graph passes and quantization, none, alone and together, under all engine options; nothing twice."""
    space = Space((GRAPH, QUANTIZE), subject(calibration=False), threads=1)
    found = plans(Grid(space))
    assert len({plan.key for plan in found}) == len(found)
    engines = {plan.engine.model_dump_json() for plan in found}
    models = {str([(step.name, step.params) for step in plan.steps]) for plan in found}
    assert len(found) == len(engines) * len(models)
    drawn = {space.draw(FixedTrial(dict(params))).key for params in space.first()}
    assert drawn <= {plan.key for plan in found}


def test_a_grid_begins_with_what_is_cheap() -> None:
    """The delivered model under all engine options, then all models as run by default, then the rest."""
    found = plans(Grid(Space((GRAPH, QUANTIZE), subject(calibration=False), threads=2)))
    usual = found[0].engine
    engines = [plan for plan in found if stage_of(plan.steps) is Stage.ENGINE]
    assert found[: len(engines)] == engines
    rest = [plan.engine == usual for plan in found[len(engines) :]]
    assert rest == sorted(rest, reverse=True)
    sizes = [len(plan.steps) for plan in found[len(engines) :] if plan.engine == usual]
    assert sizes == sorted(sizes)


def test_what_is_left_of_a_grid_comes_in_its_order() -> None:
    """Known combinations are passed over; with all known there is nothing left."""
    grid = Grid(Space((), subject(), threads=2))
    found = plans(grid)
    known = {plan.key for plan in found[:3]}
    assert grid.fresh(known) == grid.first[3]
    assert grid.fresh({plan.key for plan in found}) is None


def test_a_space_of_many_numbers_ends_all_the_same() -> None:
    """A grid is never longer than the largest budget."""
    again = Technique(name="again", type=TechniqueType.QUANTIZATION)
    grid = Grid(Space((GRAPH, QUANTIZE, again), subject(), threads=64))
    assert len(grid.first) == 1000


@given(st.floats(-1e3, 1e3), st.floats(0.001, 1e3), st.integers(-50, 50), st.integers(0, 200))
def test_values_of_a_range_are_in_it(low: float, length: float, first: int, count: int) -> None:
    """Ends and middle of a long range, all of a short one."""
    for kind in (FloatDistribution(low, low + length), IntDistribution(first, first + count)):
        values = _values(kind)
        assert all(kind.low <= value <= kind.high for value in values)
        assert {kind.low, kind.high} <= set(values)
        assert len(set(values)) == len(values) <= 8
    assert _values(FloatDistribution(1e-4, 1, log=True))[1] == 0.01
    assert _values(FloatDistribution(0, 1, step=0.5)) == [0, 0.5, 1]
    assert _values(CategoricalDistribution(("a", "b"))) == ["a", "b"]
