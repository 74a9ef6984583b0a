"""The planner by example: what users, neighbours and the API server do while something is under way."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from retune.api.base import seconds
from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage
from retune.api.target import is_reserved
from retune.contract.results import Reason, Verdict
from retune.plan.draft import condition_of
from retune.plan.observed import JobPhase
from tests.unit.plan.world import World, spec

INFERENCE = {"modelName": "digits"}
OTHER_MODEL = {"uri": "pvc://store/digits/other.onnx"}


def run_to_search(world: World) -> str:
    """Go from nothing to a running search; returns its Job's name."""
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    (name,) = world.active_jobs()
    return name


def run_to_verdict(world: World) -> None:
    """Go from nothing to a candidate that has just been accepted."""
    run_to_search(world)
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()


def active_run(world: World) -> str | None:
    """Return the name of the run under way."""
    run = world.resource.status.run
    return run.name if run else None


def fail_a_search(world: World) -> None:
    """Go from nothing to a run that failed of its Job's image."""
    world.fail(run_to_search(world), Reason.UNEXPECTED)
    world.reconcile()
    last = world.resource.status.last_run
    assert last is not None
    assert last.outcome is Outcome.FAILED


def test_a_rollout_is_watched_though_the_delivered_model_changes() -> None:
    """A new model's baseline never keeps an unready version from being rolled back."""
    world = World()
    world.run_to_rollout()
    world.change(model=OTHER_MODEL)
    world.reconcile()
    assert world.active_jobs() == []
    world.wait(seconds(world.spec.rollout.progress_deadline) + 1)
    world.reconcile()
    assert world.value is None
    world.settled = True
    world.reconcile()
    status = world.resource.status
    assert status.last_run is not None
    assert status.last_run.outcome is Outcome.ROLLED_BACK
    assert status.stage is Stage.BASELINING


def test_a_run_is_cancelled_before_a_changed_model_is_measured() -> None:
    """Fault 21: the old search does not run on beside the new baseline."""
    world = World()
    search = run_to_search(world)
    world.change(model=OTHER_MODEL)
    world.reconcile()
    assert search not in world.jobs
    assert world.runs["digits-r1"].status.outcome is Outcome.CANCELLED
    (name,) = world.active_jobs()
    assert name.startswith("digits-b")


def test_a_rollback_that_the_api_server_refuses_is_tried_until_it_may() -> None:
    """The bad version is never taken for the champion; the refusal is told once and the value returns in the end."""
    world = World()
    world.run_to_rollout()
    bad, world.inject_refused = world.value, "Forbidden"
    world.wait(seconds(world.spec.rollout.progress_deadline) + 1)
    world.reconcile()
    assert world.value == bad
    assert world.resource.status.stage is Stage.ROLLING_BACK
    told = condition_of(world.resource.status, ConditionType.ROLLED_OUT)
    assert told is not None
    assert told.reason == "Forbidden"
    assert world.reconcile() == 0
    assert world.decide().look_again is not None
    world.inject_refused = None
    world.reconcile()
    world.settled = True
    world.reconcile()
    status = world.resource.status
    assert world.value is None
    assert status.last_run is not None
    assert status.last_run.outcome is Outcome.ROLLED_BACK
    assert status.original is not None
    assert status.original.injected_value is None


def test_a_deletion_that_may_not_undo_its_rollout_waits_until_it_may() -> None:
    """Fault 12 and 31: while putting the champion back is forbidden, the finalizer stays; then both go through."""
    world = World()
    world.run_to_rollout()
    world.inject_refused = "Forbidden"
    world.delete()
    world.reconcile()
    assert world.resource.metadata.finalizers
    assert world.value is not None
    world.inject_refused = None
    world.reconcile()
    assert world.gone
    assert world.value is None


def test_golden_requests_without_an_answer_are_asked_again_and_then_roll_back() -> None:
    """A verify Job whose last words are lost proves nothing, and is not waited for."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    for attempt in range(1, 4):
        name = f"digits-r1-verify{attempt}"
        world.jobs[name] = replace(world.jobs[name], phase=JobPhase.SUCCEEDED, result=None)
        world.reconcile()
    assert world.value is None
    assert world.resource.status.stage is Stage.ROLLING_BACK


@pytest.mark.parametrize("target", [{"ref": {"name": "digits"}}, {"ref": {"name": "digits"}, "inference": INFERENCE}])
def test_a_target_without_pods_proves_nothing_and_costs_no_time(target: dict[str, object]) -> None:
    """Scaled to zero, a rollout waits; scaled up, the new pods have their whole progress deadline."""
    world = World(spec=spec(target=target), wanted=0)
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    told = condition_of(world.resource.status, ConditionType.ROLLED_OUT)
    assert told is not None
    assert told.reason == "ScaledToZero"
    world.wait(100_000)
    assert world.reconcile() == 0
    world.wanted, world.settled = 1, False
    world.reconcile()
    world.wait(seconds(world.spec.rollout.progress_deadline) - 1)
    world.reconcile()
    assert world.resource.status.stage is Stage.ROLLING_OUT
    assert world.value in world.approved


def test_recommend_only_during_a_conflict_keeps_the_candidate_and_ends_the_run() -> None:
    """A candidate that cannot go live yet becomes a recommendation, and goes live when the mode is back."""
    world = World(value="pvc://store/digits/model.onnx", manager="kubectl")
    run_to_verdict(world)
    assert world.resource.status.stage is Stage.BLOCKED
    world.change(mode="RecommendOnly")
    world.reconcile()
    status = world.resource.status
    assert status.run is None
    assert status.candidate is not None
    assert world.runs["digits-r1"].status.outcome is Outcome.RECOMMENDED
    world.manager = None
    world.change(mode="Automatic")
    world.reconcile()
    assert world.value in world.approved


def test_recommend_only_before_the_first_injection_keeps_the_candidate() -> None:
    """A rollout that has not touched the target is taken back, its candidate is not."""
    world = World(inject_refused="Forbidden")
    run_to_verdict(world)
    assert world.resource.status.rollout is not None
    world.change(mode="RecommendOnly")
    world.reconcile()
    status = world.resource.status
    assert (status.rollout, status.run) == (None, None)
    assert status.candidate is not None
    assert world.runs["digits-r1"].status.outcome is Outcome.RECOMMENDED
    assert not world.resource.metadata.finalizers


@pytest.mark.parametrize("moment", [run_to_search, run_to_verdict])
def test_a_run_that_the_mode_cancelled_starts_anew_when_the_mode_is_back(moment: Callable[[World], object]) -> None:
    """ObserveOnly for a while costs a run, not the optimization."""
    world = World(inject_refused="Forbidden")
    moment(world)
    world.change(mode="ObserveOnly")
    world.reconcile()
    assert world.runs["digits-r1"].status.outcome is Outcome.CANCELLED
    world.change(mode="Automatic")
    world.reconcile()
    assert active_run(world) == "digits-r2"


def test_an_edit_after_a_failed_run_starts_one_more() -> None:
    """A corrected image or memory limit is tried without further ado, once."""
    world = World()
    fail_a_search(world)
    assert world.reconcile() == 0
    world.change(execution={"image": "example/optimizer:2"})
    world.reconcile()
    assert active_run(world) == "digits-r2"
    world.fail(world.active_jobs()[0], Reason.UNEXPECTED)
    world.reconcile()
    assert active_run(world) is None
    assert world.active_jobs() == []


def test_an_edit_after_an_honest_verdict_starts_nothing() -> None:
    """Only what a run is judged by, or a failure, makes an edit a reason to start."""
    world = World()
    run_to_search(world)
    world.finish(world.active_jobs()[0])
    world.reconcile()
    name = world.active_jobs()[0]
    world.finish(name, world.answer(name, Verdict.NO_GAIN))
    world.reconcile()
    world.change(execution={"image": "example/optimizer:2"})
    world.reconcile()
    assert world.active_jobs() == []


def test_suspend_takes_a_queued_job_away_and_makes_it_anew() -> None:
    """A queue would start an admitted Job that is merely suspended; its name stays, so a search goes on."""
    world = World(spec=spec(execution={"queueName": "team"}))
    search = run_to_search(world)
    world.jobs[search] = replace(world.jobs[search], phase=JobPhase.RUNNING)
    world.change(suspend=True)
    world.reconcile()
    assert search not in world.jobs
    assert world.reconcile() == 0
    world.change(suspend=False)
    world.reconcile()
    assert world.active_jobs() == [search]


def test_a_job_with_a_queue_keeps_it_when_the_spec_names_none_any_more() -> None:
    """The Job is still the queue's: to suspend the resource is to delete it, whatever the spec says by then."""
    world = World(spec=spec(execution={"queueName": "team"}))
    search = run_to_search(world)
    world.jobs[search] = replace(world.jobs[search], phase=JobPhase.RUNNING)
    world.change(execution={}, suspend=True)
    world.reconcile()
    assert search not in world.jobs


def test_a_conflict_is_over_once_nothing_waits_for_the_field() -> None:
    """TargetOwned does not go on telling of a candidate that is gone."""
    world = World(value="pvc://store/digits/model.onnx", manager="kubectl")
    run_to_verdict(world)
    told = condition_of(world.resource.status, ConditionType.TARGET_OWNED)
    assert told is not None
    assert told.reason == "FieldConflict"
    world.change(search={"maxTrials": 5})
    world.reconcile()
    told = condition_of(world.resource.status, ConditionType.TARGET_OWNED)
    assert told is not None
    assert (told.status, told.reason) == (ConditionStatus.TRUE, "LeaseHeld")


def test_a_resource_made_anew_shares_no_study_with_its_predecessor() -> None:
    """The store outlives a resource, so runs of the same name lie in folders of their own."""
    folders = set()
    for uid in ("mo-1", "mo-2"):
        world = World(uid=uid)
        folders.add(world.requests[run_to_search(world)].run)
    assert len(folders) == 2
    assert all(folder.startswith("digits-r1-") for folder in folders)


def test_the_last_word_on_a_search_is_its_result() -> None:
    """Trials that no scrape has seen are counted all the same."""
    world = World()
    world.finish(run_to_search(world))
    world.reconcile()
    run = world.resource.status.run
    assert run is not None
    assert (run.trials.done, run.trials.total) == (24, 24)


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "PythonPath", "NO_PROXY", "MAVEN_OPTS", "PATH"])
def test_a_variable_that_loaders_read_is_never_written(variable: str) -> None:
    """The API server refuses it; a resource from before that rule is blocked with a sentence."""
    world = World(spec=spec(target={"ref": {"name": "digits"}, "injection": {"name": variable, "takeover": "Force"}}))
    world.reconcile()
    told = condition_of(world.resource.status, ConditionType.TARGET_RESOLVED)
    assert told is not None
    assert told.reason == "VariableReserved"
    assert not world.active_jobs()


@pytest.mark.parametrize("variable", ["MODEL_URI", "MODEL_PATH", "STORAGE_URI", "model", "_MODEL", "PATHS"])
def test_a_variable_of_the_servers_own_is_fine(variable: str) -> None:
    """Only whole names that others read are reserved."""
    assert not is_reserved(variable)


def test_a_value_that_no_status_has_room_for_is_told_and_left_alone() -> None:
    """The resource is blocked with a sentence, not stuck without one."""
    world = World(value="u" * 1025, manager="kubectl")
    world.reconcile()
    told = condition_of(world.resource.status, ConditionType.TARGET_RESOLVED)
    assert told is not None
    assert told.reason == "FieldTooLong"
    assert "MODEL_URI" in told.message
    world.value = "pvc://store/digits/model.onnx"
    world.reconcile()
    assert world.active_jobs()


def test_a_bundle_that_the_store_has_lost_is_made_anew() -> None:
    """Fault 23: the run fails, the delivered model is measured again, and the next run finds its bundle."""
    world = World()
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.BUNDLE_NOT_FOUND)
    world.reconcile()
    (again,) = world.active_jobs()
    assert again.startswith("digits-b2-")
    world.finish(again)
    world.reconcile()
    status = world.resource.status
    assert status.original is not None
    assert (status.original.version, bool(status.original.spec_hash)) == (1, True)
    assert world.active_jobs() == []
    world.change(manualNonce="again")
    world.reconcile()
    assert world.active_jobs() == ["digits-r2-search"]
