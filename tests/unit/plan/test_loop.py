"""The planner by example: one pass through the loop, and each way it can end."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.base import seconds
from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage, Trials
from retune.contract.results import BaselineResult, Reason, Verdict
from retune.plan import names
from retune.plan.draft import condition_of
from retune.plan.observed import Incident, JobPhase, Trouble
from tests.answers import digest_of, stored
from tests.unit.plan.world import World, spec


def reason_of(world: World, kind: ConditionType) -> str:
    """Return the reason of a condition."""
    condition = condition_of(world.resource.status, kind)
    return condition.reason if condition else ""


def stage_of(world: World) -> Stage | None:
    """Return where the loop stands."""
    return world.resource.status.stage


def state_of(world: World, kind: ConditionType) -> ConditionStatus | None:
    """Return the status of a condition."""
    condition = condition_of(world.resource.status, kind)
    return condition.status if condition else None


def test_a_new_resource_has_its_baseline_job_after_three_writes() -> None:
    """Lease, status and Job are all that is written before the first Job exists."""
    world = World()
    assert world.reconcile() == 3
    assert stage_of(world) is Stage.BASELINING
    assert state_of(world, ConditionType.READY) is ConditionStatus.UNKNOWN


def test_a_good_candidate_becomes_champion() -> None:
    """The whole pass ends Promoted, with the candidate's bundle on the target and in the status."""
    world = World()
    world.run_to_promotion()
    status = world.resource.status
    assert status.stage is Stage.MONITORING
    assert status.champion is not None
    assert status.champion.version == 2
    assert world.value == status.champion.injected_value
    assert status.last_run is not None
    assert status.last_run.outcome is Outcome.PROMOTED
    assert status.last_run.report_uri
    assert world.runs["digits-r1"].status.outcome is Outcome.PROMOTED
    assert world.runs["digits-r1"].status.comparisons
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE
    assert not world.resource.metadata.finalizers


@pytest.mark.parametrize("verdict", [Verdict.NO_GAIN, Verdict.GATE_FAILED])
def test_a_candidate_that_does_not_pass_the_gate_never_reaches_the_target(verdict: Verdict) -> None:
    """NoGain and GateFailed end the run; nothing is injected and no new run starts by itself."""
    world = World()
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    name = world.active_jobs()[0]
    world.finish(name, world.answer(name, verdict))
    world.reconcile()
    assert world.served == []
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome.value == verdict.value
    assert world.active_jobs() == []
    assert stage_of(world) is Stage.MONITORING


def test_a_wrong_golden_answer_rolls_back_and_the_bundle_is_not_proposed_again() -> None:
    """Fault 24/25: the previous value returns, the digest is rejected, the run ends RolledBack."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    assert world.value is None
    assert stage_of(world) is Stage.ROLLING_BACK
    world.settled = True
    world.reconcile()
    status = world.resource.status
    assert status.last_run is not None
    assert status.last_run.outcome is Outcome.ROLLED_BACK
    assert status.last_run.reason == Reason.GOLDEN_MISMATCH
    assert [entry.digest for entry in status.rejected] == [digest_of("digits-r1")]
    assert status.champion is not None
    assert status.champion.version == 1
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE


def test_pods_that_never_get_ready_roll_back_at_the_progress_deadline() -> None:
    """Fault 25: the deadline counts from the start of the rollout."""
    world = World()
    world.run_to_rollout()
    world.wait(seconds(world.spec.rollout.progress_deadline) - 1)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_OUT
    world.wait(2)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK
    assert world.value is None


def test_an_unhealthy_bake_rolls_back() -> None:
    """Fault 25: a version whose container ends with an error while it is watched is not promoted."""
    world = World()
    world.run_to_bake()
    assert stage_of(world) is Stage.BAKING
    world.settled = False
    world.crash = Incident("pod x: container server ended with exit code 3", world.now)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK
    assert reason_of(world, ConditionType.ROLLED_OUT) == "UnhealthyDuringBake"


def test_a_field_that_another_manager_owns_is_refused_and_then_forced() -> None:
    """Takeover Refuse blocks with FieldConflict and the manager's name; Force takes over and goes on."""
    world = World(value="s3://old", manager="argocd")
    world.run_to_rollout()
    assert world.value == "s3://old"
    assert stage_of(world) is Stage.BLOCKED
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldConflict"
    assert state_of(world, ConditionType.STALLED) is ConditionStatus.TRUE
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE
    world.change(target=world.spec.target.to_dict() | {"injection": {"takeover": "Force"}})
    world.reconcile()
    assert world.manager == "retune"
    assert world.value in world.approved


def test_a_target_whose_users_will_notice_a_promotion_is_warned_of_once() -> None:
    """The condition goes on saying it, the event is posted once, and nothing is held up by it."""
    world = World(outage="its strategy is Recreate")
    world.run_to_promotion()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "OutageExpected"
    assert state_of(world, ConditionType.TARGET_RESOLVED) is ConditionStatus.TRUE
    warnings = [event for event in world.events if event.reason == "OutageExpected"]
    assert [(event.warning, "Recreate" in event.message) for event in warnings] == [(True, True)]
    world.outage = None
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "Resolved"


def test_a_second_resource_on_one_target_only_watches() -> None:
    """The Lease decides; the loser starts no Job and says who holds it."""
    world = World(leases={"target-1": "mo-2"}, rivals={"mo-2"})
    assert world.reconcile() == 1
    assert world.active_jobs() == []
    assert reason_of(world, ConditionType.TARGET_OWNED) == "HeldByAnother"


@pytest.mark.parametrize("reason", [Reason.MODEL_NOT_FOUND, Reason.DIGEST_MISMATCH, Reason.DATA_INVALID])
def test_a_failed_baseline_blocks_with_its_reason_and_is_tried_again_more_slowly(reason: Reason) -> None:
    """The condition carries the Job's own sentence; attempts are 30 s, then 60 s apart."""
    world = World()
    world.reconcile()
    world.fail(world.active_jobs()[0], reason)
    world.reconcile()
    assert reason_of(world, ConditionType.BASELINED) == reason
    assert stage_of(world) is Stage.BLOCKED
    assert world.reconcile() == 0
    world.wait(31)
    world.reconcile()
    (second,) = world.active_jobs()
    world.fail(second, reason)
    world.reconcile()
    world.wait(31)
    world.reconcile()
    assert world.active_jobs() == []
    world.wait(30)
    world.reconcile()
    assert len(world.active_jobs()) == 1


def test_a_repeated_failure_is_told_once_and_leaves_one_job() -> None:
    """While a failed baseline is tried again its condition stays as it is, and older attempts are removed."""
    world = World()
    world.reconcile()
    for _ in range(4):
        world.fail(world.active_jobs()[0], Reason.DATA_INVALID)
        world.reconcile()
        world.wait(700)
        world.reconcile()
        assert state_of(world, ConditionType.BASELINED) is ConditionStatus.FALSE
        assert reason_of(world, ConditionType.BASELINED) == Reason.DATA_INVALID
    assert [event.reason for event in world.events].count(Reason.DATA_INVALID) == 1
    assert len(world.jobs) == 1


def test_a_corrected_spec_is_tried_at_once() -> None:
    """A new model URI or a new Job image makes a new attempt without waiting."""
    world = World()
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.MODEL_NOT_FOUND)
    world.reconcile()
    world.change(model={"uri": "pvc://store/digits/right.onnx"})
    world.reconcile()
    assert len(world.active_jobs()) == 1


def test_a_refused_job_says_why_and_waits() -> None:
    """Fault 13: an exceeded quota is a condition, and the Job is created once there is room."""
    world = World(quota=True)
    world.reconcile()
    assert reason_of(world, ConditionType.BASELINED) == "QuotaExceeded"
    assert world.reconcile() == 0
    world.quota = False
    world.reconcile()
    assert len(world.active_jobs()) == 1


def test_recommend_only_stops_at_the_proven_candidate_until_the_mode_changes() -> None:
    """The candidate waits in the status; switching to Automatic rolls that very candidate out."""
    world = World(spec=spec(mode="RecommendOnly"))
    world.reconcile()
    for _ in range(3):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    assert world.served == []
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome is Outcome.RECOMMENDED
    world.change(mode="Automatic")
    world.reconcile()
    assert world.value in world.approved
    assert world.resource.status.next_run == 2


def test_observe_only_measures_the_champion_and_starts_no_run() -> None:
    """Mode ObserveOnly ends after the baseline."""
    world = World(spec=spec(mode="ObserveOnly"))
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    assert world.active_jobs() == []
    assert world.resource.status.champion is not None
    assert stage_of(world) is Stage.MONITORING


def test_a_new_nonce_starts_exactly_one_run() -> None:
    """The nonce is level-based: the same value never starts a second run."""
    world = World()
    world.run_to_promotion()
    world.change(manualNonce="again")
    world.reconcile()
    assert world.resource.status.run is not None
    assert world.resource.status.run.name == "digits-r2"
    assert world.resource.status.run.trigger == "Manual"
    assert world.reconcile() == 0


def test_a_spec_change_cancels_the_run_and_its_late_result_is_ignored() -> None:
    """Fault 21: the old run ends Cancelled, its Jobs go, a new run starts under the new spec."""
    world = World()
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    old = world.active_jobs()[0]
    world.change(search={"maxTrials": 5})
    world.reconcile()
    assert old not in world.jobs
    assert world.resource.status.run is not None
    assert world.resource.status.run.name == "digits-r2"
    assert world.runs["digits-r1"].status.outcome is Outcome.CANCELLED


def test_a_foreign_verdict_is_refused() -> None:
    """Fault 22: a result of another run, spec or champion promotes nothing."""
    world = World()
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    name = world.active_jobs()[0]
    forged = world.answer(name).model_copy(update={"champion_digest": "sha256:other"})
    world.finish(name, forged)
    world.reconcile()
    assert world.served == []
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.reason == "ResultForeign"


@pytest.mark.parametrize("uri", ["/mnt/x/evil.so", "pvc://other/digits/bundles/1", ""])
def test_a_baseline_outside_the_store_is_not_believed(uri: str) -> None:
    """Fault 22: version 1 is the bundle that this resource's own store has under its digest, or there is none."""
    world = World()
    world.reconcile()
    (name,) = world.active_jobs()
    honest = world.answer(name)
    assert isinstance(honest, BaselineResult)
    forged = honest.bundle.model_copy(update={"uri": uri})
    world.finish(name, honest.model_copy(update={"bundle": forged}))
    world.reconcile()
    assert world.resource.status.champion is None
    assert reason_of(world, ConditionType.BASELINED) == "ResultForeign"


def test_suspend_holds_jobs_and_a_rollout_and_resume_gives_time_anew() -> None:
    """While suspended nothing moves; afterwards the progress deadline starts over."""
    world = World()
    world.run_to_rollout()
    world.change(suspend=True)
    world.reconcile()
    assert stage_of(world) is Stage.SUSPENDED
    world.wait(10_000)
    assert world.reconcile() == 0
    world.change(suspend=False)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_OUT


def test_suspend_holds_running_jobs() -> None:
    """A search Job is suspended and goes on later as the same Job."""
    world = World()
    world.reconcile()
    (name,) = world.active_jobs()
    world.change(suspend=True)
    world.reconcile()
    assert world.jobs[name].phase is JobPhase.SUSPENDED
    world.change(suspend=False)
    world.reconcile()
    assert (world.jobs[name].phase, world.active_jobs()) == (JobPhase.WAITING, [name])


def test_time_that_a_job_waits_for_a_node_does_not_count() -> None:
    """Fault 16: it may wait for longer than it may run, and is ended once it has run for as long, not before."""
    world = World()
    world.reconcile()
    (name,) = world.active_jobs()
    allowed = seconds(world.resource.spec.execution.run_timeout)
    world.wait(3 * allowed)
    assert world.reconcile() == 0
    world.jobs[name] = replace(world.jobs[name], phase=JobPhase.RUNNING, running_since=world.now)
    world.wait(allowed - 1)
    world.reconcile()
    assert (world.jobs[name].expired, world.look_again) == (False, 1)
    world.wait(1)
    world.reconcile()
    assert world.jobs[name].expired
    assert world.reconcile() == 0


def test_deleting_in_the_middle_of_a_rollout_puts_the_champion_back_first() -> None:
    """Deleting never leaves an unproven version serving."""
    world = World()
    world.run_to_rollout()
    assert world.resource.metadata.finalizers
    world.delete()
    world.reconcile()
    assert world.gone
    assert world.value is None


def test_deleting_later_keeps_the_champion_or_restores_the_original_as_told() -> None:
    """KeepChampion leaves what serves; RestoreOriginal gives the field up."""
    keep = World()
    keep.run_to_promotion()
    keep.delete()
    assert keep.gone
    assert keep.value in keep.approved
    restore = World(spec=spec(deletionPolicy="RestoreOriginal"))
    restore.run_to_promotion()
    restore.delete()
    restore.reconcile()
    assert restore.gone
    assert restore.value is None


def test_a_field_changed_by_others_is_said_and_left_alone() -> None:
    """Fault 26: no fight; the value stays and the condition names who set it."""
    world = World()
    world.run_to_promotion()
    world.value, world.manager = "s3://mine", "kubectl-edit"
    world.reconcile()
    assert world.value == "s3://mine"
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldChanged"
    assert "kubectl-edit" in (world.resource.status.message or "")
    assert world.reconcile() == 0


def test_a_target_that_goes_away_blocks_and_is_found_again() -> None:
    """Fault 26: nothing is recreated; when it returns, the loop goes on from what is observed."""
    world = World()
    world.run_to_promotion()
    world.target_uid = None
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "NotFound"
    assert state_of(world, ConditionType.READY) is ConditionStatus.FALSE
    world.target_uid = "target-2"
    world.value = None
    world.reconcile()
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE
    assert world.resource.status.target_uid == "target-2"


@pytest.mark.parametrize("value", [None, "pvc://store/digits/model.onnx"])
def test_a_target_that_was_created_again_is_given_the_champion(value: str | None) -> None:
    """A reinstallation, a forced sync or a disaster is no wish to have the delivered model back."""
    world = World(value=value)
    world.run_to_promotion()
    champion = world.resource.status.champion
    assert champion is not None
    world.target_uid, world.value, world.settled = "target-2", value, True
    world.reconcile()
    assert world.value == champion.injected_value
    assert world.resource.status.champion == champion.model_copy(update={"shown_by": "Nothing"})
    assert "not shown to serve" in (world.resource.status.message or "")
    assert not world.resource.status.rejected
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldOwned"
    assert world.reconcile() == 0


def test_a_new_target_whose_manifest_owns_the_variable_is_left_alone_and_told() -> None:
    """Takeover Refuse holds for a target that was created again too."""
    world = World()
    world.run_to_promotion()
    original = world.resource.status.original
    assert original is not None
    world.target_uid, world.value = "target-2", None
    world.inject_refused = "helm owns it"
    world.reconcile()
    assert world.value is None
    assert state_of(world, ConditionType.TARGET_OWNED) is ConditionStatus.FALSE
    world.inject_refused = None
    world.wait(60)
    world.reconcile()
    assert world.value is not None


def test_a_status_that_is_older_than_the_target_does_not_tell_a_version_as_the_delivered_model() -> None:
    """Restored from before the promotion: the bundle that the target names is verified, measured and champion."""
    world = World()
    world.run_to_promotion()
    served, status = world.value, world.resource.status
    old = status.model_copy(update={"champion": status.original, "next_version": 2})
    world.resource = world.resource.model_copy(update={"status": old})
    world.reconcile()
    (name,) = world.active_jobs()
    assert world.requests[name].serves.uri == served
    world.finish(name)
    world.reconcile()
    champion = world.resource.status.champion
    assert champion is not None
    assert (champion.version, champion.digest, champion.injected_value) == (2, digest_of("digits-r1"), served)
    assert champion.shown_by == "Nothing"
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Readopted"


def test_a_resource_without_its_status_finds_the_version_that_serves() -> None:
    """Restored from a backup without status, or created again after KeepChampion: what serves is champion, verified."""
    before = World()
    before.run_to_promotion()
    served = before.value
    world = World(uid="mo-2", value=served, manager="retune")
    world.reconcile()
    (name,) = world.active_jobs()
    assert world.requests[name].serves.uri == served
    world.finish(name)
    world.reconcile()
    status = world.resource.status
    assert status.champion is not None
    assert status.original is not None
    assert (status.champion.version, status.champion.injected_value) == (2, served)
    assert status.champion.digest == digest_of("digits-r1")
    assert [metric.value for metric in status.champion.metrics] == ["0.97"]
    assert (status.original.version, status.original.injected_value) == (1, status.original.uri)
    assert world.served == []
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Readopted"


def test_numbers_of_one_bundle_are_never_those_of_another_that_serves_by_now() -> None:
    """The variable is changed while a bundle is measured: nothing is adopted, and what serves now is measured."""
    before = World()
    before.run_to_promotion()
    world = World(uid="mo-2", value=before.value, manager="retune")
    world.reconcile()
    (name,) = world.active_jobs()
    world.value = stored(str(before.value).rpartition("/bundles/")[0], "another").uri
    world.finish(name)
    world.reconcile()
    refused = world.resource.status
    assert refused.champion is None
    assert reason_of(world, ConditionType.BASELINED) == "ResultForeign"
    world.wait(60)
    world.reconcile()
    (again,) = world.active_jobs()
    assert world.requests[again].serves.uri == world.value
    world.finish(again)
    world.reconcile()
    assert world.resource.status.champion is not None
    assert world.resource.status.champion.digest == digest_of("another")


@pytest.mark.parametrize("value", ["pvc://elsewhere/bundles/" + "a" * 64, "pvc://store/digits/bundles/latest", "x"])
def test_only_a_bundle_of_the_own_store_is_found_again(value: str) -> None:
    """Anything else in the variable is what the manifest calls the delivered model."""
    world = World(value=value, manager="kubectl")
    world.reconcile()
    (name,) = world.active_jobs()
    assert world.requests[name].serves is None


@pytest.mark.parametrize(
    ("reason", "done", "active"),
    [
        ("OutOfMemory", 5, ["digits-r1-judge"]),
        ("OutOfMemory", 1, []),
        ("OutOfMemory", 0, []),
        ("DeadlineExceeded", 0, ["digits-r1-judge"]),
        ("Evicted", 5, []),
    ],
)
def test_a_search_that_runs_out_loses_no_candidate(reason: str, done: int, active: list[str]) -> None:
    """Trials that ended are judged, and the run says what ended the search; without any, the run fails with it."""
    world = World()
    world.reconcile()
    (baseline,) = world.active_jobs()
    world.finish(baseline)
    world.reconcile()
    world.trials = Trials(total=20, done=done)
    world.reconcile()
    trouble = Trouble(reason, "pod x needed more than its limit: raise it.", world.now)
    world.jobs["digits-r1-search"] = replace(world.jobs["digits-r1-search"], phase=JobPhase.FAILED, trouble=trouble)
    world.reconcile()
    assert world.active_jobs() == active
    run, last = world.resource.status.run, world.resource.status.last_run
    told = run.trials.ended if run else last.message if last else ""
    assert "raise it." in str(told)


@pytest.mark.parametrize("verdict", [Verdict.NO_GAIN, Verdict.GATE_FAILED])
def test_a_run_without_gain_says_that_its_search_was_cut_short(verdict: Verdict) -> None:
    """The judge sees the trials alone: what it does not find must not read as if nothing was to be found."""
    world = World()
    world.reconcile()
    (baseline,) = world.active_jobs()
    world.finish(baseline)
    world.reconcile()
    world.trials = Trials(total=20, done=5)
    world.reconcile()
    trouble = Trouble("OutOfMemory", "pod x needed more memory than its limit.", world.now)
    world.jobs["digits-r1-search"] = replace(world.jobs["digits-r1-search"], phase=JobPhase.FAILED, trouble=trouble)
    world.reconcile()
    world.finish("digits-r1-judge", world.answer("digits-r1-judge", verdict))
    world.reconcile()
    last = world.resource.status.last_run
    assert last is not None
    assert last.message.endswith(
        "The search was cut short: Job digits-r1-search: pod x needed more memory than its limit."
    )


def test_history_keeps_as_many_runs_as_told() -> None:
    """Finished runs beyond the limits are deleted, oldest first; the champion's run stays."""
    world = World(spec=spec(history={"successfulRuns": 1, "failedRuns": 1}))
    world.run_to_promotion()
    for number in range(5):
        world.change(manualNonce=f"n{number}")
        world.reconcile()
        world.finish(world.active_jobs()[0])
        world.reconcile()
        name = world.active_jobs()[0]
        world.finish(name, world.answer(name, Verdict.NO_GAIN))
        world.reconcile()
    assert sorted(world.runs) == ["digits-r1", "digits-r5", "digits-r6"]


def _requests_after(world: World, runs: int) -> dict[str, Any]:
    """Return the requests made after so many runs that ended without gain, and one more."""
    world.reconcile()
    world.finish(world.active_jobs()[0])
    for number in range(runs):
        world.reconcile()
        world.finish(world.active_jobs()[0])
        world.reconcile()
        name = world.active_jobs()[0]
        world.finish(name, world.answer(name, Verdict.NO_GAIN))
        world.reconcile()
        world.change(manualNonce=f"n{number}")
    world.reconcile()
    return world.requests


def test_a_search_starts_from_the_runs_before_it() -> None:
    """The first search has nothing to start from; later ones name all runs that are kept, newest first."""
    world = World()
    requests = _requests_after(world, 3)
    stored = [names.run_in_store(f"digits-r{number}", uid=world.uid) for number in (1, 2, 3)]
    assert requests["digits-r1-search"].warm_start == ()
    assert requests["digits-r3-search"].warm_start == (stored[1], stored[0])
    assert requests["digits-r4-search"].warm_start == (stored[2], stored[1], stored[0])
    assert requests["digits-r4-search"].run not in stored


def test_a_search_looks_back_on_few_runs() -> None:
    """However long the history is, a request stays small."""
    world = World(spec=spec(history={"successfulRuns": 10}))
    warm = _requests_after(world, 7)["digits-r8-search"].warm_start
    assert warm == tuple(names.run_in_store(f"digits-r{number}", uid=world.uid) for number in (7, 6, 5, 4, 3))


def test_a_search_starts_from_nothing_when_told_so() -> None:
    """spec.search.warmStart decides."""
    world = World(spec=spec(search={"warmStart": False}))
    assert _requests_after(world, 2)["digits-r3-search"].warm_start == ()


def test_events_are_told_once_a_transition() -> None:
    """Reconciling again without news tells nothing."""
    world = World()
    world.run_to_promotion()
    told = len(world.events)
    world.reconcile()
    assert len(world.events) == told
    assert [event.reason for event in world.events].count("Promoted") >= 1
