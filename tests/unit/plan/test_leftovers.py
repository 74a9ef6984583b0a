"""What nobody needs any more in the store: written down before it goes, and nothing else ever."""

import pytest

from retune.api.status import ConditionType, Stage, Version
from retune.contract.paths import leftover_bundle
from retune.contract.results import Reason, SearchResult, Verdict
from retune.plan.draft import Draft, condition_of
from retune.plan.kept import kept
from retune.plan.run.leftovers import removable
from tests.unit.plan.world import World, spec

KEEP_ONE = {"versions": 1, "successfulRuns": 1, "failedRuns": 1}


def promoted_often(world: World, times: int) -> list[Version]:
    """Promote one version after another; returns them, the oldest first."""
    world.run_to_promotion()
    champions = [champion_of(world)]
    for number in range(times - 1):
        world.change(manualNonce=f"again {number}")
        world.reconcile()
        world.promote()
        champions.append(champion_of(world))
    return champions


def champion_of(world: World) -> Version:
    """Return the champion."""
    champion = world.resource.status.champion
    assert champion is not None
    return champion


def leftovers_of(world: World) -> tuple[str, ...]:
    """Return what the status says that nobody needs."""
    return world.resource.status.leftovers


def test_versions_beyond_the_limit_cannot_be_named_any_more_before_their_files_go() -> None:
    """With one earlier champion kept, the others are out of the status, and the next search is asked to remove them."""
    world = World(spec=spec(history=KEEP_ONE))
    first, second, third, fourth = promoted_often(world, 4)
    assert [version.digest for version in world.resource.status.versions] == [third.digest]
    assert set(leftovers_of(world)) >= {leftover_bundle(first.digest), leftover_bundle(second.digest)}
    assert not set(leftovers_of(world)) & {leftover_bundle(version.digest) for version in (third, fourth)}
    world.change(rollout={"rollbackTo": first.digest})
    world.reconcile()
    followed = condition_of(world.resource.status, ConditionType.COMMANDS_FOLLOWED)
    assert followed is not None
    assert (followed.reason, world.value) == ("RollbackUnknown", fourth.injected_value)


def test_what_is_named_anywhere_is_no_leftover() -> None:
    """Delivered, champion, candidate, earlier champions, and the run under way: none of them is written down."""
    world = World(spec=spec(history=KEEP_ONE))
    seen: list[set[str]] = []

    def witness(_: object, decision: object) -> None:
        status = decision.status  # type: ignore[attr-defined]
        needed = {leftover_bundle(version.digest) for version in kept(status)}
        seen.append(needed & set(status.leftovers))

    world.witness = witness
    promoted_often(world, 4)
    assert len(seen) > 20
    assert not any(seen)


def test_the_next_search_is_asked_to_remove_them_once() -> None:
    """It names what it was asked; what it has removed is forgotten, and what came later stays written down."""
    world = World(spec=spec(history=KEEP_ONE))
    promoted_often(world, 3)
    before = leftovers_of(world)
    assert any(path.startswith("runs/digits-r1-") for path in before)
    world.change(manualNonce="once more")
    world.reconcile()
    request = world.requests["digits-r4-search"]
    assert request.leftovers == before
    result = SearchResult(
        spec_hash=request.spec_hash, run=request.run, trials=24, failed=0, removed=request.leftovers[-1]
    )
    world.finish("digits-r4-search", result)
    world.reconcile()
    assert not set(leftovers_of(world)) & set(before)
    world.promote()
    assert leftovers_of(world)


def test_a_search_that_removed_nothing_is_followed_by_one_that_is_asked_again() -> None:
    """Without a word of the Job, nothing counts as removed."""
    world = World(spec=spec(history=KEEP_ONE))
    promoted_often(world, 3)
    before = leftovers_of(world)
    for number in range(2):
        world.change(manualNonce=f"more {number}")
        world.reconcile()
        world.end_run(Verdict.NO_GAIN)
    assert set(before) <= set(leftovers_of(world))
    assert set(before) <= set(world.requests["digits-r5-search"].leftovers)


def test_a_version_that_rollback_to_names_is_kept_beyond_the_limit() -> None:
    """A person's word keeps it, for as long as it is there."""
    world = World()
    first, *_ = promoted_often(world, 3)
    world.change(rollout={"rollbackTo": first.digest}, history=KEEP_ONE)
    for _ in range(8):
        for name in world.active_jobs():
            world.finish(name)
        world.settled = True
        world.reconcile()
        world.wait(600)
    assert champion_of(world).digest == first.digest
    assert leftover_bundle(first.digest) not in leftovers_of(world)


def test_a_version_that_the_target_serves_by_hand_is_not_removed() -> None:
    """Whoever gave the target a version that is not kept any more finds it there when its pods start again."""
    world = World(spec=spec(history=KEEP_ONE))
    first, *_ = promoted_often(world, 4)
    world.edit_field(first.injected_value, "somebody")
    world.reconcile()
    asked = removable(Draft(world.observe(), world.now))
    assert set(leftovers_of(world)) - set(asked) == {leftover_bundle(first.digest)}
    assert asked


def test_a_version_of_another_store_is_not_written_down() -> None:
    """Jobs cannot write there any more: what lies in a store that the spec named before is its owner's to remove."""
    world = World(spec=spec(history=KEEP_ONE, execution={"artifactStore": "pvc://before"}))
    promoted_often(world, 2)
    world.change(execution={"artifactStore": "pvc://after"}, manualNonce="elsewhere")
    world.reconcile()
    world.promote()
    assert not [path for path in leftovers_of(world) if path.startswith("bundles/")]


@pytest.mark.parametrize("stage", ["search", "judge"])
def test_a_run_that_finds_the_store_full_waits_and_goes_on_by_itself(stage: str) -> None:
    """The condition names the volume until an attempt holds; no run fails, and no person is needed."""
    world = World()
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    if stage == "judge":
        world.finish("digits-r1-search")
        world.reconcile()
    name = f"digits-r1-{stage}"
    world.fail(name, Reason.STORE_FULL)
    world.reconcile()
    assert shown(world) == ("StoreFull", "True")
    assert "pvc://store/x" in (world.resource.status.message or "")
    for _ in range(3):
        world.wait(301)
        world.reconcile()
        assert world.active_jobs() == [name]
        assert shown(world) == ("StoreFull", "True")
        world.fail(name, Reason.STORE_FULL)
        assert world.reconcile() == 0
    world.wait(301)
    world.reconcile()
    world.wait(301)
    world.reconcile()
    assert shown(world) == ("Starting", "False")
    world.promote()
    last = world.resource.status.last_run
    assert last is not None
    assert (last.name, last.outcome) == ("digits-r1", "Promoted")


def test_a_run_that_waits_for_room_is_given_up_for_a_person() -> None:
    """A new nonce ends it as any other run."""
    world = World()
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    world.fail("digits-r1-search", Reason.STORE_FULL)
    world.reconcile()
    world.change(manualNonce="again")
    world.reconcile()
    assert world.active_jobs() == ["digits-r2-search"]
    assert world.resource.status.stage is Stage.OPTIMIZING


def shown(world: World) -> tuple[str, str]:
    """Return the reason of Optimizing, and whether the resource is stalled."""
    optimizing = condition_of(world.resource.status, ConditionType.OPTIMIZING)
    stalled = condition_of(world.resource.status, ConditionType.STALLED)
    assert optimizing is not None
    assert stalled is not None
    return optimizing.reason, stalled.status.value
