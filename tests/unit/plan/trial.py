"""Worlds with a canary, for tests that begin somewhere in its trial."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from retune.plan.observed import Heard
from tests.unit.plan.reading import rollout_of
from tests.unit.plan.world import World, spec

HOLD = 300
"""Seconds that each weight is held here."""
STEPS: tuple[dict[str, Any], ...] = (
    {"weight": 10, "hold": f"{HOLD}s", "minRequests": 100},
    {"weight": 50, "hold": f"{HOLD}s", "minRequests": 100},
)


def strategy(*steps: dict[str, Any], **traffic: Any) -> dict[str, Any]:
    """Return a spec.rollout with these steps of a canary, or the usual two."""
    return {"strategy": "Canary", "canary": {"steps": list(steps or STEPS), "traffic": traffic}}


def with_canary(
    *steps: dict[str, Any], wanted: int = 9, monitoring: dict[str, Any] | None = None, **traffic: Any
) -> World:
    """Return a world whose candidate has just got a pod beside the target, which is asked golden requests."""
    watched = {"monitoring": monitoring} if monitoring else {}
    world = World(spec=spec(rollout=strategy(*steps, **traffic), **watched), wanted=wanted)
    world.run_to_rollout()
    return world


def prove(world: World) -> None:
    """Let golden requests be answered right."""
    for name in world.active_jobs():
        world.finish(name)
    world.reconcile()


def at_weight(
    *steps: dict[str, Any], wanted: int = 9, monitoring: dict[str, Any] | None = None, **traffic: Any
) -> World:
    """Return a world whose canary is at its first weight."""
    world = with_canary(*steps, wanted=wanted, monitoring=monitoring, **traffic)
    prove(world)
    assert rollout_of(world).step == "Weight"
    return world


def hold(world: World) -> None:
    """Let the time of a weight pass."""
    world.wait(HOLD)
    world.reconcile()


def to_last_weight(world: World) -> None:
    """Let every weight but the last pass."""
    for _ in world.resource.spec.rollout.canary.steps[1:]:
        hold(world)


def to_target(world: World) -> None:
    """Let every weight pass, so that the target is given the version."""
    to_last_weight(world)
    hold(world)
    assert rollout_of(world).injected


def to_promotion(world: World) -> None:
    """Let all that is left of a rollout go well."""
    for _ in range(9):
        world.settled = world.beside_settled = True
        prove(world)
        world.wait(HOLD)
        world.reconcile()


def busy(now: datetime) -> Heard:
    """Return what pods have counted by now that answer ten requests a second, all of them well."""
    return answered(10 * now.timestamp())


def answered(requests: float, errors: float = 0.0) -> Heard:
    """Return what pods have counted."""
    return Heard(pods=1, requests=requests, errors=errors)


def made() -> World:
    """Return a world with a canary that golden requests are asked of."""
    return with_canary()


def first() -> World:
    """Return a world with a canary at its first weight."""
    return at_weight()


def last() -> World:
    """Return a world with a canary at its last weight."""
    world = at_weight()
    to_last_weight(world)
    return world


def given() -> World:
    """Return a world whose target is being given the version, while its canary still serves."""
    world = last()
    hold(world)
    return world


TRIED = pytest.mark.parametrize("step", [made, first, last])
"""Steps in which nothing of the target has been changed."""
ANYWHERE = pytest.mark.parametrize("step", [made, first, last, given])
Step = Callable[[], World]
