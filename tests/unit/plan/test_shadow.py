"""A canary's shadow by example: what comes before it, what it waits for, and what its word does."""

import pytest

from retune.api.status import ConditionType, Outcome
from retune.contract.requests import VerifyRequest
from retune.contract.results import Reason
from retune.metrics import ROLLBACK_REASONS
from retune.plan.observed import Incident
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of
from tests.unit.plan.routed import BEFORE, is_back, rest, share
from tests.unit.plan.test_loop import reason_of
from tests.unit.plan.trial import prove, strategy, to_promotion
from tests.unit.plan.world import World, spec

PRODUCTION = {"production": {"uri": "pvc://retune-artifacts/digits/captured"}}
LATER = 600.0


def shadowed(**canary: object) -> World:
    """Return a world whose canary is asked captured requests."""
    rollout = strategy(kind="HTTPRoute", route={"name": "digits"})
    rollout["canary"] |= {"shadow": {"requests": 100, "span": "6h"}, **canary}
    rollout["analysis"] = {"errorMargin": "0.02", "slowMargin": "0.2", "confidence": "0.95"}
    world = World(spec=spec(rollout=rollout, monitoring=PRODUCTION), wanted=9, rules=BEFORE)
    world.run_to_rollout()
    prove(world)
    assert rollout_of(world).step == "Shadow"
    assert share(world) == {0}
    return world


def job_of(world: World) -> str:
    """Return the name of the Job that asks now."""
    (name,) = (name for name in world.active_jobs() if "verify" in name)
    return name


def request_of(world: World) -> VerifyRequest:
    """Return what it is asked."""
    request = world.requests[job_of(world)]
    assert isinstance(request, VerifyRequest)
    return request


def test_a_canary_is_asked_captured_requests_before_it_gets_a_share() -> None:
    """One pod of its own beside the champion's, with the owner's margins, up to when the step began."""
    world = shadowed()
    request = request_of(world)
    assert request.shadow is not None
    assert (request.shadow.requests, request.shadow.until - request.shadow.since) == (100, 6 * 3600)
    assert (request.shadow.error_margin, request.shadow.slow_margin, request.shadow.confidence) == (0.02, 0.2, 0.95)
    assert request.shadow.champion_endpoints == world.pods.endpoints
    assert request.endpoints
    assert set(request.endpoints).isdisjoint(request.shadow.champion_endpoints)
    assert (world.value, rollout_of(world).weight) == (None, None)


def test_a_shadow_that_shows_no_harm_is_followed_by_the_first_share() -> None:
    """The status says what was seen, and the version comes to its promotion as without one."""
    world = shadowed()
    prove(world)
    rollout = rollout_of(world)
    assert (rollout.step, rollout.weight) == ("Weight", 10)
    assert rollout.analysis is not None
    assert rollout.analysis.startswith("As a shadow: of 300 captured requests, 0 failed")
    to_promotion(world)
    assert champion_of(world).version == 2


@pytest.mark.parametrize(("reason", "rejects"), [(Reason.SHADOW_ERRORS, True), (Reason.SHADOW_SLOW, False)])
def test_proved_harm_ends_the_trial_before_any_user_has_met_it(reason: Reason, *, rejects: bool) -> None:
    """The canary goes, the champion has never been touched, and errors reject; a slow pod may have a busy node."""
    world = shadowed()
    world.fail(job_of(world), reason)
    rest(world)
    assert reason in ROLLBACK_REASONS
    assert is_back(world)
    assert (world.value, world.served) == (None, [])
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.ROLLED_BACK, reason)
    assert is_rejected(world) is rejects
    assert "before it got any request of a user" in message_of(world, ConditionType.ROLLED_OUT)


@pytest.mark.parametrize("reason", [Reason.SHADOW_LACKING, Reason.SOURCE_UNREACHABLE])
def test_what_says_nothing_is_asked_again_later(reason: Reason) -> None:
    """The champion serves alone meanwhile; the next Job has a name of its own and asks for newer requests."""
    world = shadowed()
    first, asked = job_of(world), request_of(world)
    world.fail(first, reason)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == reason
    assert "asked again in 10 min" in message_of(world, ConditionType.ROLLED_OUT)
    assert world.reconcile() == 0
    world.wait(LATER)
    world.reconcile()
    assert job_of(world) != first
    assert request_of(world).shadow is not None
    assert asked.shadow is not None
    assert request_of(world).shadow.until - asked.shadow.until == LATER  # type: ignore[union-attr]
    prove(world)
    assert rollout_of(world).step == "Weight"


@pytest.mark.parametrize(("then", "ends"), [("Return", True), ("Proceed", False)])
def test_the_owner_bounds_the_wait(then: str, ends: bool) -> None:  # noqa: FBT001 - a case
    """After evidenceTimeout the version is taken back unblamed, or goes on and says that it was not shadowed."""
    world = shadowed(evidenceTimeout="15m", onEvidenceTimeout=then)
    for _ in range(2):
        world.fail(job_of(world), Reason.SHADOW_LACKING)
        world.wait(LATER)
        world.reconcile()
    rest(world)
    if ends:
        assert (last_of(world).outcome, last_of(world).reason) == (Outcome.ROLLED_BACK, "EvidenceMissing")
        assert not is_rejected(world)
    else:
        assert rollout_of(world).step == "Weight"
        assert "without a shadow" in (rollout_of(world).analysis or "")


def test_a_canary_that_crashes_in_its_shadow_is_taken_back() -> None:
    """Its pods are watched while they are asked."""
    world = shadowed()
    world.beside_crash = Incident("pod y: container server: ended with exit code 3", world.now)
    rest(world)
    assert last_of(world).reason == "CanaryUnhealthy"


def test_without_the_field_there_is_no_shadow() -> None:
    """The strategy goes from golden requests to the first share."""
    world = World(spec=spec(rollout=strategy(), monitoring=PRODUCTION), wanted=3)
    world.run_to_rollout()
    prove(world)
    assert rollout_of(world).step == "Weight"
