"""A name that a rollout needs belongs to something else."""

from retune.api.status import ConditionType, Outcome
from retune.plan.draft import condition_of
from tests.unit.plan.world import World

VERIFY = "digits-r1-verify1"


def blocked_rollout() -> World:
    """Return a rollout whose golden requests cannot be asked, because another object has the Job's name."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.taken["jobs"].add(VERIFY)
    world.reconcile()
    return world


def outcome_of(world: World) -> Outcome | str | None:
    """Return how the last run ended."""
    last = world.resource.status.last_run
    return last.outcome if last else None


def test_a_name_that_another_has_taken_in_the_middle_of_a_rollout_brings_the_champion_back() -> None:
    """Fault 30: the condition names the object that is in the way; nothing is proven, so the champion returns."""
    world = blocked_rollout()
    condition = condition_of(world.resource.status, ConditionType.ROLLED_OUT)
    assert condition is not None
    assert condition.reason == "NameConflict"
    assert VERIFY in condition.message
    world.wait(8000)
    world.reconcile()
    world.settled = True
    world.reconcile()
    assert outcome_of(world) is Outcome.ROLLED_BACK
    assert (world.value, world.resource.status.rollout, world.resource.status.rejected) == (None, None, ())


def test_a_name_that_comes_free_in_the_middle_of_a_rollout_lets_it_go_on() -> None:
    """Fault 30: whoever was in the way is gone before the time is over, and the version is proven after all."""
    world = blocked_rollout()
    world.taken["jobs"].clear()
    world.wait(30)
    world.reconcile()
    world.finish(VERIFY)
    world.reconcile()
    world.wait(600)
    world.reconcile()
    assert outcome_of(world) is Outcome.PROMOTED
