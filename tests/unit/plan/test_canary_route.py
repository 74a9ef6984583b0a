"""A canary by the weights of a route: in which order it gets and loses its share, and that all of it is put back.

The route is somebody else's. Whatever happens to it, what is said of it, and who is to blame, is shown by example.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from retune.api.routed import CanaryRoute
from retune.api.status import ConditionType, Outcome, Stage
from retune.plan import Observed, Plan
from retune.plan.actions import RemoveCanary, ScaleCanary
from retune.plan.observed import Incident
from retune.plan.rollout.withdrawing import RELEASE_SECONDS
from retune.traffic import Backend
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of
from tests.unit.plan.routed import BEFORE, OTHERS, ROLLOUT, asked, ended, is_back, on_target, proven, rest, share
from tests.unit.plan.server import STABLE, TRIED
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.trial import HOLD, answered, hold, prove, strategy, to_promotion
from tests.unit.plan.world import CrashError, World, spec


def first() -> World:
    """Return a world whose canary has its first share."""
    return proven()


def last() -> World:
    """Return a world whose canary has its last share."""
    world = first()
    hold(world)
    return world


def given() -> World:
    """Return a world whose target is being given the version."""
    return on_target(last())


ANYWHERE = pytest.mark.parametrize("step", [asked, first, last, given])
SHARED = pytest.mark.parametrize("step", [first, last, given])
TRIED_BY_ROUTE = pytest.mark.parametrize("step", [first, last])
Step = Callable[[], World]


# --- the way up, and back --------------------------------------------------------------------------------------------


def test_a_canary_by_a_route_takes_its_steps_in_order_and_leaves_nothing() -> None:
    """Pods before their share, golden answers before the first, and the rules put back before the pods go."""
    world = World(spec=spec(rollout=ROLLOUT), wanted=9, rules=BEFORE)
    seen: dict[tuple[str | None, int, frozenset[int]], None] = {}

    def note(_: Observed, decision: Plan) -> None:
        rollout, pods = decision.status.rollout, world.beside.replicas if world.beside else 0
        if rollout is not None and rollout.rollback_reason is None:
            seen[rollout.step, pods, frozenset(share(world))] = None

    world.witness = note
    world.run_to_rollout()
    to_promotion(world)
    nothing, tenth, half = (frozenset({percent}) for percent in (0, 10, 50))
    assert list(seen) == [
        ("CanaryGive", 0, nothing),
        ("CanaryGolden", 1, nothing),
        ("Weight", 1, nothing),
        ("Weight", 1, tenth),
        ("Weight", 5, tenth),
        ("Weight", 5, half),
        ("Give", 5, half),
        ("FirstGolden", 5, half),
        ("Golden", 5, half),
        ("CanaryEnd", 5, half),
        ("CanaryEnd", 5, nothing),
        ("CanaryEnd", 0, nothing),
        ("Bake", 0, nothing),
    ]
    assert champion_of(world).version == 2
    assert is_back(world)


def test_the_status_tells_the_share_that_is_in_the_route() -> None:
    """Not one that follows from pods."""
    world = first()
    assert (rollout_of(world).weight, rollout_of(world).effective_weight) == (10, 10)
    assert "10 % by the route" in message_of(world, ConditionType.ROLLED_OUT)
    assert "by HTTPRoute digits" in message_of(world, ConditionType.CANARY_POSSIBLE)


def test_what_is_put_back_is_written_down_before_anything_is_changed() -> None:
    """The status that the API server has names route, Service and rules when the route is first written."""
    world = asked()
    world.crash_after = 0
    records: list[CanaryRoute | None] = []
    while not world.routed:
        world.crash_after = 1
        for name in world.active_jobs():
            world.finish(name)
        with pytest.raises(CrashError):
            world.reconcile()
        records.append(world.resource.status.canary_route)
    record = records[-1]
    assert record is not None
    assert (record.name, record.service) == ("digits", STABLE)
    assert [tuple(Backend(item.name, item.weight) for item in rule.backends) for rule in record.rules] == [
        BEFORE[0],
        BEFORE[2],
    ]


def test_a_trial_in_which_nothing_changes_writes_nothing() -> None:
    """Neither the status nor the route."""
    world = first()
    world.wait(5)
    assert world.reconcile() == 0
    assert world.look_again is not None


def test_a_share_is_held_from_when_the_gateway_has_looked_at_it() -> None:
    """A route that nobody has looked at shares nothing."""
    world = asked(route_slow=True)
    prove(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "SharingRoute"
    world.wait(HOLD)
    world.reconcile()
    assert rollout_of(world).weight_start_time is None
    world.route_slow = False
    world.reconcile()
    assert rollout_of(world).weight_start_time == world.now


def test_fewer_pods_come_after_a_smaller_share() -> None:
    """A person lowers the weight: the pods that go have nothing to answer any more."""
    world = last()
    shares: list[set[int]] = []

    def note(_: Observed, decision: Plan) -> None:
        shares.extend(share(world) for action in decision.actions if isinstance(action, ScaleCanary))

    world.witness = note
    steps = ({"weight": 10, "hold": "300s"}, {"weight": 20, "hold": "300s"})
    world.change(rollout=strategy(*steps, kind="HTTPRoute", route={"name": "digits"}))
    world.reconcile()
    assert world.beside is not None
    assert (shares, world.beside.replicas) == ([{20}], 2)


@ANYWHERE
def test_a_deleted_resource_leaves_the_route_as_it_was(step: Step) -> None:
    """Fault 31: it goes only after that."""
    world = step()
    world.delete()
    world.reconcile()
    rest(world)
    assert world.gone
    assert is_back(world)


@pytest.mark.parametrize("step", [asked, first, last])
def test_a_trial_that_is_given_up_leaves_the_route_as_it_was(step: Step) -> None:
    """Nobody tells the person who changes the mode to put it back."""
    world = step()
    world.change(mode="ObserveOnly")
    world.reconcile()
    rest(world)
    assert (is_back(world), world.resource.status.rollout) == (True, None)


@ANYWHERE
def test_a_spec_that_wants_no_canary_any_more_leaves_the_route_as_it_was(step: Step) -> None:
    """The rollout itself goes on."""
    world = step()
    world.change(rollout={"strategy": "RollingUpdate"})
    world.reconcile()
    rest(world)
    assert (is_back(world), rollout_of(world).injected) == (True, True)


@SHARED
def test_the_canary_loses_its_share_before_its_pods_go(step: Step) -> None:
    """They answer for a while after that: proxies hear of it a little later."""
    world = step()
    gone_at: list[tuple[set[int], float]] = []

    def note(_: Observed, decision: Plan) -> None:
        if any(isinstance(action, RemoveCanary) for action in decision.actions):
            record = decision.status.canary_route
            assert record is not None
            assert record.released_time is not None
            gone_at.append((share(world), (world.now - record.released_time).total_seconds()))

    world.witness = note
    world.delete()
    world.reconcile()
    assert (share(world), world.beside is None) == ({0}, False)
    rest(world)
    assert gone_at == [({0}, RELEASE_SECONDS + 1)]


def test_a_bad_version_loses_its_share_at_once_and_is_rejected() -> None:
    """In the pass that hears of it."""
    world = last()
    world.beside_counts = answered(400, 200)
    world.reconcile()
    assert share(world) == {0}
    rest(world)
    assert is_back(world)
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.ROLLED_BACK, "LiveErrors")
    assert is_rejected(world)


def test_a_wrong_golden_answer_comes_before_any_share() -> None:
    """The route is never touched."""
    world = asked()
    world.beside_settled, world.beside_crash = False, Incident("pod y: ended with exit code 3", world.now)
    world.reconcile()
    assert world.routed == []


@SHARED
def test_a_canary_without_an_available_pod_has_no_share(step: Step) -> None:
    """Its Service has nowhere to send requests, which the proxy would answer with an error."""
    world = step()
    world.beside_settled = False
    world.reconcile()
    assert share(world) == {0}
    world.beside_settled = True
    rest(world)
    assert share(world) == ({0} if rollout_of(world).injected else {rollout_of(world).weight})
    to_promotion(world)
    assert (champion_of(world).version, is_back(world)) == (2, True)


# --- what others do --------------------------------------------------------------------------------------------------


@TRIED_BY_ROUTE
def test_a_route_that_others_put_back_ends_the_trial_and_is_left_to_them(step: Step) -> None:
    """As by applying its manifest again: the canary has lost its share, and is not given it anew."""
    world = step()
    world.edit_route(*BEFORE)
    writes = len(world.routed)
    world.reconcile()
    assert ended(world, "RouteChanged")
    assert (len(world.routed), world.rules) == (writes, BEFORE)


@TRIED_BY_ROUTE
def test_weights_of_others_end_the_trial_and_stay(step: Step) -> None:
    """Only the canary's share goes back to the target."""
    world = step()
    assert world.rules is not None
    head, others, tail = world.rules
    world.edit_route((replace(head[0], weight=1), replace(head[1], weight=3)), others, tail)
    world.reconcile()
    assert ended(world, "RouteChanged")
    assert world.rules == ((Backend(STABLE, 4),), OTHERS, BEFORE[2])


@TRIED_BY_ROUTE
def test_other_rules_may_change_meanwhile(step: Step) -> None:
    """Wherever ours are in the list by then."""
    world = step()
    assert world.rules is not None
    world.edit_route((Backend("new"),), *world.rules)
    world.reconcile()
    assert rollout_of(world).step == "Weight"
    world.delete()
    world.reconcile()
    rest(world)
    assert (world.gone, world.rules) == (True, ((Backend("new"),), *BEFORE))


@TRIED_BY_ROUTE
def test_a_route_that_is_gone_ends_the_trial(step: Step) -> None:
    """Nothing is left to put back."""
    world = step()
    world.rules = None
    world.reconcile()
    assert ended(world, "RouteChanged")


@TRIED_BY_ROUTE
def test_a_gateway_that_does_not_take_the_route_any_more_ends_the_trial(step: Step) -> None:
    """When in doubt, the champion gets everything."""
    world = step()
    world.route_fault = "HTTPRoute digits is not ResolvedRefs by its parent gate"
    world.reconcile()
    assert ended(world, "RouteNotAccepted")
    assert world.rules == BEFORE


@TRIED_BY_ROUTE
def test_a_gateway_that_has_yet_to_say_something_of_the_route_ends_nothing(step: Step) -> None:
    """As one that was restarted: the share is held, and its time stands still until the Gateway has looked."""
    world = step()
    before, world.route_slow = rollout_of(world).weight, True
    world.route_fault = "HTTPRoute digits is not Accepted by its parent gate: it has said nothing of it yet"
    hold(world)
    assert (rollout_of(world).weight, rollout_of(world).weight_start_time) == (before, None)
    assert "said nothing" in message_of(world, ConditionType.ROLLED_OUT)
    world.route_slow, world.route_fault = False, None
    world.reconcile()
    to_promotion(world)
    assert (champion_of(world).version, is_back(world)) == (2, True)


@TRIED_BY_ROUTE
def test_a_service_of_the_canary_that_somebody_deletes_begins_the_trial_anew(step: Step) -> None:
    """The share goes first, then everything is made again."""
    world = step()
    world.service = None
    world.reconcile()
    assert share(world) == {0}
    rest(world)
    assert (world.service is None, rollout_of(world).step) == (False, "CanaryGolden")
    to_promotion(world)
    assert (champion_of(world).version, is_back(world)) == (2, True)


@TRIED_BY_ROUTE
def test_a_canary_that_somebody_deletes_begins_the_trial_anew(step: Step) -> None:
    """The same, without a pod to wait for."""
    world = step()
    world.beside = None
    world.reconcile()
    assert share(world) == {0}
    rest(world)
    assert rollout_of(world).step == "CanaryGolden"
    to_promotion(world)
    assert (champion_of(world).version, is_back(world)) == (2, True)


@TRIED_BY_ROUTE
def test_a_spec_that_shares_by_pods_instead_begins_the_trial_anew(step: Step) -> None:
    """The canary's pods have other labels then."""
    world = step()
    world.change(rollout=strategy())
    world.reconcile()
    rest(world)
    assert world.beside is not None
    assert (world.beside.service, world.rules, world.resource.status.canary_route) == (None, BEFORE, None)
    to_promotion(world)
    assert champion_of(world).version == 2


@TRIED_BY_ROUTE
def test_a_route_that_may_not_be_put_back_is_told_of_until_it_is(step: Step) -> None:
    """The resource stays until then: nobody else would do it."""
    world = step()
    world.route_refused = ("Forbidden", "Retune may not patch httproutes")
    world.delete()
    world.reconcile()
    assert not world.gone
    assert (reason_of(world, ConditionType.CANARY_POSSIBLE), stage_of(world)) == ("Forbidden", Stage.TERMINATING)
    assert world.reconcile() == 0
    assert world.look_again is not None
    world.route_refused = None
    rest(world)
    assert (world.gone, is_back(world)) == (True, True)


def test_a_share_that_may_not_be_given_is_told_of() -> None:
    """And is given once it may."""
    world = asked(route_refused=("Forbidden", "Retune may not patch httproutes"))
    prove(world)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Forbidden"
    assert reason_of(world, ConditionType.STALLED) == "Forbidden"
    assert world.reconcile() == 0
    world.route_refused = None
    world.reconcile()
    assert share(world) == {10}


# --- whether one can be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"rules": None},
        {"rules": (OTHERS,)},
        {"rules": ((Backend(STABLE), Backend(TRIED, 0)),)},
        {"route_fault": "HTTPRoute digits is not Accepted by its parent gate"},
    ],
)
def test_a_route_that_cannot_be_shared_waits_for_a_person(change: dict[str, object]) -> None:
    """Nothing is made, and a sentence says what to do; mended, the trial begins."""
    world = asked(**change)
    assert (stage_of(world), reason_of(world, ConditionType.CANARY_POSSIBLE)) == (Stage.BLOCKED, "CanaryImpossible")
    assert "HTTPRoute digits" in message_of(world, ConditionType.CANARY_POSSIBLE)
    assert (world.beside, world.service, world.value) == (None, None, None)
    assert world.reconcile() == 0
    assert world.look_again is not None
    world.route_fault = None
    world.edit_route(*BEFORE)
    world.reconcile()
    assert reason_of(world, ConditionType.CANARY_POSSIBLE) == "Possible"
