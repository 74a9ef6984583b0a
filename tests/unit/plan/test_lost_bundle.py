"""The store loses the bundle of a champion: it is looked for, told, and the delivered model takes its place."""

from typing import Any

import pytest

from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage
from retune.contract.requests import BaselineRequest
from retune.contract.results import Reason, Verdict
from retune.plan.draft import condition_of
from tests.kstatus import Kstatus, kstatus, seen_by_kstatus
from tests.unit.plan.world import CrashError, World, spec

DELIVERED = "file:///delivered"
WATCHED: dict[str, Any] = {"monitoring": {"production": {"uri": "pvc://captured/digits"}, "window": "1h", "drift": {}}}
Told = tuple[ConditionStatus, str]


def promoted(**changes: Any) -> World:
    """A world in which a version of a run serves."""
    world = World(spec=spec(**changes), value=DELIVERED, manager=None)
    world.run_to_promotion()
    champion = world.resource.status.champion
    assert champion is not None
    assert world.value == champion.uri
    return world


def told(world: World, kind: ConditionType = ConditionType.BUNDLE_AVAILABLE) -> Told | None:
    """What a condition says."""
    condition = condition_of(world.resource.status, kind)
    return (condition.status, condition.reason) if condition else None


def miss(world: World, *, nonce: str = "again") -> None:
    """Have a run miss the bundle."""
    world.change(manualNonce=nonce)
    work(world)


def work(world: World, passes: int = 1) -> None:
    """Let Jobs do their work, pass for pass."""
    for _ in range(passes):
        world.reconcile()
        for name in world.active_jobs():
            world.finish(name, world.answer(name, Verdict.NO_GAIN))
    world.reconcile()


def test_the_delivered_model_takes_the_place_of_a_lost_champion() -> None:
    """Fault 23: missed by a run, confirmed by the baseline, told as a warning, and given to the target at once."""
    world = promoted()
    version = world.resource.status.champion
    lost = world.lose()
    miss(world)
    assert told(world) == (ConditionStatus.UNKNOWN, "BundleMissed")
    (baseline,) = world.active_jobs()
    request = world.requests[baseline]
    assert isinstance(request, BaselineRequest)
    assert request.serves is not None
    assert request.serves.digest == lost
    work(world)
    status = world.resource.status
    assert world.value == DELIVERED
    assert status.champion == status.original
    assert told(world) == (ConditionStatus.FALSE, "FellBack")
    assert told(world, ConditionType.READY) == (ConditionStatus.TRUE, "ChampionServing")
    warnings = [event for event in world.events if event.warning]
    assert {"BundleLost", "FellBack"} <= {event.reason for event in warnings}
    assert version is not None
    assert any(f"version {version.version}" in event.message for event in warnings if event.reason == "BundleLost")


def test_nothing_is_held_against_a_version_whose_bundle_was_lost() -> None:
    """Fault 23: it is not rejected, its run is not said to be rolled back, and a later run may bring it again."""
    world = promoted()
    lost, rollbacks = world.lose(), world.resource.status.triggers.rollback_streak
    miss(world)
    work(world)
    status = world.resource.status
    assert (status.rejected, status.triggers.rollback_streak) == ((), rollbacks)
    assert status.last_run is not None
    assert (status.last_run.outcome, status.last_run.reason) == (Outcome.FAILED, "BundleNotFound")
    world.bundles = 1
    world.change(manualNonce="once more")
    world.promote()
    assert world.resource.status.champion is not None
    assert world.resource.status.champion.run_name == "digits-r3"
    assert lost not in {entry.digest for entry in world.resource.status.rejected}
    assert told(world) == (ConditionStatus.TRUE, "Stored")


def test_a_lost_version_that_a_person_puts_back_is_not_taken_for_the_delivered_model() -> None:
    """Its folder was restored and the variable set by hand: the bundle is verified and measured, and is champion."""
    world = promoted()
    served, lost = world.value, world.lose()
    miss(world)
    work(world)
    assert world.value == DELIVERED
    world.lost.clear()
    world.edit_field(served, "kubectl")
    work(world)
    status = world.resource.status
    assert status.champion is not None
    assert status.original is not None
    assert (world.value, status.champion.digest, status.champion.injected_value) == (served, lost, served)
    assert status.original.injected_value != served
    assert told(world, ConditionType.ROLLED_OUT) == (ConditionStatus.TRUE, "Readopted")


def test_a_store_that_is_away_for_a_while_costs_no_champion() -> None:
    """Fault 23: no Job can say more than that it does not reach it; once it is back, the bundle is seen to be there."""
    world = promoted()
    served = world.value
    world.store_away = True
    miss(world)
    for _ in range(5):
        work(world)
        world.wait(700)
    assert told(world) == (ConditionStatus.UNKNOWN, "BundleMissed")
    assert world.value == served
    world.store_away = False
    work(world)
    assert told(world) == (ConditionStatus.TRUE, "Stored")
    assert world.value == served
    assert world.resource.status.stage is Stage.MONITORING


@pytest.mark.parametrize(
    "reason", [Reason.STORE_NOT_WRITABLE, Reason.BUNDLE_FORBIDDEN, Reason.BUNDLE_NOT_FOUND, Reason.UNEXPECTED]
)
def test_a_baseline_that_fails_confirms_nothing(reason: Reason) -> None:
    """Whatever it says of itself: only a baseline that has published version 1 knows that the store is there."""
    world = promoted()
    served = world.value
    world.lose()
    miss(world)
    (baseline,) = world.active_jobs()
    world.fail(baseline, reason)
    world.reconcile()
    assert world.value == served
    assert told(world) == (ConditionStatus.UNKNOWN, "BundleMissed")
    world.wait(700)
    work(world)
    assert world.value == DELIVERED


def test_a_check_that_misses_the_bundle_is_enough() -> None:
    """Fault 23: a watched champion is missed by the next window, though no run needs it for months."""
    world = promoted(**WATCHED)
    world.lose()
    for _ in range(3):
        world.wait(3700)
        work(world)
    assert world.value == DELIVERED
    assert told(world) == (ConditionStatus.FALSE, "FellBack")


def test_windows_that_miss_the_bundle_do_not_begin_the_search_for_it_anew() -> None:
    """A baseline that is under way is waited for, however many windows end meanwhile."""
    world = promoted(**WATCHED)
    world.lose()
    for _ in range(4):
        world.wait(3700)
        world.reconcile()
        for name in world.active_jobs():
            if "-w" in name:
                world.finish(name)
    world.reconcile()
    assert [name for name in world.jobs if "-b" in name][1:] == [name for name in world.active_jobs() if "-b" in name]


def lost_for_a_person() -> World:
    """A world whose champion's bundle is known to be lost, in a mode that puts nothing in its place."""
    world = promoted()
    world.lose()
    world.change(mode="RecommendOnly")
    miss(world)
    work(world)
    return world


def test_a_champion_of_a_mode_that_changes_nothing_is_told_and_left() -> None:
    """Without Automatic the value stays, Ready is False, and the message says both ways out."""
    world = lost_for_a_person()
    served = world.value
    ready = condition_of(world.resource.status, ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, "BundleLost")
    assert "Restore it from a copy" in ready.message
    assert kstatus(seen_by_kstatus(world.resource)) is Kstatus.FAILED
    assert world.value == served
    world.change(mode="Automatic")
    world.reconcile()
    assert world.value == DELIVERED


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_lost_bundle_is_not_held_against_the_version_that_takes_its_place(*, by_hand: bool) -> None:
    """A person puts an earlier version there, by the target's field or by rollbackTo: Ready tells of that one."""
    world = promoted()
    second = world.resource.status.champion
    assert second is not None
    world.change(manualNonce="better")
    world.reconcile()
    world.promote()
    world.change(mode="RecommendOnly")
    world.lose()
    miss(world)
    work(world)
    assert told(world) == (ConditionStatus.FALSE, "BundleLost")
    if by_hand:
        world.edit_field(second.injected_value, "kubectl")
    else:
        world.change(rollout={"rollbackTo": 2})
    for _ in range(5):
        work(world)
        world.settled = True
    assert world.value == second.injected_value
    assert told(world) == (ConditionStatus.TRUE, "Stored")
    assert told(world, ConditionType.READY) == (ConditionStatus.TRUE, "ChampionServing")


def test_a_bundle_that_was_restored_is_seen_again() -> None:
    """A person puts the folder back where the mode kept the champion: the next run finds it, and Ready is True."""
    world = lost_for_a_person()
    served = world.value
    world.lost.clear()
    world.change(manualNonce="restored")
    work(world, passes=2)
    assert told(world) == (ConditionStatus.TRUE, "Stored")
    assert told(world, ConditionType.READY) == (ConditionStatus.TRUE, "ChampionServing")
    assert world.value == served


def test_a_field_that_others_own_is_theirs_also_now() -> None:
    """The delivered model is not forced upon a field of another manager: it is told who has it."""
    world = promoted()
    world.lose()
    world.manager = "neighbour"
    miss(world)
    work(world)
    assert world.value != DELIVERED
    assert world.resource.status.stage is Stage.BLOCKED
    assert told(world, ConditionType.TARGET_OWNED) == (ConditionStatus.FALSE, "FieldConflict")
    assert told(world, ConditionType.READY) == (ConditionStatus.FALSE, "BundleLost")


def test_a_refused_write_is_tried_until_it_may_be_made() -> None:
    """Being refused changes no status again and again."""
    world = promoted()
    world.lose()
    world.inject_refused = "Forbidden"
    miss(world)
    work(world)
    world.wait(40)
    world.reconcile()
    before = world.resource.status
    world.wait(40)
    world.reconcile()
    assert world.resource.status == before
    world.inject_refused = None
    world.wait(40)
    world.reconcile()
    assert world.value == DELIVERED


@pytest.mark.parametrize("writes", range(8))
def test_killed_after_any_write_the_delivered_model_serves(writes: int) -> None:
    """Faults 1 and 23: the condition holds how far it is, so that the next process goes on from there."""
    world, undisturbed = promoted(), promoted()
    for one in (world, undisturbed):
        one.lose()
        miss(one)
    for name in world.active_jobs():
        world.finish(name, world.answer(name))
    world.crash_after = writes
    try:
        world.reconcile()
    except CrashError:
        world.reconcile()
    world.crash_after = None
    work(world)
    work(undisturbed)
    assert world.value == undisturbed.value == DELIVERED
    assert told(world) == told(undisturbed)
    assert world.served.count(DELIVERED) >= 1


def test_a_lost_bundle_of_the_delivered_model_is_no_reason_to_fall_back() -> None:
    """A promoted champion whose own bundle is there goes on serving while version 1 is made anew."""
    world = promoted()
    served, original = world.value, world.resource.status.original
    assert original is not None
    world.lost.add(original.digest)
    miss(world)
    work(world)
    assert world.value == served
    assert told(world) == (ConditionStatus.TRUE, "Stored")
    assert world.lost == set()


def test_a_target_that_names_a_lost_bundle_of_an_earlier_resource_waits_for_a_person() -> None:
    """Nobody knows what the manifest said before, so nothing is changed; the message names the bundle."""
    world = promoted()
    served = world.value
    world.lose()
    world.delete()
    world.reconcile()
    world.declare_again(collected=True)
    work(world)
    assert world.value == served
    baselined = condition_of(world.resource.status, ConditionType.BASELINED)
    assert baselined is not None
    assert baselined.reason == "BundleNotFound"
    assert str(served) in baselined.message


def test_events_tell_of_a_bundle_once() -> None:
    """Passes without news post nothing."""
    world = promoted()
    world.lose()
    miss(world)
    work(world)
    before = list(world.events)
    world.wait(3600)
    world.reconcile()
    assert world.events == before
    assert [event.reason for event in world.events].count("FellBack") == 1
