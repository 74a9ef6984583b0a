"""Histories in a world whose operators are told late: some from fixed seeds, and what long simulations have shown."""

from datetime import timedelta

import pytest

from retune.api.base import seconds
from retune.api.objects import ModelOptimization
from retune.api.status import Outcome, Stage
from tests.unit.plan import late
from tests.unit.plan.late import RESOURCE, TARGET, LateWorld
from tests.unit.plan.simulation import BrokenError, History

HISTORIES = 150
FIRSTS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(30, HISTORIES, 30))]


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRSTS)
def test_histories_end_at_rest_with_what_earned_its_place(first: int) -> None:
    """Faults 1, 3, 5, 20, 29, 30 and 33, mixed: champion, target and rest are as the simulation says they must be."""
    for seed in range(first, first + 30):
        History(seed).play()


def test_a_history_tells_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the test above: an operator that believes a late target breaks a promise, and the history says which."""
    monkeypatch.setattr(late, "must_be_read", lambda *_: False)
    with pytest.raises(BrokenError, match=r"history 1999622927: .* serves, beside champion None"):
        History(1999622927).play()


@pytest.fixture
def world() -> LateWorld:
    """Two operators, of which the first does everything and the second has been told of nothing since the start."""
    return LateWorld(operators=2)


def go_live(world: LateWorld, *, promoted: bool) -> None:
    """Let the first operator take a resource to a version on trial, or to its promotion."""
    for _ in range(12):
        world.resync(world.processes[0])
        world.run(0)
        status = world.resource.status
        if status.rollout is not None and status.rollout.injected and not promoted:
            return
        for name in world.active_jobs():
            world.finish(name)
        world.settled = True
        world.wait(130)


@pytest.mark.parametrize("promoted", [False, True])
def test_a_target_from_before_a_rollout_takes_nothing_back(world: LateWorld, *, promoted: bool) -> None:
    """Faults 3 and 30: it still has the old value, which nobody has put there; the version stays where it is."""
    go_live(world, promoted=promoted)
    before = world.resource.status
    value = world.value
    assert value is not None
    second = world.processes[1]
    world.tell(RESOURCE, process=second)
    assert (TARGET, "") in world.untold(second)
    world.run(1)
    status = world.resource.status
    assert (world.value, status.champion, status.rejected) == (value, before.champion, ())
    assert status.last_run is None or status.last_run.outcome is Outcome.PROMOTED
    assert (status.rollout is not None) is (not promoted)


def test_a_status_from_before_a_rollback_gives_nothing_again(world: LateWorld) -> None:
    """Fault 30: the second operator knows of the rollout that begins, and not that the first has taken it back."""
    seen: list[ModelOptimization] = []
    world.witness = lambda observed, _: seen.append(observed.resource)
    go_live(world, promoted=False)
    beginning = [resource for resource in seen if resource.status.rollout and not resource.status.rollout.injected]
    second = world.processes[1]
    world.resync(second)
    second.resource, second.version = beginning[-1], world.version - 1
    world.settled = False
    world.wait(8000)
    world.resync(world.processes[0])
    world.run(0)
    assert world.value is None
    served = list(world.served)
    world.run(1)
    assert world.served == served


def test_a_bake_lasts_no_longer_because_the_clock_is_set_back(world: LateWorld) -> None:
    """Fault 29: it began by a clock that was a day ahead; the next process watches it for its time, and promotes."""
    world.processes[0].ahead = world.wall = timedelta(days=1)
    go_live(world, promoted=False)
    for _ in range(2):
        for name in world.active_jobs():
            world.finish(name)
        world.settled = True
        world.resync(world.processes[0])
        world.run(0)
    assert world.resource.status.stage is Stage.BAKING
    world.wall = timedelta()
    world.restart(0)
    world.run(0)
    baked = seconds(world.resource.spec.rollout.bake_time)
    world.wait(baked - 1)
    world.run(0)
    assert world.resource.status.stage is Stage.BAKING
    world.wait(40)
    world.run(0)
    last = world.resource.status.last_run
    assert last is not None
    assert last.outcome is Outcome.PROMOTED
