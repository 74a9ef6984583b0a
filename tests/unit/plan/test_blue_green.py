"""Strategy BlueGreen: a version runs beside the champion at full size, and a route switches all requests at once.

It is a canary by a route whose last share is all of the requests, so what holds for those holds here; shown is what is
other about it: how many pods there are before the first request, what going back takes, and what is watched meanwhile.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from retune.api.status import ConditionType, Outcome
from retune.plan import Observed, Plan
from retune.plan.actions import ShareRoute
from retune.plan.observed import Incident
from retune.traffic import Backend
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of
from tests.unit.plan.routed import BEFORE, ROLLOUT, asked, ended, is_back, on_target, proven, rest, share
from tests.unit.plan.server import FOR_TESTERS, STABLE, TRIED
from tests.unit.plan.trial import HOLD, answered, hold, prove, to_promotion
from tests.unit.plan.world import World, spec

ROUTE: dict[str, Any] = {"kind": "HTTPRoute", "route": {"name": "digits"}}
TESTERS = {"testers": {"header": {"name": "x-tester", "value": "yes"}}}


def at_once(**traffic: Any) -> dict[str, Any]:
    """Return a spec.rollout that switches requests at once."""
    times = {"preview": f"{HOLD}s", "keepOld": f"{HOLD}s"}
    return {"strategy": "BlueGreen", "blueGreen": times | {"traffic": ROUTE | traffic}}


def before() -> World:
    """Return a world whose golden requests are being asked."""
    return asked(spec=spec(rollout=at_once(**TESTERS)))


def previewed() -> World:
    """Return a world whose version has testers."""
    return proven(spec=spec(rollout=at_once(**TESTERS)))


def switched() -> World:
    """Return a world whose version has all requests, and the old pods stay."""
    world = previewed()
    hold(world)
    assert share(world) == {100}
    return world


def given() -> World:
    """Return a world whose target is being given the version."""
    return on_target(switched())


ANYWHERE = pytest.mark.parametrize("step", [before, previewed, switched, given])
Step = Callable[[], World]


def test_all_requests_are_switched_at_once_and_back_once_the_target_serves_the_version() -> None:
    """Full size and golden answers come first, then testers, then everybody; the target's pods stay meanwhile."""
    world = World(spec=spec(rollout=at_once(**TESTERS)), wanted=9, rules=BEFORE)
    seen: dict[tuple[str | None, int, int, int], None] = {}

    def note(_: Observed, decision: Plan) -> None:
        rollout, pods = decision.status.rollout, world.beside.replicas if world.beside else 0
        if rollout is not None:
            testers = len(world.rules or ()) - len(BEFORE)
            seen[rollout.step, pods, testers, max(share(world))] = None

    world.witness = note
    world.run_to_rollout()
    to_promotion(world)
    assert list(seen) == [
        ("CanaryGive", 0, 0, 0),
        ("CanaryGolden", 9, 0, 0),
        ("Weight", 9, 0, 0),
        ("Weight", 9, 2, 0),
        ("Weight", 9, 2, 100),
        ("Give", 9, 2, 100),
        ("FirstGolden", 9, 2, 100),
        ("Golden", 9, 2, 100),
        ("CanaryEnd", 9, 2, 100),
        ("CanaryEnd", 9, 0, 0),
        ("CanaryEnd", 0, 0, 0),
        ("Bake", 0, 0, 0),
    ]
    assert (champion_of(world).version, is_back(world)) == (2, True)


def test_without_testers_everybody_is_switched_after_the_golden_answers() -> None:
    """There is nobody to wait for."""
    world = asked(spec=spec(rollout=at_once()))
    prove(world)
    world.reconcile()
    assert (share(world), rollout_of(world).weight, rollout_of(world).effective_weight) == ({100}, 100, 100)
    assert "version 2 has 100 % of the requests (100 % by the route)" in message_of(world, ConditionType.ROLLED_OUT)


def test_the_switch_leaves_the_shares_of_others_and_the_target_in_its_rules() -> None:
    """At a weight of nothing, so that going back is a change of weights."""
    assert switched().rules == (
        (Backend(STABLE, 0), Backend(TRIED, 100)),
        BEFORE[1],
        (Backend("other", 1), Backend(STABLE, 0), Backend(TRIED, 3)),
        FOR_TESTERS,
        FOR_TESTERS,
    )


def test_going_back_is_one_write_of_the_route() -> None:
    """In the pass that hears of the errors; the champion's pods have been there all the while."""
    world = switched()
    routed: list[ShareRoute] = []
    world.witness = lambda _, decision: routed.extend(
        action for action in decision.actions if isinstance(action, ShareRoute)
    )
    world.beside_counts = answered(400, 200)
    world.reconcile()
    assert (len(routed), world.rules, world.value) == (1, BEFORE, None)
    rest(world)
    assert (last_of(world).outcome, last_of(world).reason, is_back(world)) == (Outcome.ROLLED_BACK, "LiveErrors", True)
    assert is_rejected(world)


def test_a_version_that_crashes_while_the_old_pods_stay_goes_back() -> None:
    """As a canary does."""
    world = switched()
    world.beside_crash = Incident("pod y: ended with exit code 3", world.now)
    world.reconcile()
    rest(world)
    assert (last_of(world).reason, is_back(world)) == ("CanaryUnhealthy", True)


def test_a_target_that_is_scaled_is_followed_before_and_after_the_switch() -> None:
    """As many pods as the target's, whatever that is."""
    for step in (previewed, switched):
        world = step()
        world.wanted = 12
        world.reconcile()
        assert world.beside is not None
        assert world.beside.replicas == 12


def test_a_version_that_fails_golden_requests_reaches_nobody() -> None:
    """The route is never touched."""
    world = before()
    world.beside_settled, world.beside_crash = False, Incident("pod y: ended with exit code 3", world.now)
    world.reconcile()
    assert world.routed == []


@ANYWHERE
@pytest.mark.parametrize("end", ["deleted", "given up", "another strategy", "rolled back by a person"])
def test_whatever_ends_the_trial_the_champion_has_all_requests(step: Step, end: str) -> None:
    """And the route is as it was, before the version's pods go."""
    world = step()
    changes: dict[str, dict[str, Any]] = {
        "given up": {"mode": "ObserveOnly"},
        "another strategy": {"rollout": {"strategy": "RollingUpdate"}},
        "rolled back by a person": {"rollout": at_once(**TESTERS) | {"rollbackTo": 1}},
    }
    if end == "deleted":
        world.delete()
    else:
        world.change(**changes[end])
    world.reconcile()
    rest(world)
    to_promotion(world)
    assert (is_back(world), world.removed_while_named) == (True, False)


@pytest.mark.parametrize("strategy", [ROLLOUT, at_once()])
def test_another_way_begins_the_trial_anew(strategy: dict[str, Any]) -> None:
    """The time that a share was held is no time that all requests were."""
    world = asked(spec=spec(rollout=at_once() if strategy is ROLLOUT else ROLLOUT))
    prove(world)
    world.wait(HOLD - 1)
    world.change(rollout=strategy)
    world.reconcile()
    assert world.rules == BEFORE
    rest(world)
    assert rollout_of(world).step == "CanaryGolden"
    assert rollout_of(world).weight is None


def test_others_who_change_the_weights_end_the_trial() -> None:
    """Theirs stay, and what the version had goes to the champion. It is no canary, and not called one."""
    world = switched()
    assert world.rules is not None
    (stable, tried), *others = world.rules
    world.edit_route((stable, replace(tried, weight=60), Backend("new", 40)), *others)
    world.reconcile()
    assert ended(world, "RouteChanged")
    assert "rolled back: beside the champion, version 2: HTTPRoute" in last_of(world).message
    assert world.rules == ((Backend(STABLE, 60), Backend("new", 40)), *BEFORE[1:])


def test_a_version_without_an_available_pod_leaves_all_requests_to_the_champion() -> None:
    """At once: its pods are still there."""
    world = switched()
    world.beside_settled = False
    world.reconcile()
    assert world.rules == BEFORE
    world.beside_settled = True
    rest(world)
    assert share(world) == {100}


def test_a_version_with_all_requests_is_held_to_limits_and_compared_with_nobody() -> None:
    """Whom the champion still answers is chance. A canary would be taken back for 2 % of errors beside none."""
    world = switched()
    world.beside_counts, world.champion_counts = answered(10_000, 200), answered(10_000, 0)
    world.reconcile()
    assert rollout_of(world).rollback_reason is None
    hold(world)
    assert rollout_of(world).injected
    assert "the champion had none in the same time" in (rollout_of(world).analysis or "")
