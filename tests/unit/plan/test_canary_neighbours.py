"""What others do to the target while a version is tried beside it: followed, or the end of the trial, and never fought.

Whatever it is, the version that is tried never gets more than its share by it.
"""

import pytest

from retune.api.status import ConditionType, Outcome
from retune.plan.actions import Action, CreateCanary
from tests.unit.plan.reading import champion_of, is_rejected, last_of, rollout_of
from tests.unit.plan.test_approval import waiting
from tests.unit.plan.test_loop import reason_of
from tests.unit.plan.trial import (
    ANYWHERE,
    TRIED,
    Step,
    answered,
    first,
    hold,
    last,
    prove,
    strategy,
    to_promotion,
)
from tests.unit.plan.world import World, spec


@TRIED
def test_an_edited_template_begins_the_trial_anew_by_a_clone_of_it(step: Step) -> None:
    """What fails then is not held against the version."""
    world = step()
    world.edit_template()
    world.settled = True
    world.reconcile()
    assert world.beside is not None
    assert (world.beside.template, world.beside.replicas) == (world.template, 1)
    assert (rollout_of(world).edited, rollout_of(world).weight_index) == (True, 0)
    prove(world)
    world.beside_counts = answered(400, 200)
    world.reconcile()
    assert last_of(world).reason == "LiveErrors"
    assert not is_rejected(world)


@ANYWHERE
def test_a_target_at_zero_has_no_canary_and_is_tried_again_with_its_first_pods(step: Step) -> None:
    """Nobody who wants no pods gets one of ours, and time stands still."""
    world = step()
    world.wanted = 0
    world.reconcile()
    assert (world.beside, reason_of(world, ConditionType.ROLLED_OUT)) == (None, "ScaledToZero")
    world.wait(100_000)
    assert world.reconcile() == 0
    world.wanted, world.settled = 9, True
    world.reconcile()
    to_promotion(world)
    to_promotion(world)
    assert champion_of(world).version == 2


@pytest.mark.parametrize("before", ["Canary", "RollingUpdate"])
def test_a_target_that_is_at_zero_before_a_trial_gets_no_canary_either(before: str) -> None:
    """Alone behind the Service, a version that nobody has tried would get everything for a moment."""
    world = World(spec=spec(rollout=strategy() | {"strategy": before, "approval": "Manual"}), wanted=9)
    digest = waiting(world)
    world.wanted, world.inject_refused = 0, "Forbidden"
    actions: list[Action] = []
    world.witness = lambda _, plan: actions.extend(plan.actions)
    for name in (before, "Canary"):
        world.change(rollout=strategy() | {"strategy": name, "approval": "Manual", "approvedVersion": digest})
        world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "ScaledToZero"
    assert not [action for action in actions if isinstance(action, CreateCanary)]
    world.wanted = 9
    world.reconcile()
    assert world.beside is not None


def test_a_target_that_is_scaled_is_followed() -> None:
    """The weight stays, and the canary's pods with it."""
    world = last()
    world.wanted = 4
    world.reconcile()
    assert world.beside is not None
    assert (world.beside.replicas, rollout_of(world).effective_weight) == (4, 50)


def test_a_paused_target_keeps_its_canary_until_it_is_resumed() -> None:
    """Given the version, a Deployment that makes no pods could not show it."""
    world = last()
    world.paused = True
    hold(world)
    assert (reason_of(world, ConditionType.ROLLED_OUT), world.value) == ("TargetUnsettled", None)
    assert world.beside is not None
    world.paused = False
    world.reconcile()
    assert rollout_of(world).injected


def test_a_champion_that_is_not_well_is_not_replaced() -> None:
    """Its pods crash: what the canary shows beside it goes on, and the target waits for its own."""
    world = last()
    world.settled = False
    hold(world)
    assert (reason_of(world, ConditionType.ROLLED_OUT), world.value) == ("TargetUnsettled", None)


@ANYWHERE
def test_a_deleted_target_leaves_no_canary(step: Step) -> None:
    """Alone behind the Service, the version that is tried would get everything."""
    world = step()
    world.target_uid = None
    world.reconcile()
    assert (world.beside, reason_of(world, ConditionType.TARGET_RESOLVED)) == (None, "NotFound")


@TRIED
def test_a_target_that_is_made_anew_is_tried_anew(step: Step) -> None:
    """With the model that its manifest names, as it was before."""
    world = step()
    world.target_uid = None
    world.reconcile()
    world.target_uid, world.settled = "target-2", True
    world.reconcile()
    assert world.beside is not None
    assert (rollout_of(world).step, world.leases["target-2"]) == ("CanaryGolden", world.uid)
    to_promotion(world)
    assert champion_of(world).version == 2


def test_a_new_target_gets_the_champion_before_the_next_version_is_tried_beside_it() -> None:
    """What the one before it served, as at any other time."""
    world = World(spec=spec(rollout=strategy({"weight": 50, "hold": "300s"})), wanted=9)
    world.run_to_rollout()
    to_promotion(world)
    promoted = world.value
    assert champion_of(world).version == 2
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        prove(world)
    assert world.resource.status.rollout is not None
    world.target_uid, world.value, world.manager = "target-2", None, None
    world.reconcile()
    assert (world.value, world.resource.status.champion) == (promoted, champion_of(world))
    world.settled = True
    world.reconcile()
    assert champion_of(world).version == 2
    assert rollout_of(world).version == 3


def test_a_target_that_another_resource_holds_by_now_has_no_canary_of_ours() -> None:
    """It was deleted, made anew, and claimed by another."""
    world = first()
    world.target_uid = "target-2"
    world.rivals.add("mo-rival")
    world.leases["target-2"] = "mo-rival"
    world.reconcile()
    assert (world.beside, reason_of(world, ConditionType.TARGET_OWNED)) == (None, "HeldByAnother")


@TRIED
def test_a_field_that_others_set_meanwhile_is_theirs(step: Step) -> None:
    """The trial is over, the run cancelled, and nothing is written over."""
    world = step()
    world.edit_field("file:///foreign", "neighbour")
    world.reconcile()
    assert (world.beside, world.value, last_of(world).outcome) == (None, "file:///foreign", Outcome.CANCELLED)


@TRIED
def test_a_person_who_gives_the_target_the_version_by_hand_ends_the_trial(step: Step) -> None:
    """It is proven there instead, as by any rolling update."""
    world = step()
    candidate = world.resource.status.candidate
    assert candidate is not None
    world.edit_field(candidate.injected_value, "kubectl")
    world.settled = False
    world.reconcile()
    assert (rollout_of(world).injected, rollout_of(world).weight) == (True, None)
    to_promotion(world)
    assert (champion_of(world).version, world.beside) == (2, None)
