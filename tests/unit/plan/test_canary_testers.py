"""Testers see a canary by a header of theirs: before its first share, beside it, and never once its trial has ended.

Their rules are copies in somebody else's route, so they come and go with the weights: written down before, looked at
after, and left to whoever has changed them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from retune.api.status import ConditionType, Outcome, Stage
from retune.plan import Observed, Plan
from retune.plan.actions import ShareRoute
from retune.traffic import Backend
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of
from tests.unit.plan.routed import BEFORE, asked, ended, is_back, on_target, proven, rest, share
from tests.unit.plan.server import FOR_TESTERS, STABLE, TRIED
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.trial import HOLD, answered, hold, prove, strategy, to_promotion
from tests.unit.plan.world import World, spec

HEADER = {"name": "x-tester", "value": "yes"}
FOR_THEM: dict[str, Any] = {"weight": 0, "hold": f"{HOLD}s", "minRequests": 0}
FOR_ALL: dict[str, Any] = {"weight": 10, "hold": f"{HOLD}s", "minRequests": 0}
BY_HEADER = {"kind": "HTTPRoute", "route": {"name": "digits"}, "testers": {"header": HEADER}}
ROLLOUT = strategy(FOR_THEM, FOR_ALL, **BY_HEADER)
OPENED = (*BEFORE, FOR_TESTERS, FOR_TESTERS)
"""The rules with a copy of each that serves the target, and nothing else of theirs changed."""


def before() -> World:
    """Return a world whose golden requests are being asked."""
    return asked(spec=spec(rollout=ROLLOUT))


def alone() -> World:
    """Return a world whose canary has testers, and no share."""
    return proven(spec=spec(rollout=ROLLOUT))


def beside() -> World:
    """Return a world whose canary has testers, and its first share."""
    world = alone()
    hold(world)
    return world


def given() -> World:
    """Return a world whose target is being given the version."""
    return on_target(beside())


TESTED = pytest.mark.parametrize("step", [alone, beside])
ANYWHERE = pytest.mark.parametrize("step", [before, alone, beside, given])
Step = Callable[[], World]


# --- the way up, and back --------------------------------------------------------------------------------------------


def test_testers_come_before_users_and_stay_until_the_target_serves_the_version() -> None:
    """Golden answers before them, and the rules of others as they were in the end."""
    world = World(spec=spec(rollout=ROLLOUT), wanted=9, rules=BEFORE)
    seen: dict[tuple[str | None, int, int], None] = {}

    def note(_: Observed, decision: Plan) -> None:
        rollout, rules = decision.status.rollout, world.rules or ()
        if rollout is not None:
            seen[rollout.step, len(rules) - len(BEFORE), max(share(world))] = None

    world.witness = note
    world.run_to_rollout()
    to_promotion(world)
    assert list(seen) == [
        ("CanaryGive", 0, 0),
        ("CanaryGolden", 0, 0),
        ("Weight", 0, 0),
        ("Weight", 2, 0),
        ("Weight", 2, 10),
        ("Give", 2, 10),
        ("FirstGolden", 2, 10),
        ("Golden", 2, 10),
        ("CanaryEnd", 2, 10),
        ("CanaryEnd", 0, 0),
        ("Bake", 0, 0),
    ]
    assert (champion_of(world).version, is_back(world)) == (2, True)


def test_a_share_of_nothing_is_held_for_testers_alone() -> None:
    """The status says whose requests it has."""
    world = alone()
    assert world.rules == OPENED
    assert (rollout_of(world).weight, rollout_of(world).effective_weight) == (0, 0)
    assert "version 2 has those with header x-tester and is watched" in message_of(world, ConditionType.ROLLED_OUT)
    world.reconcile()
    assert world.reconcile() == 0


def test_testers_come_with_the_first_share_where_none_is_for_them_alone() -> None:
    """In one write."""
    world = asked(spec=spec(rollout=strategy(FOR_ALL, **BY_HEADER)))
    prove(world)
    world.reconcile()
    assert (len(world.routed), share(world)) == (1, {10})
    assert world.rules is not None
    assert world.rules[3:] == (FOR_TESTERS, FOR_TESTERS)
    assert "10 % of the requests (10 % by the route) and those with header x-tester" in message_of(
        world, ConditionType.ROLLED_OUT
    )


def test_the_header_is_written_down_before_a_rule_has_it() -> None:
    """The next operator tells these rules from others by it."""
    world = before()
    writes: list[tuple[bool, int]] = []

    def note(observed: Observed, decision: Plan) -> None:
        record = observed.resource.status.canary_route
        opens = [action for action in decision.actions if isinstance(action, ShareRoute) and action.opened]
        writes.extend((record is not None and record.testers == action.testers, len(action.opened)) for action in opens)

    world.witness = note
    prove(world)
    assert writes
    assert set(writes) == {(True, 2)}


@ANYWHERE
@pytest.mark.parametrize("end", ["deleted", "given up", "another strategy", "rolled back by a person"])
def test_whatever_ends_the_trial_the_rules_for_testers_go(step: Step, end: str) -> None:
    """And before the canary's pods do."""
    world = step()
    changes: dict[str, dict[str, Any]] = {
        "given up": {"mode": "ObserveOnly"},
        "another strategy": {"rollout": {"strategy": "RollingUpdate"}},
        "rolled back by a person": {"rollout": ROLLOUT | {"rollbackTo": 1}},
    }
    if end == "deleted":
        world.delete()
    else:
        world.change(**changes[end])
    world.reconcile()
    rest(world)
    to_promotion(world)
    assert (is_back(world), world.removed_while_named) == (True, False)


@TESTED
def test_a_canary_without_an_available_pod_has_no_testers(step: Step) -> None:
    """They see the champion, and not an error; with its pods they come back to it."""
    world = step()
    world.beside_settled = False
    world.reconcile()
    assert world.rules == BEFORE
    world.beside_settled = True
    rest(world)
    assert world.rules is not None
    assert world.rules[3:] == (FOR_TESTERS, FOR_TESTERS)


def test_a_suspended_resource_keeps_its_testers_and_its_share() -> None:
    """It stands still; its end is one like any other."""
    world = beside()
    rules = world.rules
    world.change(suspend=True)
    world.reconcile()
    assert (world.rules, stage_of(world)) == (rules, Stage.SUSPENDED)
    world.delete()
    world.reconcile()
    rest(world)
    assert (world.gone, is_back(world)) == (True, True)


def test_a_person_who_goes_back_to_testers_alone_is_followed() -> None:
    """The share goes, and they stay; then it grows again."""
    world = beside()
    world.change(rollout=strategy(FOR_THEM, FOR_THEM, FOR_ALL, **BY_HEADER))
    world.reconcile()
    assert (world.rules, rollout_of(world).weight) == (OPENED, 0)
    hold(world)
    hold(world)
    assert (share(world), rollout_of(world).rollback_reason) == ({10}, None)


@TESTED
def test_another_header_begins_the_trial_anew(step: Step) -> None:
    """The rules for the one before go first."""
    world = step()
    other = BY_HEADER | {"testers": {"header": HEADER | {"value": "other"}}}
    world.change(rollout=strategy(FOR_THEM, FOR_ALL, **other))
    world.reconcile()
    assert world.rules == BEFORE
    rest(world)
    to_promotion(world)
    assert (champion_of(world).version, is_back(world)) == (2, True)


# --- what their answers show -----------------------------------------------------------------------------------------


def test_testers_alone_are_not_compared_with_users() -> None:
    """What they ask is no sample of what users ask: the version is held to its limits only."""
    world = alone()
    world.beside_counts, world.champion_counts = answered(1000, 30), answered(1000, 0)
    hold(world)
    assert rollout_of(world).weight == 10
    assert "testers alone have asked it" in (rollout_of(world).analysis or "")


def test_testers_who_meet_errors_end_the_trial() -> None:
    """Errors beyond the limit are the version's own, whoever asks."""
    world = alone()
    world.beside_counts = answered(400, 200)
    world.reconcile()
    rest(world)
    assert (last_of(world).outcome, last_of(world).reason, is_back(world)) == (Outcome.ROLLED_BACK, "LiveErrors", True)
    assert is_rejected(world)


def test_a_comparison_in_which_testers_ask_one_side_alone_rejects_nothing() -> None:
    """The champion returns when in doubt; whose requests failed cannot be told."""
    world = beside()
    world.beside_counts, world.champion_counts = answered(10_000, 400), answered(10_000, 0)
    world.reconcile()
    rest(world)
    assert (last_of(world).reason, is_rejected(world), is_back(world)) == ("LiveErrors", False, True)
    assert "requests of testers are among its own" in last_of(world).message


# --- what others do --------------------------------------------------------------------------------------------------


@TESTED
@pytest.mark.parametrize("left", [0, 1])
def test_rules_for_testers_that_others_take_out_end_the_trial(step: Step, left: int) -> None:
    """As by applying their manifest again: they are not put in anew."""
    world = step()
    assert world.rules is not None
    world.edit_route(*world.rules[: 3 + left])
    world.reconcile()
    assert ended(world, "RouteChanged")
    assert world.rules == BEFORE


@TESTED
def test_a_rule_for_testers_that_others_share_ends_the_trial_and_stays_theirs(step: Step) -> None:
    """The canary's part of it goes to the champion."""
    world = step()
    assert world.rules is not None
    world.edit_route(*world.rules[:4], (Backend(TRIED, 1), Backend("other", 1)))
    world.reconcile()
    assert ended(world, "RouteChanged")
    assert world.rules is not None
    assert world.rules[-1] == (Backend(STABLE, 1), Backend("other", 1))
    assert TRIED not in {backend.name for rule in world.rules for backend in rule}


@TESTED
def test_rules_of_others_may_move_ours_meanwhile(step: Step) -> None:
    """They are told by what they say, and not by their place."""
    world = step()
    assert world.rules is not None
    world.edit_route((Backend("new"),), *world.rules, (Backend("last"),))
    world.reconcile()
    assert rollout_of(world).step == "Weight"
    world.delete()
    world.reconcile()
    rest(world)
    assert (world.gone, world.rules) == (True, ((Backend("new"),), *BEFORE, (Backend("last"),)))


def test_weights_that_others_change_while_testers_are_alone_are_shared_as_they_are() -> None:
    """Nothing of these weights was ours, so there is nothing to fight over."""
    world = alone()
    assert world.rules is not None
    changed = (replace(BEFORE[0][0], weight=7), Backend("other", 3))
    world.edit_route(changed, *world.rules[1:])
    hold(world)
    assert (share(world), rollout_of(world).rollback_reason) == ({10}, None)
    to_promotion(world)
    assert world.rules == (changed, *BEFORE[1:])


def test_a_route_that_has_no_room_for_testers_waits_for_a_person() -> None:
    """Nothing is made before that."""
    world = asked(spec=spec(rollout=ROLLOUT), route_untestable="asks for header x-tester itself")
    assert (stage_of(world), reason_of(world, ConditionType.CANARY_POSSIBLE)) == (Stage.BLOCKED, "CanaryImpossible")
    assert "HTTPRoute digits asks for header x-tester itself" in message_of(world, ConditionType.CANARY_POSSIBLE)
    assert (world.beside, world.service) == (None, None)
