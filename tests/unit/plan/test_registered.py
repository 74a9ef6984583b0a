"""What a registry is told: the challenger on acceptance, the champion after its bake, and back after a rollback."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.registered import RegistryStatus
from retune.api.status import Condition, ConditionStatus, ConditionType, Stage
from retune.contract.requests import RegisterRequest
from retune.contract.results import Reason, RegisterResult, Verdict
from retune.plan.actions import CreateJob
from retune.plan.draft import condition_of
from retune.plan.observed import Incident, JobPhase
from tests.unit.plan.registries import REGISTRY
from tests.unit.plan.world import World, spec


def world_with(**parts: Any) -> World:
    """Return a World whose spec names a registry."""
    return World(spec=spec(registry=REGISTRY, **parts))


def told(world: World) -> RegistryStatus:
    """Return what the status says that the registry was told."""
    assert world.resource.status.registry is not None
    return world.resource.status.registry


def named(world: World) -> dict[str, str]:
    """Return the bundles with an alias, by alias."""
    return {version.alias: version.digest for version in told(world).versions}


def said(world: World) -> Condition:
    """Return the condition Registered."""
    condition = condition_of(world.resource.status, ConditionType.REGISTERED)
    assert condition is not None
    return condition


def registering(world: World) -> list[str]:
    """Return the Jobs that tell the registry something and have not finished."""
    return [name for name in world.active_jobs() if "-reg" in name]


def work(world: World) -> None:
    """Let every other Job end well, and the operator look."""
    for name in world.active_jobs():
        if "-reg" not in name:
            world.finish(name)
    world.reconcile()


def register(world: World) -> RegisterRequest:
    """Let the one Job end well that tells the registry something; return what it was asked."""
    (name,) = registering(world)
    world.finish(name)
    world.reconcile()
    request: RegisterRequest = world.requests[name]
    return request


def accept(world: World) -> str:
    """Go from nothing to an accepted candidate; returns its digest."""
    world.reconcile()
    for _ in range(3):
        work(world)
    candidate = world.resource.status.candidate
    assert candidate is not None
    return candidate.digest


def promote(world: World) -> None:
    """Go from an accepted candidate to a champion that has passed its bake."""
    world.settled = True
    for _ in range(3):
        world.reconcile()
        work(world)
    world.wait(600)
    world.reconcile()
    assert world.resource.status.candidate is None


def test_nothing_is_told_without_a_registry_or_before_a_verdict() -> None:
    """The delivered model that serves from the start is nothing that the judge has accepted."""
    world = World()
    accept(world)
    promote(world)
    assert (world.resource.status.registry, condition_of(world.resource.status, ConditionType.REGISTERED)) == (
        None,
        None,
    )
    world = world_with()
    world.reconcile()
    work(world)
    assert (world.resource.status.registry, registering(world)) == (None, [])


def test_an_accepted_candidate_is_challenger_while_its_rollout_goes_on() -> None:
    """With its run's numbers and report; the rollout does not wait for it."""
    world = world_with()
    digest = accept(world)
    assert (world.resource.status.stage, said(world).status) == (Stage.ROLLING_OUT, ConditionStatus.UNKNOWN)
    request = register(world)
    assert request.champion is None
    assert request.challenger is not None
    assert (request.challenger.bundle.digest, request.challenger.version) == (digest, 2)
    assert request.challenger.run == "digits-r1"
    assert [row.name for row in request.challenger.comparisons] == ["size_bytes"]
    assert request.challenger.report == f"{request.store}/runs/digits-r1/report.html"
    assert named(world) == {"challenger": digest}
    assert (said(world).status, said(world).reason) == (ConditionStatus.TRUE, "Registered")


def test_the_champion_is_named_after_its_bake_and_a_rollback_moves_the_alias_back() -> None:
    """To the delivered model too, once a version of ours had the alias."""
    world = world_with()
    first = accept(world)
    register(world)
    promote(world)
    request = register(world)
    assert request.challenger is None
    assert named(world) == {"champion": first}
    delivered = world.resource.status.original
    assert delivered is not None
    world.change(rollout={"rollbackTo": "1"})
    for _ in range(4):
        world.reconcile()
        world.settled = True
        work(world)
    champion = world.resource.status.champion
    assert champion is not None
    assert champion.digest == delivered.digest
    request = register(world)
    assert request.champion is not None
    assert (request.champion.bundle.digest, request.champion.run) == (delivered.digest, None)
    assert named(world) == {"champion": delivered.digest}
    assert registering(world) == []


def test_a_version_that_fails_its_bake_is_challenger_no_more() -> None:
    """Its alias is taken away, and the champion's is left where it was."""
    world = world_with()
    accept(world)
    register(world)
    promote(world)
    register(world)
    first = named(world)
    world.change(manualNonce="again")
    world.reconcile()
    work(world)
    work(world)
    register(world)
    assert set(named(world)) == {"champion", "challenger"}
    world.crash = Incident("pod x: ended with exit code 3", world.now)
    for _ in range(3):
        world.reconcile()
        world.settled = True
        work(world)
    assert world.resource.status.candidate is None
    request = register(world)
    assert request.challenger is None
    assert named(world) == first


def test_a_candidate_that_is_dropped_leaves_no_alias_behind() -> None:
    """Though the delivered model serves, of which the registry was told nothing."""
    world = world_with(mode="RecommendOnly")
    accept(world)
    register(world)
    world.change(manualNonce="again")
    world.reconcile()
    assert world.resource.status.candidate is None
    request = register(world)
    assert (request.champion, request.challenger) == (None, None)
    assert (named(world), world.aliases) == ({}, {})


def test_what_fails_is_repeated_ever_more_slowly_and_holds_nothing_up() -> None:
    """The condition says why, the rollout ends as it would, and a failed Job makes room for the next."""
    world = world_with()
    accept(world)
    waits = []
    for number in range(1, 9):
        (name,) = registering(world)
        assert name == f"digits-reg{number}"
        world.fail(name, Reason.REGISTRY_UNREACHABLE)
        world.reconcile()
        assert (said(world).status, said(world).reason) == (ConditionStatus.FALSE, "RegistryUnreachable")
        after = told(world).retry_after
        assert after is not None
        waits.append((after - world.now).total_seconds())
        world.reconcile()
        assert registering(world) == []
        world.wait(waits[-1])
        world.reconcile()
        assert said(world).reason == "RegistryUnreachable"
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert len([name for name in world.jobs if "-reg" in name]) == 1
    assert world.resource.status.candidate is not None
    register(world)
    assert (said(world).status, told(world).failures) == (ConditionStatus.TRUE, 0)


def test_a_registry_that_cannot_be_reached_keeps_no_version_from_its_promotion() -> None:
    """What is wanted by then is told at once, and once."""
    world = world_with()
    digest = accept(world)
    (name,) = registering(world)
    world.fail(name, Reason.REGISTRY_FORBIDDEN)
    promote(world)
    champion, last = world.resource.status.champion, world.resource.status.last_run
    assert champion is not None
    assert last is not None
    assert (champion.digest, last.outcome) == (digest, "Promoted")
    request = register(world)
    assert (request.champion is not None, request.challenger) == (True, None)
    assert named(world) == {"champion": digest}


def test_a_job_that_runs_ends_before_the_next_one_begins_and_one_that_waits_is_given_up() -> None:
    """Two Jobs never move aliases at the same time."""
    for phase, first_ends in ((JobPhase.RUNNING, True), (JobPhase.WAITING, False)):
        world = world_with()
        accept(world)
        (name,) = registering(world)
        world.jobs[name] = replace(world.jobs[name], phase=phase)
        promote(world)
        assert registering(world) == ([name] if first_ends else ["digits-reg2"])
        if first_ends:
            register(world)
        request = register(world)
        assert request.champion is not None


def test_an_answer_that_belongs_to_something_else_is_not_believed() -> None:
    """A result with another state is a failure."""
    world = world_with()
    accept(world)
    (name,) = registering(world)
    world.finish(name, RegisterResult(state="other", challenger="1", message="it is registered"))
    world.reconcile()
    assert (said(world).reason, told(world).state) == ("ResultInvalid", None)


def test_recommended_candidates_are_registered_and_suspended_resources_tell_nothing() -> None:
    """In mode RecommendOnly the challenger waits for a person; while suspended, nothing is made."""
    world = world_with(mode="RecommendOnly")
    digest = accept(world)
    world.change(suspend=True)
    world.reconcile()
    world.change(suspend=False)
    world.reconcile()
    register(world)
    assert named(world) == {"challenger": digest}


def test_no_candidate_of_a_lost_verdict_is_registered() -> None:
    """A run without gain leaves the registry alone."""
    world = world_with()
    world.settle()
    assert (world.resource.status.registry, registering(world)) == (None, [])


def test_a_registry_that_is_not_wanted_any_more_is_forgotten_and_named_again_is_told_anew() -> None:
    """An old answer counts for nothing then."""
    world = world_with()
    accept(world)
    register(world)
    world.change(registry=None)
    world.reconcile()
    assert (world.resource.status.registry, condition_of(world.resource.status, ConditionType.REGISTERED)) == (
        None,
        None,
    )
    world.change(registry=REGISTRY)
    world.reconcile()
    assert registering(world) == ["digits-reg2"]
    world.change(registry=REGISTRY | {"aliases": {"champion": "live", "challenger": "next"}})
    world.reconcile()
    register(world)
    assert set(named(world)) == {"next"}


@pytest.mark.parametrize("writes", range(4))
def test_a_restart_between_two_writes_makes_no_second_job(writes: int) -> None:
    """The number of the Job is in the status before the Job is there."""
    world = world_with()
    world.reconcile()
    work(world)
    work(world)
    for name in world.active_jobs():
        world.finish(name)
    world.crash_after = writes
    world.survive()
    world.crash_after = None
    world.reconcile()
    assert registering(world) == ["digits-reg1"]
    register(world)
    assert registering(world) == []


def test_a_quota_that_admits_no_job_is_told_and_tried_again() -> None:
    """The rollout goes on."""
    world = world_with()
    world.reconcile()
    work(world)
    work(world)
    for name in world.active_jobs():
        world.finish(name, world.answer(name, Verdict.PROMOTE))
    world.quota = True
    world.reconcile()
    assert (said(world).status, said(world).reason) == (ConditionStatus.FALSE, "QuotaExceeded")
    assert (world.resource.status.stage, registering(world)) == (Stage.ROLLING_OUT, [])
    assert world.reconcile() == 0
    world.quota = False
    world.reconcile()
    register(world)
    assert said(world).status is ConditionStatus.TRUE


def test_reports_of_other_places_are_not_read() -> None:
    """What a user's Job says of its report is believed only where the resource keeps its own."""
    world = world_with()
    world.reconcile()
    work(world)
    work(world)
    (name,) = world.active_jobs()
    result = world.answer(name).model_copy(update={"report": "pvc://others/secret"})
    world.finish(name, result)
    world.reconcile()
    request = register(world)
    assert request.challenger is not None
    assert request.challenger.report is None


def test_only_what_the_plan_wants_is_created() -> None:
    """A pass over a settled registry asks for nothing."""
    world = world_with()
    accept(world)
    register(world)
    assert not any(isinstance(action, CreateJob) and "-reg" in action.name for action in world.decide().actions)
