"""Whoever waits for a ModelOptimization by kstatus is told the truth at every stage: by meaning, not by names alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from retune.api.base import seconds
from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.contract.results import Reason, Verdict
from retune.plan.draft import condition_of
from retune.plan.observed import JobPhase, Trouble
from tests.kstatus import Kstatus, argo_health, kstatus, seen_by_kstatus
from tests.unit.plan.world import World, spec

CURRENT, FAILED, IN_PROGRESS = Kstatus.CURRENT, Kstatus.FAILED, Kstatus.IN_PROGRESS


def object_with(*conditions: tuple[str, str], observed: int | None = 1, **metadata: Any) -> dict[str, Any]:
    """Return an object of generation 1 with these conditions."""
    status = {"conditions": [{"type": kind, "status": value} for kind, value in conditions]}
    seen = {} if observed is None else {"observedGeneration": observed}
    return {"metadata": {"generation": 1} | metadata, "status": status | seen}


READY, NOT_READY, UNKNOWN = ("Ready", "True"), ("Ready", "False"), ("Ready", "Unknown")
RECONCILING, STALLED = ("Reconciling", "True"), ("Stalled", "True")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (object_with(READY), CURRENT),
        (object_with(NOT_READY), IN_PROGRESS),
        (object_with(UNKNOWN), IN_PROGRESS),
        (object_with(READY, RECONCILING), IN_PROGRESS),
        (object_with(READY, STALLED), FAILED),
        (object_with(READY, RECONCILING, STALLED), IN_PROGRESS),
        (object_with(READY, STALLED, RECONCILING), FAILED),
        (object_with(READY, ("Reconciling", "False"), ("Stalled", "False")), CURRENT),
        (object_with(READY, observed=0), IN_PROGRESS),
        (object_with(READY, observed=None), CURRENT),
        (object_with(observed=None), CURRENT),
        (object_with(READY, STALLED, deletionTimestamp="2026-01-01T00:00:00Z"), Kstatus.TERMINATING),
    ],
)
def test_the_rules_are_those_of_kstatus(document: dict[str, Any], expected: Kstatus) -> None:
    """The order of the rules, and what an object without any condition counts as, are as published."""
    assert kstatus(document) is expected


def test_argo_cd_has_no_health_for_a_kind_it_does_not_know() -> None:
    """But it sees that an object is being deleted."""
    assert argo_health(object_with(NOT_READY, STALLED)) is None
    assert argo_health(object_with(deletionTimestamp="2026-01-01T00:00:00Z")) == "Progressing"


def status_of(world: World) -> Kstatus:
    """Return what Flux would say of the world's resource."""
    return kstatus(seen_by_kstatus(world.resource))


def test_a_resource_that_nobody_has_looked_at_is_in_progress() -> None:
    """A status without a word in it would count as reconciled: so the API server fills in a generation of -1."""
    assert status_of(World()) is IN_PROGRESS


def test_a_whole_pass_is_in_progress_until_the_new_champion_serves() -> None:
    """From the first Job to the end of the bake; nothing in between looks as if it were over."""
    world = World()
    seen: list[tuple[Stage | None, Kstatus]] = []

    def look() -> None:
        world.reconcile()
        seen.append((world.resource.status.stage, status_of(world)))

    look()
    for _ in range(4):
        world.settled = True
        look()
        for name in world.active_jobs():
            world.finish(name)
        look()
    world.wait(600)
    look()
    stages = dict(seen)
    assert stages.pop(Stage.MONITORING) is CURRENT
    assert set(stages) == {Stage.BASELINING, Stage.OPTIMIZING, Stage.GATING, Stage.ROLLING_OUT, Stage.BAKING}
    assert set(stages.values()) == {IN_PROGRESS}
    assert [status for _, status in seen].index(CURRENT) == len(seen) - 1


def test_an_edit_is_in_progress_until_the_operator_has_seen_it() -> None:
    """Also one that changes nothing in the end."""
    world = World()
    world.settle()
    assert status_of(world) is CURRENT
    world.change(execution={"image": "example/optimizer:2"})
    assert status_of(world) is IN_PROGRESS
    world.reconcile()
    assert status_of(world) is CURRENT


def fail_baseline(world: World) -> None:
    """The delivered model cannot be used."""
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.MODEL_NOT_FOUND)


def lose_target(world: World) -> None:
    """The Deployment is deleted."""
    world.settle()
    world.target_uid = None


def change_field(world: World) -> None:
    """A neighbour takes the field."""
    world.run_to_promotion()
    world.edit_field("s3://mine", "kubectl-edit")


def refuse_jobs(world: World) -> None:
    """A quota admits no Job of a run that has begun."""
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.quota = True


def refuse_injection(world: World) -> None:
    """The operator may not change the Deployment."""
    world.inject_refused = "Forbidden"
    world.run_to_rollout()


def search_in_trouble(reason: str) -> Callable[[World], None]:
    """The search's pod cannot do its work."""

    def befall(world: World) -> None:
        world.reconcile()
        world.finish(world.active_jobs()[0])
        world.reconcile()
        (search,) = world.active_jobs()
        trouble = Trouble(reason, "pod x: it waits.", world.now)
        world.jobs[search] = replace(world.jobs[search], phase=JobPhase.WAITING, trouble=trouble)

    return befall


STUCK = ["ObjectMissing", "ImagePullFailed", "ContainerFailed", "SidecarRunsOn", "QuotaExceeded", "AdmissionDenied"]
"""Troubles of a Job that no waiting mends."""


@pytest.mark.parametrize(
    "befall",
    [
        fail_baseline,
        lose_target,
        change_field,
        refuse_jobs,
        refuse_injection,
        *map(search_in_trouble, STUCK),
    ],
)
def test_what_waits_for_a_person_has_failed(befall: Callable[[World], None]) -> None:
    """Whoever waits is not kept waiting until a timeout: Stalled is True, says why, and Reconciling is not."""
    world = World()
    befall(world)
    world.reconcile()
    stalled = condition_of(world.resource.status, ConditionType.STALLED)
    assert status_of(world) is FAILED
    assert stalled is not None
    assert stalled.message == world.resource.status.message


def test_a_check_that_misses_an_object_waits_for_a_person_until_it_is_there() -> None:
    """The champion serves and nobody watches it: what to create is told, and the check goes on by itself then."""
    world = World(spec=spec(monitoring={"production": {"uri": "pvc://captured/digits"}, "window": "1h"}))
    world.settle()
    world.wait(2 * 3600)
    world.reconcile()
    (check,) = world.active_jobs()
    trouble = Trouble("ObjectMissing", "pod x: PersistentVolumeClaim captured does not exist.", world.now)
    world.jobs[check] = replace(world.jobs[check], phase=JobPhase.WAITING, trouble=trouble)
    world.reconcile()
    assert status_of(world) is FAILED
    stalled = condition_of(world.resource.status, ConditionType.STALLED)
    assert stalled is not None
    assert "PersistentVolumeClaim captured" in stalled.message
    world.jobs[check] = replace(world.jobs[check], phase=JobPhase.RUNNING, trouble=None)
    world.reconcile()
    assert status_of(world) is CURRENT
    assert world.reconcile() == 0


@pytest.mark.parametrize("reason", ["Unschedulable", "VolumeNotMounted"])
def test_a_pod_that_may_still_be_started_is_in_progress(reason: str) -> None:
    """Nodes become free, and a volume leaves another node: both pass without anybody's help."""
    world = World()
    search_in_trouble(reason)(world)
    world.reconcile()
    assert status_of(world) is IN_PROGRESS


@pytest.mark.parametrize("reason", ["ImagePullFailed", "ContainerFailed"])
def test_a_rollback_is_in_progress_whatever_it_was_begun_for(reason: str) -> None:
    """Why the new version was given up is past: the champion returns by itself, and nobody has to do anything."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    for _ in range(3):
        (verify,) = world.active_jobs()
        trouble = Trouble(reason, "pod x: it failed.", world.now)
        world.jobs[verify] = replace(world.jobs[verify], phase=JobPhase.FAILED, trouble=trouble)
        world.reconcile()
        world.wait(10)
        world.reconcile()
    assert (world.resource.status.stage, status_of(world)) == (Stage.ROLLING_BACK, IN_PROGRESS)


def test_a_rollback_is_in_progress_until_the_champion_serves_again() -> None:
    """Then the resource is as it should be, and the last run says what happened."""
    world = World()
    world.run_to_rollout()
    world.wait(seconds(world.spec.rollout.progress_deadline) + 1)
    world.reconcile()
    assert (world.resource.status.stage, status_of(world)) == (Stage.ROLLING_BACK, IN_PROGRESS)
    world.settled = True
    world.reconcile()
    assert status_of(world) is CURRENT


def test_a_champion_without_an_available_pod_is_not_current() -> None:
    """Scaled to zero it is, as a Deployment is."""
    world = World()
    world.settle()
    world.settled = False
    world.reconcile()
    assert status_of(world) is IN_PROGRESS
    world.wanted = 0
    world.reconcile()
    assert status_of(world) is CURRENT


def test_a_resource_that_was_suspended_in_a_rollout_is_not_current() -> None:
    """A version that was not proven serves, and Ready must not say that the champion does."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.change(suspend=True)
    world.reconcile()
    ready = condition_of(world.resource.status, ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, "Suspended")
    assert status_of(world) is IN_PROGRESS


@pytest.mark.parametrize("moment", [World.settle, World.run_to_promotion])
def test_a_suspended_champion_is_current(moment: Callable[[World], None]) -> None:
    """What serves is proven, and to be left alone is what was asked for."""
    world = World()
    moment(world)
    world.change(suspend=True)
    world.reconcile()
    assert status_of(world) is CURRENT


def test_a_champion_that_was_never_measured_is_not_current_when_suspended() -> None:
    """Nothing is known of what serves."""
    world = World()
    world.change(suspend=True)
    world.reconcile()
    assert status_of(world) is IN_PROGRESS


@pytest.mark.parametrize("verdict", [Verdict.NO_GAIN, Verdict.GATE_FAILED])
def test_a_run_without_a_winner_ends_current(verdict: Verdict) -> None:
    """The champion is what was asked for: the best that could be proven."""
    world = World()
    world.reconcile()
    world.end_run(verdict)
    assert status_of(world) is CURRENT


def test_a_recommendation_ends_current() -> None:
    """Nothing is under way until a person changes the mode."""
    world = World(spec=spec(mode="RecommendOnly"))
    world.run_to_rollout()
    assert world.resource.status.candidate is not None
    assert status_of(world) is CURRENT


def test_a_deletion_that_undoes_a_rollout_is_terminating() -> None:
    """For kstatus and for Argo CD alike."""
    world = World()
    world.run_to_rollout()
    world.inject_refused = "Forbidden"
    world.delete()
    world.reconcile()
    assert status_of(world) is Kstatus.TERMINATING
    assert argo_health(seen_by_kstatus(world.resource)) == "Progressing"
