"""Killed between any two writes, the next process ends where an uninterrupted one would have (faults 1, 2 and 31)."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.unit.plan.world import CrashError, World


def _whole_pass(world: World, reconcile: Callable[[], None]) -> None:
    """Drive a world from nothing to a promoted champion, always through `reconcile`."""
    reconcile()
    for _ in range(4):
        world.settled = True
        reconcile()
        for name in world.active_jobs():
            world.finish(name)
        reconcile()
    world.wait(600)
    reconcile()


def _uninterrupted() -> World:
    world = World()
    _whole_pass(world, lambda: (world.reconcile(), None)[1])
    return world


WRITES = _uninterrupted().writes


@pytest.mark.parametrize("kill_after", range(WRITES))
def test_killed_after_any_write_ends_in_the_same_state(kill_after: int) -> None:
    """Status, runs, Jobs and target are the same as without the kill, whichever write was the last."""
    world, expected = World(), _uninterrupted()
    world.crash_after = kill_after

    def reconcile() -> None:
        try:
            world.reconcile()
        except CrashError:
            world.reconcile()

    _whole_pass(world, reconcile)
    assert world.resource == expected.resource
    assert world.value == expected.value
    assert world.jobs.keys() == expected.jobs.keys()
    assert {name: run.status for name, run in world.runs.items()} == {
        name: run.status for name, run in expected.runs.items()
    }


@pytest.mark.parametrize("delete_after", range(WRITES + 1))
def test_deleted_after_any_write_a_proven_version_is_left_serving(delete_after: int) -> None:
    """Fault 31: the resource goes, and the target has the champion's value, never an unproven candidate's."""
    world = World()
    world.crash_after = delete_after
    with suppress(CrashError):
        _whole_pass(world, lambda: (world.reconcile(), None)[1])
    world.crash_after = None
    world.delete()
    world.reconcile()
    champion = world.resource.status.champion
    assert world.gone
    assert world.value == (champion.injected_value if champion else None)


def test_the_pass_that_is_interrupted_is_a_whole_one() -> None:
    """Guards the test above: the uninterrupted pass ends with a promoted champion."""
    champion = _uninterrupted().resource.status.champion
    assert champion is not None
    assert champion.version == 2
