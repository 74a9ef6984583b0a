"""Faults 1, 2 and 31 in every way that takes something of a route: killed or deleted anywhere, all is put back."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.plan.reading import champion_of
from tests.unit.plan.routed import BEFORE, is_back, rest
from tests.unit.plan.simulation_routed import ROUTED, SHADOWED, SWITCHED, TESTED
from tests.unit.plan.world import CrashError, World, spec

WATCHED = {"monitoring": {"window": "24h", "production": {"uri": "pvc://retune-artifacts/captured"}}}
WAYS = pytest.mark.parametrize(
    "rollout",
    [ROUTED, *(pytest.param(way, marks=pytest.mark.slow) for way in (TESTED, SHADOWED, SWITCHED))],
    ids=["weights", "testers", "shadow", "at once"],
)


def world_of(rollout: dict[str, Any]) -> World:
    """Return a world in which nothing has happened yet."""
    return World(spec=spec(rollout=rollout, **WATCHED), wanted=9, rules=BEFORE)


def whole(world: World, reconcile: Callable[[], object]) -> None:
    """Go the whole way, with something that makes passes."""
    reconcile()
    for _ in range(14):
        for name in world.active_jobs():
            world.finish(name)
        world.settled = True
        world.wait(310)
        reconcile()


@pytest.mark.slow
@WAYS
def test_killed_after_any_write_the_route_is_as_before(rollout: dict[str, Any]) -> None:
    """Faults 1 and 2: status, target and rules are as without the kill, whichever write was the last."""
    expected = world_of(rollout)
    whole(expected, lambda: (expected.reconcile(), None)[1])
    assert (champion_of(expected).version, is_back(expected)) == (2, True)
    for kill_after in range(expected.writes):
        world = world_of(rollout)
        world.crash_after = kill_after
        whole(world, world.survive)
        assert is_back(world), kill_after
        assert (world.value, world.resource) == (expected.value, expected.resource), kill_after


@WAYS
def test_deleted_after_any_write_the_route_is_as_before(rollout: dict[str, Any]) -> None:
    """Fault 31: whenever that is."""
    expected = world_of(rollout)
    whole(expected, lambda: (expected.reconcile(), None)[1])
    for delete_after in range(expected.writes):
        world = world_of(rollout)
        world.crash_after = delete_after
        try:
            whole(world, lambda world=world: (world.reconcile(), None)[1])  # type: ignore[misc]
        except CrashError:
            world.crash_after = None
        world.delete()
        world.reconcile()
        rest(world)
        assert (world.gone, world.rules) == (True, BEFORE), delete_after
