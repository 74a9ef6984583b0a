"""Deadlines count the time that has passed, whatever happens to the machine's clock (fault 29)."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.status import Outcome, Stage
from retune.steady import JUMP_SECONDS, RATE, SteadyClock
from tests.unit.plan.world import World

HOUR = 3600.0


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.passed, self.set_by = 0.0, 0.0
        self.clock = SteadyClock(wall=lambda: 1.8e9 + self.passed + self.set_by, monotonic=lambda: self.passed)

    def shown(self) -> float:
        """Return the seconds that the clock without jumps has shown since the start."""
        return self.clock.now().timestamp() - 1.8e9


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-2 * HOUR, 2 * HOUR)), max_size=20))
def test_what_passes_on_it_is_what_has_passed_but_for_a_tenth(steps: list[tuple[float, float]]) -> None:
    """However the machine's clock jumps; and it never goes back."""
    machine = Machine()
    for passed, jump in steps:
        before = machine.shown()
        machine.passed += passed
        machine.set_by += jump
        grown = machine.shown() - before
        assert grown >= -1e-6
        assert abs(grown - passed) <= RATE * passed + JUMP_SECONDS + 1e-6


def test_a_jump_is_told_and_made_up_for() -> None:
    """A clock that was wrong at the start and is right now is not left wrong for ever."""
    machine = Machine()
    machine.set_by = HOUR
    machine.passed = 1.0
    machine.shown()
    assert machine.clock.jump == pytest.approx(HOUR - RATE, abs=1)
    while machine.passed < 10.1 * HOUR:
        machine.passed += 60
        machine.shown()
    assert machine.clock.jump == 0.0
    assert machine.shown() == pytest.approx(machine.passed + HOUR)


def beside(world: World) -> Machine:
    """Let a world's operator run on a machine whose clock can be set."""
    machine, began = Machine(), world.now
    offset = began.timestamp() - 1.8e9
    world.reconciler._clock = lambda: machine.clock.now() + timedelta(seconds=offset)
    return machine


def run_to_bake(world: World) -> None:
    """Go from nothing to a new version that serves and is watched."""
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    for name in world.active_jobs():
        world.finish(name)
    world.reconcile()
    assert world.resource.status.stage is Stage.BAKING


@pytest.mark.parametrize("jump", [HOUR, 24 * HOUR, -HOUR])
def test_a_jump_during_a_rollout_does_not_end_it(jump: float) -> None:
    """Fault 29: a good candidate is neither rolled back nor rejected because a clock was set."""
    world = World()
    machine = beside(world)
    world.run_to_rollout()
    world.reconcile()
    machine.set_by, machine.passed = jump, machine.passed + 5
    world.reconcile()
    assert world.resource.status.stage is Stage.ROLLING_OUT
    assert not world.resource.status.rejected


@pytest.mark.parametrize("jump", [HOUR, 24 * HOUR])
def test_a_jump_during_a_bake_promotes_nothing_early(jump: float) -> None:
    """Fault 29: a version becomes champion when it was watched for its time, not when a clock says so."""
    world = World()
    machine = beside(world)
    run_to_bake(world)
    machine.set_by, machine.passed = jump, machine.passed + 5
    world.reconcile()
    assert world.resource.status.stage is Stage.BAKING
    machine.passed += HOUR
    world.reconcile()
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome is Outcome.PROMOTED


def test_a_jump_while_no_operator_ran_adds_only_so_much() -> None:
    """Fault 29: a process believes the time before it began only in part, so that it has watched before it decides."""
    world = World()
    run_to_bake(world)
    world.wait(HOUR)
    world.watched_since = world.now
    world.reconcile()
    assert world.resource.status.stage is Stage.BAKING
    world.wait(31)
    world.reconcile()
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome is Outcome.PROMOTED
