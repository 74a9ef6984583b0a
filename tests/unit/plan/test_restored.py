"""A resource that came back from a backup: under another UID, with its status or without it, beside its records."""

from retune.api.status import ConditionType, Outcome
from retune.plan.draft import condition_of
from tests.unit.plan.world import World


def restored(world: World, *, status: bool) -> None:
    """Delete the resource with everything that it owns, and create it from a backup; its runs come without an owner."""
    saved, runs = world.resource.status, dict(world.runs)
    world.rivals.clear()
    world.declare_again(collected=True)
    world.left_runs = runs
    if status:
        world.update(status=saved)


def test_a_restored_resource_is_the_one_writer_of_its_target_at_once() -> None:
    """Its Lease names a UID that is gone: it takes it over in its first pass, and nothing else is done."""
    world = World()
    world.run_to_promotion()
    served = world.value
    restored(world, status=True)
    world.reconcile()
    assert world.leases == {"target-1": world.resource.metadata.uid}
    assert (world.value, world.active_jobs()) == (served, [])
    assert world.reconcile() == 0


def test_a_restored_resource_whose_target_another_has_taken_is_told_so() -> None:
    """While it was away, another resource became the target's one writer."""
    world = World()
    world.run_to_promotion()
    restored(world, status=True)
    world.leases["target-1"] = "rival"
    world.rivals.add("rival")
    world.reconcile()
    owned = condition_of(world.resource.status, ConditionType.TARGET_OWNED)
    assert owned is not None
    assert owned.reason == "HeldByAnother"


def test_runs_that_were_restored_without_a_status_do_not_stand_in_the_way() -> None:
    """They are records to read: the next run has the number after theirs."""
    world = World()
    world.run_to_promotion()
    world.change(manualNonce="again")
    world.reconcile()
    world.promote()
    restored(world, status=False)
    world.reconcile()
    world.promote()
    last = world.resource.status.last_run
    assert last is not None
    assert (last.name, last.outcome) == ("digits-r3", Outcome.PROMOTED)
    assert set(world.left_runs) == {"digits-r1", "digits-r2"}


def test_a_run_that_was_left_before_its_end_is_gone_on_with() -> None:
    """What a deletion left behind in the middle of a run is adopted under its number, as far as it asks the same."""
    world = World()
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    runs = dict(world.runs)
    world.declare_again(collected=True)
    world.left_runs = runs
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    run = world.resource.status.run
    assert run is not None
    assert run.name == "digits-r1"
