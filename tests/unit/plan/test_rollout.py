"""A rollout by example: what each step waits for, what turns it back, and whose fault that is said to be."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionType, Outcome, Stage
from retune.contract.results import Reason
from retune.plan.observed import Incident, JobPhase
from retune.plan.rollout.strategies import step_of
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of, settle_back
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.world import World, spec

CRASH = "pod x: container server ended with exit code 3"
DEADLINE = seconds(spec().rollout.progress_deadline)


# --- steps -----------------------------------------------------------------------------------------------------------


def test_a_rollout_takes_its_steps_in_order() -> None:
    """The status says which step waits, and since when."""
    world = World()
    world.run_to_rollout()
    steps = [rollout_of(world).step]
    world.wait(60)
    world.settled = True
    world.reconcile()
    steps.append(rollout_of(world).step)
    assert rollout_of(world).step_start_time == world.now
    world.finish(world.active_jobs()[0])
    world.reconcile()
    steps.append(rollout_of(world).step)
    assert steps == ["FirstGolden", "Golden", "Bake"]


def test_a_wrong_answer_of_the_first_pod_turns_back_before_the_others_are_replaced() -> None:
    """Golden requests are asked as soon as one new pod is ready."""
    world = World()
    world.run_to_rollout()
    world.early = True
    world.reconcile()
    (name,) = world.active_jobs()
    assert not world.settled
    world.fail(name, Reason.GOLDEN_MISMATCH)
    world.reconcile()
    assert (stage_of(world), world.value) == (Stage.ROLLING_BACK, None)


def test_pods_that_were_asked_first_are_not_asked_again_where_they_are_all() -> None:
    """One replica costs one Job."""
    world = World()
    world.run_to_rollout()
    world.early = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.settled = True
    world.reconcile()
    assert rollout_of(world).step == "Bake"
    assert [name for name in world.jobs if "verify" in name] == ["digits-r1-verify1"]


def test_the_first_answers_are_waited_for_though_all_pods_are_ready_by_then() -> None:
    """A Job that was asked counts, whatever happens while it runs."""
    world = World()
    world.run_to_rollout()
    world.early = True
    world.reconcile()
    world.settled = True
    world.reconcile()
    world.fail("digits-r1-verify1", Reason.GOLDEN_MISMATCH)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK


def test_golden_requests_that_nobody_can_ask_are_not_waited_for_for_ever() -> None:
    """A quota that admits no Job leaves no unproven version serving, and is no fault of the version."""
    world = World()
    world.run_to_rollout()
    world.settled, world.quota = True, True
    world.reconcile()
    world.wait(DEADLINE + 1)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "NotVerified"
    settle_back(world)
    assert not is_rejected(world)


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({}, "Give"),
        ({"injected": True}, "FirstGolden"),
        ({"injected": True, "verifyAttempt": 2}, "Golden"),
        ({"injected": True, "verifyAttempt": 1, "bakeStartTime": "2026-01-01T00:00:00Z"}, "Bake"),
        ({"injected": True, "step": "Shadow"}, "FirstGolden"),
    ],
)
def test_a_rollout_that_another_release_began_goes_on_with_the_step_it_is_in(fields: dict[str, Any], step: str) -> None:
    """Fault 32: what an earlier release wrote down is enough; a step of a later one is no error."""
    known = {"version": 2, "startTime": "2026-01-01T00:00:00Z"}
    assert step_of(ActiveRollout.model_validate(known | fields)) == step


def test_a_bake_of_an_earlier_release_is_carried_to_its_end() -> None:
    """Fault 32: its time is not begun anew, and its golden requests are not asked again."""
    world = World()
    world.run_to_bake()
    known = {"step", "step_start_time", "step_jobs", "asked", "shown_by", "template"}
    before = ActiveRollout.model_validate(rollout_of(world).model_dump(exclude=known))
    world.update(status=world.resource.status.model_copy(update={"rollout": before}))
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2
    assert not world.active_jobs()


def test_nothing_is_given_to_a_target_that_is_not_well() -> None:
    """What fails afterwards could not be told from the version's doing; the watch of the champion goes on meanwhile."""
    world = World(paused=True)
    world.run_to_rollout()
    assert (world.value, world.resource.status.rollout) == (None, None)
    assert "paused" in message_of(world, ConditionType.ROLLED_OUT)
    world.paused = False
    world.reconcile()
    assert world.value in world.approved


def test_a_rollout_without_a_run_ends_without_a_record_of_one() -> None:
    """What nobody's run has made can be rolled out, and be taken back."""
    world = World()
    world.run_to_rollout()
    status = world.resource.status
    assert status.candidate is not None
    of_nobody = status.candidate.model_copy(update={"run_name": None})
    world.update(status=status.model_copy(update={"candidate": of_nobody, "run": None, "last_run": None}))
    world.wait(DEADLINE + 1)
    world.reconcile()
    world.settled = True
    world.reconcile()
    assert world.value is None
    assert world.resource.status.rollout is None


def test_a_job_that_was_lost_is_asked_again_under_its_name() -> None:
    """Fault 20: nothing is proven by a Job that nobody has seen end."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    (name,) = world.active_jobs()
    del world.jobs[name]
    world.reconcile()
    assert world.active_jobs() == [name]
    world.jobs[name] = replace(world.jobs[name], phase=JobPhase.RUNNING)
    world.reconcile()
    assert rollout_of(world).step == "Golden"


# --- whose fault it is -----------------------------------------------------------------------------------------------


def test_a_pod_that_is_evicted_during_the_bake_is_waited_for() -> None:
    """Fault 18: nobody's fault; once it is replaced, the bake goes on and the version is promoted."""
    world = World()
    world.run_to_bake()
    world.settled, world.weather = False, "pod x: Evicted: The node was low on resource: memory"
    world.wait(3)
    world.reconcile()
    assert stage_of(world) is Stage.BAKING
    assert "Evicted" in (world.resource.status.message or "")
    world.wait(60)
    world.settled, world.weather = True, None
    world.reconcile()
    assert rollout_of(world).unwell_since is None
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2


@pytest.mark.parametrize(
    "weather", ["pod x: Evicted", "pod x: Unschedulable: 0/3 nodes are available", "exceeded quota"]
)
@pytest.mark.parametrize("is_baking", [False, True])
def test_surroundings_that_last_roll_back_and_reject_nothing(weather: str, *, is_baking: bool) -> None:
    """Fault 16 and 18: waited for within the deadline; then the champion returns, and the version may come back."""
    world = World()
    world.run_to_bake() if is_baking else world.run_to_rollout()
    world.settled, world.weather = False, weather
    world.reconcile()
    world.wait(DEADLINE - 1)
    world.reconcile()
    assert rollout_of(world).rollback_reason is None
    world.wait(2)
    world.reconcile()
    settle_back(world)
    assert last_of(world).outcome is Outcome.ROLLED_BACK
    assert "Not rejected" in last_of(world).message
    assert weather in last_of(world).message
    assert not is_rejected(world)


def test_last_words_that_are_a_sentence_are_followed_by_the_next_one() -> None:
    """A container says what to do as a whole sentence, and ours goes on after it."""
    world = World()
    world.run_to_rollout()
    world.settled, world.weather = False, "pod x: container model: ended with exit code 1: Restore the bundle."
    world.wait(DEADLINE + 1)
    world.reconcile()
    settle_back(world)
    message = message_of(world, ConditionType.ROLLED_OUT)
    assert "Restore the bundle" in message
    assert message.endswith(". Version 1 serves again.")
    assert ".." not in message


def test_a_deployment_that_is_paused_meanwhile_rolls_back_and_rejects_nothing() -> None:
    """No pod of the version was ever made."""
    world = World()
    world.run_to_rollout()
    world.paused = True
    world.wait(DEADLINE + 1)
    world.reconcile()
    settle_back(world)
    assert "paused" in last_of(world).message
    assert not is_rejected(world)


def test_a_change_of_the_template_gives_pods_their_time_anew_and_is_not_held_against_the_version() -> None:
    """Another image beside our field is its owner's doing, whatever comes of it."""
    world = World()
    world.run_to_rollout()
    world.wait(DEADLINE - 1)
    world.edit_template()
    world.reconcile()
    world.wait(DEADLINE - 1)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_OUT
    world.wait(2)
    world.reconcile()
    settle_back(world)
    assert "changed by others" in last_of(world).message
    assert not is_rejected(world)


def test_a_change_of_the_template_in_the_bake_begins_with_the_first_new_pods_again() -> None:
    """Its pods are others, so they are asked again and baked anew; well, the version is promoted all the same."""
    world = World()
    world.run_to_bake()
    world.edit_template()
    world.reconcile()
    assert rollout_of(world).step == "FirstGolden"
    world.settled = True
    world.reconcile()
    assert world.active_jobs() == ["digits-r1-verify2"]
    world.finish("digits-r1-verify2")
    world.reconcile()
    assert rollout_of(world).bake_start_time == world.now
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2


@pytest.mark.parametrize("is_crash", [True, False])
def test_a_version_that_crashes_or_never_gets_ready_is_rejected(*, is_crash: bool) -> None:
    """Fault 25: the same pods were ready with the champion."""
    world = World()
    world.run_to_rollout()
    if is_crash:
        world.weather, world.crash = f"{CRASH} (CrashLoopBackOff)", Incident(CRASH, world.now)
    world.wait(DEADLINE + 1)
    world.reconcile()
    settle_back(world)
    assert is_rejected(world)
    assert "Not rejected" not in last_of(world).message


def test_a_crash_before_the_bake_is_no_crash_in_it() -> None:
    """A server that had to start twice is well by now."""
    world = World()
    world.run_to_rollout()
    world.crash = Incident(CRASH, world.now)
    world.wait(10)
    world.settled = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2


def test_a_pod_that_was_made_just_now_is_not_blamed_for_not_being_ready() -> None:
    """Pods that are taken away again and again leave young ones behind."""
    world = World()
    world.run_to_rollout()
    world.wait(DEADLINE + 1)
    world.changed = world.now
    world.reconcile()
    settle_back(world)
    assert not is_rejected(world)


def test_a_server_that_nobody_can_ask_is_not_held_against_the_version() -> None:
    """A network policy in the way says nothing of a model."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    for _ in range(3):
        world.fail(world.active_jobs()[0], Reason.SERVER_UNREACHABLE)
        world.reconcile()
        world.reconcile()
    settle_back(world)
    assert last_of(world).reason == Reason.SERVER_UNREACHABLE
    assert not is_rejected(world)
