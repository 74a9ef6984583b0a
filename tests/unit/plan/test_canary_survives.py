"""What a canary must survive: killed anywhere, and whatever is done to resource and canary in each of its steps.

However it ends, none is left that nobody tries, and what serves is what a gate has passed or a person has set.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from retune.api.status import ConditionType, Outcome, Stage
from retune.plan.observed import Heard
from tests.kstatus import Kstatus, kstatus, seen_by_kstatus
from tests.unit.plan.reading import champion_of, last_of, rollout_of
from tests.unit.plan.server import Beside
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.trial import (
    ANYWHERE,
    TRIED,
    Step,
    answered,
    first,
    given,
    hold,
    last,
    prove,
    strategy,
    to_last_weight,
    to_promotion,
)
from tests.unit.plan.world import CrashError, World, spec

# --- killed ----------------------------------------------------------------------------------------------------------


def _whole(world: World, reconcile: Callable[[], None], *, fails: bool) -> None:
    """Drive a world from nothing to a version that was tried and promoted, or that failed in its trial."""
    reconcile()
    for number in range(12):
        world.settled = True
        if fails and number == 4:
            world.beside_counts = answered(400, 200)
        reconcile()
        for name in world.active_jobs():
            world.finish(name)
        world.wait(301)
        reconcile()


def _uninterrupted(*, fails: bool) -> World:
    world = World(spec=spec(rollout=strategy(), execution={"runTimeout": "24h"}), wanted=9)
    _whole(world, lambda: (world.reconcile(), None)[1], fails=fails)
    return world


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_killed_after_any_write_a_trial_ends_in_the_same_state(*, fails: bool) -> None:
    """Faults 1 and 2: status, runs, Jobs, target and canary are as without the kill, whichever write was the last."""
    expected = _uninterrupted(fails=fails)
    outcome = last_of(expected).outcome
    assert outcome is (Outcome.ROLLED_BACK if fails else Outcome.PROMOTED)
    assert expected.tried
    for kill_after in range(expected.writes):
        world = World(spec=expected.spec, wanted=9)
        world.crash_after = kill_after
        _whole(world, world.survive, fails=fails)
        assert world.resource == expected.resource, kill_after
        assert (world.value, world.beside, world.tried) == (expected.value, None, expected.tried), kill_after
        assert world.jobs.keys() == expected.jobs.keys(), kill_after


def test_deleted_after_any_write_no_canary_is_left() -> None:
    """Fault 31: the champion's value stays; the canary goes before the finalizer, or with its owner."""
    for delete_after in range(_uninterrupted(fails=False).writes):
        world = World(spec=spec(rollout=strategy()), wanted=9)
        world.crash_after = delete_after
        try:
            _whole(world, lambda world=world: (world.reconcile(), None)[1], fails=False)  # type: ignore[misc]
        except CrashError:
            world.crash_after = None
        world.delete()
        world.reconcile()
        champion = world.resource.status.champion
        assert world.gone
        assert world.value == (champion.injected_value if champion else None)
        assert world.beside is None or world.beside.owner == world.uid


# --- the resource ----------------------------------------------------------------------------------------------------


@ANYWHERE
def test_a_deleted_resource_leaves_no_canary(step: Step) -> None:
    """Removed by us, whatever a garbage collector does later."""
    world = step()
    world.delete()
    world.reconcile()
    assert (world.gone, world.beside, world.value) == (True, None, None)


@TRIED
def test_a_spec_that_wants_no_canary_any_more_has_it_removed_and_goes_on(step: Step) -> None:
    """The target is given the version by a rolling update."""
    world = step()
    world.change(rollout={"strategy": "RollingUpdate"})
    world.reconcile()
    assert (world.beside, rollout_of(world).injected, rollout_of(world).weight_index) == (None, True, None)
    to_promotion(world)
    assert champion_of(world).version == 2


def test_a_spec_that_wants_a_canary_after_all_gets_one_before_the_target_is_touched() -> None:
    """Also where it wanted one before, and the trial had been given up."""
    world = first()
    world.inject_refused = "Forbidden"
    world.change(rollout={"strategy": "RollingUpdate"})
    world.reconcile()
    assert (rollout_of(world).step, world.beside) == ("Give", None)
    world.change(rollout=strategy())
    world.inject_refused = None
    world.reconcile()
    assert (rollout_of(world).step, world.value) == ("CanaryGolden", None)
    assert world.beside is not None


@TRIED
@pytest.mark.parametrize("change", [{"mode": "ObserveOnly"}, {"mode": "RecommendOnly"}, {"manualNonce": "again"}])
def test_a_trial_that_is_not_wanted_any_more_is_given_up(step: Step, change: dict[str, str]) -> None:
    """Nothing of the target was changed, so that nothing is undone."""
    world = step()
    world.change(**change)
    world.reconcile()
    assert (world.beside, world.value, world.resource.status.rollout) == (None, None, None)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Withdrawn"
    assert world.reconcile() == 0


@TRIED
def test_a_trial_that_a_person_aborts_is_not_said_to_go_on(step: Step) -> None:
    """The champion is kept, and no condition tells of a share that the version has no more."""
    world = step()
    world.change(rollout=strategy() | {"rollbackTo": 1})
    world.reconcile()
    assert (world.beside, world.resource.status.rollout, stage_of(world)) == (None, None, Stage.MONITORING)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Withdrawn"
    assert kstatus(seen_by_kstatus(world.resource)) is Kstatus.CURRENT


@pytest.mark.parametrize("change", [{"mode": "ObserveOnly"}, {"rollout": {"strategy": "RollingUpdate"}}])
def test_no_window_counts_in_which_a_canary_has_answered(change: dict[str, Any]) -> None:
    """What is watched is the champion: a window that another version served in a part of says nothing of it."""
    watched = {"performance": {"signals": [{"name": "errors", "kind": "ErrorRate", "limit": "0.05"}]}}
    world = World(spec=spec(rollout=strategy(), monitoring=watched), wanted=9)
    world.run_to_rollout()
    prove(world)
    hold(world)
    world.inject_refused = "Forbidden"
    world.change(**change)
    world.reconcile()
    monitoring = world.resource.status.monitoring
    assert monitoring is not None
    assert (world.beside, monitoring.since) == (None, world.now)


@TRIED
def test_a_person_who_wants_the_delivered_model_ends_the_trial(step: Step) -> None:
    """What is put back serves alone: nobody gets the version that was tried any more."""
    world = step()
    world.change(rollout=strategy() | {"rollbackTo": "1"})
    world.reconcile()
    assert (world.beside, world.value) == (None, None)
    assert champion_of(world).version == 1


def test_nothing_is_tried_before_it_is_approved() -> None:
    """A canary's users are users."""
    world = World(spec=spec(rollout=strategy() | {"approval": "Manual"}), wanted=9)
    world.run_to_rollout()
    candidate = world.resource.status.candidate
    assert candidate is not None
    assert (world.beside, world.value, stage_of(world)) == (None, None, Stage.AWAITING_APPROVAL)
    world.change(rollout=strategy() | {"approval": "Manual", "approvedVersion": candidate.digest})
    world.reconcile()
    assert (world.beside is None, world.value) == (False, None)
    to_promotion(world)
    assert (champion_of(world).version, world.beside) == (2, None)


@TRIED
def test_a_trial_that_is_suspended_stands_still_and_gets_its_time_anew(step: Step) -> None:
    """What serves goes on serving, the canary too."""
    world = step()
    before, weight = world.beside, rollout_of(world).weight
    world.change(suspend=True)
    world.reconcile()
    world.wait(100_000)
    world.reconcile()
    assert (world.beside, stage_of(world)) == (before, Stage.SUSPENDED)
    world.change(suspend=False)
    world.reconcile()
    assert rollout_of(world).weight_start_time in {None, world.now}
    assert rollout_of(world).weight == weight
    to_promotion(world)
    assert champion_of(world).version == 2


def test_a_canary_that_nobody_wants_any_more_stays_while_suspended() -> None:
    """Suspension freezes everything, also what would be tidied up."""
    world = first()
    before = world.beside
    world.change(suspend=True)
    world.edit_template()
    world.reconcile()
    assert world.beside == before
    world.change(suspend=False)
    world.reconcile()
    assert world.beside != before


def test_fewer_weights_than_have_passed_end_the_trial_well() -> None:
    """What was seen of the version is enough for what the spec asks by now."""
    world = last()
    world.change(rollout=strategy({"weight": 10, "hold": "300s"}))
    world.reconcile()
    assert rollout_of(world).injected


def test_another_weight_for_the_step_that_is_tried_is_followed() -> None:
    """The canary gets more pods or fewer."""
    world = first()
    world.change(rollout=strategy({"weight": 40, "hold": "300s"}, {"weight": 50, "hold": "300s"}))
    world.reconcile()
    assert world.beside is not None
    assert (world.beside.replicas, rollout_of(world).weight) == (6, 40)


# --- the canary ------------------------------------------------------------------------------------------------------


@TRIED
def test_a_canary_that_somebody_deletes_is_made_anew_and_tried_from_the_start(step: Step) -> None:
    """Other pods have to show it all again."""
    world = step()
    world.beside = None
    world.reconcile()
    assert len(world.tried) == 2
    assert (rollout_of(world).step, rollout_of(world).weight) == ("CanaryGolden", None)


def test_a_canary_that_is_missed_while_the_target_is_given_the_version_is_not_made_again() -> None:
    """By then the target's own pods show what there is to see."""
    world = given()
    world.beside = None
    to_promotion(world)
    assert (champion_of(world).version, world.tried) == (2, [champion_of(world).injected_value])


@TRIED
def test_a_canary_that_somebody_scales_is_scaled_back(step: Step) -> None:
    """Its share is the step's."""
    world = step()
    assert world.beside is not None
    wanted = world.beside.replicas
    world.beside = replace(world.beside, replicas=30)
    prove(world)
    world.reconcile()
    assert world.beside is not None
    assert world.beside.replicas == wanted


def test_what_an_earlier_resource_left_behind_is_removed() -> None:
    """Without an owner and with our labels: nobody else would, and it serves what was never proven."""
    world = World(spec=spec(), beside=Beside("canary-0", "pvc://old", "template-1", 1, owner=None))
    world.reconcile()
    assert world.beside is None


def test_a_canary_of_an_earlier_trial_that_may_not_be_removed_is_told_of() -> None:
    """Another one cannot be made in its place."""
    world = first()
    world.beside_refused = ("Forbidden", "Retune may not delete deployments.apps")
    world.edit_template()
    world.settled = True
    world.reconcile()
    assert reason_of(world, ConditionType.CANARY_POSSIBLE) == "Forbidden"
    assert (stage_of(world), reason_of(world, ConditionType.STALLED)) == (Stage.BLOCKED, "Forbidden")
    assert world.reconcile() == 0
    world.beside_refused = None
    world.reconcile()
    assert reason_of(world, ConditionType.CANARY_POSSIBLE) == "Possible"


@TRIED
def test_a_canary_that_has_lost_its_owner_is_made_anew(step: Step) -> None:
    """Without one it would outlive the resource."""
    world = step()
    assert world.beside is not None
    world.beside = replace(world.beside, owner=None)
    world.reconcile()
    assert world.beside is not None
    assert world.beside.owner == world.uid


def test_a_canary_of_others_is_left_alone() -> None:
    """A Deployment of its name that is not ours is no canary."""
    theirs = Beside("canary-0", "pvc://old", "template-1", 1, owner="someone")
    world = World(spec=spec(rollout=strategy()), wanted=9, beside=theirs)
    world.run_to_rollout()
    assert world.beside == theirs
    assert reason_of(world, ConditionType.CANARY_POSSIBLE) == "NameConflict"
    world.delete()
    world.reconcile()
    assert (world.gone, world.beside) == (True, theirs)


def test_a_service_that_chooses_others_by_now_leaves_the_weight_where_it_is() -> None:
    """The share that there is is none, whatever the number of pods: time counts again once there are requests."""
    world = first()
    world.beside_unserved = True
    hold(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "CanaryUnserved"
    assert (rollout_of(world).weight, rollout_of(world).effective_weight) == (10, 0)
    assert world.reconcile() == 0
    world.beside_unserved = False
    world.reconcile()
    assert (rollout_of(world).weight_start_time, rollout_of(world).effective_weight) == (world.now, 10)
    hold(world)
    assert rollout_of(world).weight == 50


def test_an_operator_that_was_away_in_a_hold_watches_its_end_itself() -> None:
    """Nobody listened for an hour: the weight is not left before somebody has."""
    world = first()
    world.wait(3600)
    world.watched_since = world.now
    world.reconcile()
    assert rollout_of(world).weight == 10
    world.wait(31)
    world.reconcile()
    assert rollout_of(world).weight == 50


def test_numbers_that_are_gone_judge_nothing() -> None:
    """Pods that stop telling what they count are neither well nor bad for it."""
    world = first()
    world.beside_counts = Heard(trouble="pod y: no answer")
    world.champion_counts = Heard(trouble="pod x: no answer")
    to_last_weight(world)
    hold(world)
    assert rollout_of(world).injected
