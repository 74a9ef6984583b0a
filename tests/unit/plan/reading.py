"""What tests of rollouts read off a World."""

from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionType, LastRun, Version
from retune.plan.draft import condition_of
from tests.answers import digest_of
from tests.unit.plan.world import World


def message_of(world: World, kind: ConditionType) -> str:
    """Return the sentence of a condition."""
    condition = condition_of(world.resource.status, kind)
    return condition.message if condition else ""


def rollout_of(world: World) -> ActiveRollout:
    """Return the rollout under way."""
    assert world.resource.status.rollout is not None
    return world.resource.status.rollout


def last_of(world: World) -> LastRun:
    """Return how the last run ended."""
    assert world.resource.status.last_run is not None
    return world.resource.status.last_run


def champion_of(world: World) -> Version:
    """Return the champion."""
    assert world.resource.status.champion is not None
    return world.resource.status.champion


def settle_back(world: World) -> None:
    """Let the champion's pods come back, and the run end."""
    world.settled, world.weather, world.paused = True, None, False
    world.reconcile()


def is_rejected(world: World) -> bool:
    """Whether the first run's bundle may not go live again."""
    return digest_of("digits-r1") in {entry.digest for entry in world.resource.status.rejected}
