"""A rollout by example: what each step waits for, what turns it back, and whose fault that is said to be."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.base import seconds
from retune.api.status import ActiveRollout, ConditionType, LastRun, Outcome, Stage, Version
from retune.contract.results import Reason, Verdict, VerifyResult
from retune.plan.draft import condition_of
from retune.plan.observed import Heard, Incident, JobPhase, LiveNumber
from retune.plan.rollout.strategies import step_of
from tests.answers import digest_of
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.world import World, spec

CRASH = "pod x: container server ended with exit code 3"
DEADLINE = seconds(spec().rollout.progress_deadline)
WATCHED: dict[str, Any] = {
    "performance": {
        "signals": [
            {"name": "error-rate", "kind": "ErrorRate", "limit": "0.05"},
            {"name": "p95-latency", "kind": "Latency", "limit": "0.5"},
        ]
    }
}


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


# --- what is told, and how a version comes back ----------------------------------------------------------------------


def reject_first(world: World) -> None:
    """Have the first run's version rolled back for wrong answers."""
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    settle_back(world)


def test_a_run_that_finds_a_rejected_version_again_says_which_and_why() -> None:
    """The sentence names version, day, reason, and how to try it again."""
    world = World(bundles=1)
    reject_first(world)
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    last = last_of(world)
    assert (last.outcome, last.reason) == (Outcome.GATE_FAILED, "RejectedBefore")
    assert "Version 2 was taken back on 2026-01-01, because" in last.message
    assert f"set rollout.retry to {world.resource.status.rejected[0].digest}" in last.message


def test_a_search_that_leaves_rejected_versions_out_is_told_with_them() -> None:
    """That nothing differs from the champion is not said where something does."""
    world = World()
    reject_first(world)
    world.change(manualNonce="again")
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    (name,) = world.active_jobs()
    found = world.answer(name, Verdict.NO_GAIN)
    known = found.model_copy(update={"reason": "RejectedBefore", "message": "All of it was rolled back before."})
    world.finish(name, known)
    world.reconcile()
    assert "Version 2 was taken back" in last_of(world).message


def test_a_person_lets_a_rejected_version_be_tried_again_once() -> None:
    """rollout.retry starts a run in which it may win; what fails again is rejected again, and stays so."""
    world = World(bundles=1)
    reject_first(world)
    digest = world.resource.status.rejected[0].digest
    world.change(rollout={"retry": digest})
    world.reconcile()
    assert not world.resource.status.rejected
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    assert world.value in world.approved
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    settle_back(world)
    assert [entry.digest for entry in world.resource.status.rejected] == [digest]
    assert world.active_jobs() == []
    assert world.reconcile() == 0


def test_a_known_version_that_a_person_sets_is_champion_again() -> None:
    """Not fought: the condition tells who did it, and the last run what has become of its version."""
    world = World()
    world.run_to_promotion()
    first = champion_of(world)
    world.change(manualNonce="again")
    world.reconcile()
    world.promote()
    assert champion_of(world).version == 3
    world.edit_field(first.injected_value, "kubectl-set")
    world.settled = True
    world.reconcile()
    status = world.resource.status
    assert champion_of(world) == first
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RevertedByOthers"
    assert "kubectl-set put version 2 back" in message_of(world, ConditionType.ROLLED_OUT)
    assert "kubectl-set put version 2 back" in last_of(world).message
    assert "kubectl-set put version 2 back" in message_of(world, ConditionType.OPTIMIZING)
    assert [entry.version for entry in status.rejected] == [3]
    assert world.value == first.injected_value
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldSetByOthers"
    assert world.reconcile() == 0


def test_the_bundle_of_the_delivered_model_is_known_too() -> None:
    """A person may name version 1 by its bundle; what the field had before is still what deletion restores."""
    world = World()
    world.run_to_promotion()
    original = world.resource.status.original
    assert original is not None
    world.edit_field(original.uri, "kubectl-edit")
    world.settled = True
    world.reconcile()
    assert (champion_of(world).version, champion_of(world).injected_value) == (1, original.uri)
    assert world.resource.status.original == original


def test_a_version_that_was_reverted_may_be_put_back_by_hand() -> None:
    """What a person set last counts; it is not taken for the delivered model."""
    world = World()
    world.run_to_promotion()
    second = champion_of(world)
    world.edit_field(None, None)
    world.reconcile()
    assert champion_of(world).version == 1
    world.edit_field(second.injected_value, "kubectl")
    world.reconcile()
    assert champion_of(world).version == 2
    assert not world.resource.status.rejected
    assert world.resource.status.original is not None
    assert world.resource.status.original.injected_value is None


# --- what shows that a version serves --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_asked", [True, False])
def test_what_nobody_showed_to_serve_is_not_said_to_serve(*, is_asked: bool) -> None:
    """A server that ignores the variable may answer all the same."""
    target = {"ref": {"name": "digits"}} | ({"inference": {"modelName": "digits"}} if is_asked else {})
    world = World(spec=spec(target=target))
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    if is_asked:
        answer = VerifyResult(bundle_digest=digest_of("digits-r1"), pods=1, requests=8)
        world.finish(world.active_jobs()[0], answer)
        world.reconcile()
    assert "is not shown to serve" in (world.resource.status.message or "")
    world.wait(600)
    world.reconcile()
    assert champion_of(world).shown_by == "Nothing"
    assert "champion but not shown to serve" in last_of(world).message
    assert "not shown to serve" in message_of(world, ConditionType.READY)


@pytest.mark.parametrize("reason", [Reason.VARIABLE_IGNORED, Reason.PROTOCOL_MISMATCH])
def test_a_server_that_does_not_answer_for_the_version_is_not_held_against_it(reason: Reason) -> None:
    """It ignores the variable, or does not speak the protocol: the version has never answered."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], reason)
    world.reconcile()
    settle_back(world)
    assert last_of(world).reason == reason
    assert not is_rejected(world)


# --- the bake listens ------------------------------------------------------------------------------------------------


def bake_hearing(counts: Heard | None, *, monitoring: dict[str, Any] | None = None) -> World:
    """Return a world whose bake is over, and in which the new pods have counted this."""
    world = World(spec=spec(monitoring=monitoring) if monitoring else spec())
    world.run_to_bake()
    world.counts = counts
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    return world


@pytest.mark.parametrize("monitoring", [None, WATCHED])
def test_half_of_the_requests_failing_turns_back_at_once_and_rejects(monitoring: dict[str, Any] | None) -> None:
    """Fault 25: pods that are ready and answer 500 are no champion; the sentence has the numbers."""
    world = World(spec=spec(monitoring=monitoring) if monitoring else spec())
    world.run_to_bake()
    world.counts = Heard(pods=2, requests=4000, errors=2000)
    world.wait(5)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK
    assert reason_of(world, ConditionType.ROLLED_OUT) == "LiveErrors"
    assert "2000 of 4000 requests failed" in message_of(world, ConditionType.ROLLED_OUT)
    settle_back(world)
    assert is_rejected(world)


@pytest.mark.parametrize(
    ("requests", "errors", "is_promoted", "is_counted"),
    [
        (4000, 2000, False, True),
        (50, 25, False, True),
        (3, 1, True, False),
        (3, 3, True, False),
        (400, 3, True, False),
        (104, 6, False, False),
        (100000, 5300, False, True),
    ],
)
def test_errors_count_as_far_as_their_number_proves_something(
    requests: int, errors: int, *, is_promoted: bool, is_counted: bool
) -> None:
    """What chance may explain rejects nothing; beyond the limit by enough requests, but not surely, it is a doubt."""
    world = bake_hearing(Heard(pods=1, requests=requests, errors=errors), monitoring=WATCHED)
    assert (champion_of(world).version == 2) is is_promoted
    settle_back(world)
    assert is_rejected(world) is is_counted


@pytest.mark.parametrize(
    ("slow", "saturation", "is_promoted", "is_counted"),
    [(0, None, True, False), (300, None, False, True), (300, 0.95, False, False), (40, None, True, False)],
)
def test_latency_counts_unless_the_processor_is_short(
    slow: int, saturation: float | None, *, is_promoted: bool, is_counted: bool
) -> None:
    """A percentile is beyond its limit when more requests than it allows took longer."""
    buckets = {0.1: 1000.0 - slow, 0.5: 1000.0 - slow, 1.0: 1000.0, float("inf"): 1000.0}
    counts = Heard(pods=1, requests=1000, errors=0, buckets=buckets, saturation=saturation)
    world = bake_hearing(counts, monitoring=WATCHED)
    assert (champion_of(world).version == 2) is is_promoted
    settle_back(world)
    assert is_rejected(world) is is_counted


def test_a_version_is_not_held_to_what_the_champion_did_not_keep() -> None:
    """Where errors have another cause, the champion has them too: only what is worse than its own turns back."""
    world = World(spec=spec(monitoring=WATCHED))
    world.run_to_bake()
    monitoring = world.resource.status.monitoring
    assert monitoring is not None
    signal = {"name": "error-rate", "verdict": "Breach", "value": "0.1"}
    suffering = type(monitoring).model_validate(monitoring.to_dict() | {"signals": [signal]})
    world.update(status=world.resource.status.model_copy(update={"monitoring": suffering}))
    world.counts = Heard(pods=1, requests=4000, errors=360)
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2


def test_errors_that_the_champion_had_too_are_not_the_version_s() -> None:
    """Clients that send what the server answers with 500 do so before and after; worse than that still turns back."""
    world = World()
    world.counts = Heard(pods=1, requests=10000, errors=1000)
    world.run_to_bake()
    assert rollout_of(world).errors_before == "0.100000"
    world.counts = Heard(pods=1, requests=4000, errors=410)
    world.wait(5)
    world.reconcile()
    assert stage_of(world) is Stage.BAKING
    world.counts = Heard(pods=1, requests=4000, errors=2000)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK


def test_a_query_without_a_count_is_a_doubt_and_no_proof() -> None:
    """A share of unknown numbers rolls back once the bake is over, and rejects nothing."""
    queried = {"name": "errors", "kind": "ErrorRate", "limit": "0.05", "query": "sum(rate(x[{{window}}]))"}
    monitoring = {"performance": {"prometheus": {"server": "main"}, "signals": [queried]}}
    number = LiveNumber("errors", 0.33, "Measured", "0.33.")
    world = bake_hearing(Heard(numbers=(number,)), monitoring=monitoring)
    settle_back(world)
    assert last_of(world).reason == "LiveErrors"
    assert not is_rejected(world)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (Heard(pods=1, requests=4000, errors=3), "In its bake: 3 of 4000 requests failed"),
        (Heard(pods=1, requests=0, errors=0), "Baked without traffic: no request was answered"),
        (Heard(pods=1, requests=43, errors=0), "Baked without a verdict on live traffic"),
        (Heard(pods=1, requests=400, errors=0, trouble="pod z: silent"), "not every pod was read: pod z: silent"),
        (Heard(trouble="pod 10.0.0.1: no answer"), "Baked without being listened to: pod 10.0.0.1: no answer"),
        (None, "Baked without being listened to"),
    ],
)
def test_a_promotion_says_what_was_heard_in_the_bake(counts: Heard | None, words: str) -> None:
    """Silence is told as silence."""
    world = bake_hearing(counts)
    assert champion_of(world).version == 2
    assert words in message_of(world, ConditionType.ROLLED_OUT)


def test_errors_under_a_template_that_others_changed_reject_nothing() -> None:
    """They may be those of the other image."""
    world = World()
    world.run_to_bake()
    world.edit_template()
    world.reconcile()
    world.settled = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.counts = Heard(pods=2, requests=4000, errors=2000)
    world.reconcile()
    settle_back(world)
    assert last_of(world).outcome is Outcome.ROLLED_BACK
    assert not is_rejected(world)


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
