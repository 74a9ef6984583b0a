"""Rules for testers: what they copy of those that serve the target, how they are told, and where there is no room."""

import copy
import json
from typing import Any

import pytest

from retune.api.routed import RouteHeader
from retune.plan.actions import ShareRoute
from retune.traffic import Pair
from retune.workloads.routes import share_patch
from retune.workloads.rules import backends
from retune.workloads.testers import for_testers, obstacle, places
from tests.unit.operator.test_route_patch import FILTERS, Mismatch, applied, mine, route

Json = dict[str, Any]
PAIR = Pair("digits", "digits-canary")
HEADER = RouteHeader(name="X-Tester", value="yes")
ASKED: Json = {"type": "Exact", "name": "X-Tester", "value": "yes"}
OTHER: Json = {"name": "other", "port": 9, "weight": 1}


def opened(raw: Json, *rules: int) -> Json:
    """Return a route in which testers have copies of these rules."""
    action = ShareRoute("digits", raw["metadata"]["resourceVersion"], "digits", (), testers=HEADER, opened=rules)
    return applied(raw, share_patch(raw, action, canary=PAIR.canary))


def closing(raw: Json, *rules: int) -> list[Json]:
    """Return the patch that takes these rules out."""
    action = ShareRoute("digits", raw["metadata"]["resourceVersion"], "digits", (), closed=rules)
    return share_patch(raw, action, canary=PAIR.canary)


def of(rule: Json) -> Json:
    """Return the copy of a rule for testers."""
    return for_testers(rule, HEADER, PAIR, namespace="ml")


def test_a_copy_has_all_of_its_rule_but_what_may_be_there_once() -> None:
    """Filters and timeouts stay; a rule's name and a session's are for one rule. The canary is alone in it."""
    rule: Json = {
        "name": "serving",
        "matches": [{"path": {"value": "/v2"}, "headers": [{"name": "x-a", "value": "1"}]}, {"method": "POST"}],
        "filters": FILTERS,
        "timeouts": {"request": "3s"},
        "sessionPersistence": {"sessionName": "s"},
        "backendRefs": [OTHER, mine(90, filters=FILTERS)],
    }
    before = json.dumps(rule)
    assert of(rule) == {
        "matches": [
            {"path": {"value": "/v2"}, "headers": [{"name": "x-a", "value": "1"}, ASKED]},
            {"method": "POST", "headers": [ASKED]},
        ],
        "filters": FILTERS,
        "timeouts": {"request": "3s"},
        "backendRefs": [mine(1, filters=FILTERS) | {"name": "digits-canary"}],
    }
    assert json.dumps(rule) == before


def test_a_copy_of_a_rule_that_matches_everything_asks_for_the_header_all_the_same() -> None:
    """Or everybody would be a tester."""
    matches = of({"backendRefs": [mine()]})["matches"]
    assert matches == [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [ASKED]}]


def test_rules_for_testers_come_last_and_go_without_a_trace() -> None:
    """Also where others have put rules around them meanwhile."""
    raw = route([mine(), OTHER], [OTHER], [mine(5)])
    now = opened(raw, 0, 2)
    assert (now["spec"]["rules"][:3], places(now, HEADER, PAIR)) == (raw["spec"]["rules"], (3, 4))
    theirs = {"matches": [{"path": {"value": "/new"}}], "backendRefs": [OTHER]}
    now["spec"]["rules"].insert(0, theirs)
    now["spec"]["rules"].append(theirs)
    assert places(now, HEADER, PAIR) == (4, 5)
    after = applied(now, closing(now, 4, 5))
    assert json.dumps(after["spec"]["rules"]) == json.dumps([theirs, *raw["spec"]["rules"], theirs])


def test_a_share_is_given_with_the_rules_for_testers_in_one_patch() -> None:
    """The copies are of what the rule was, whatever its weights become."""
    raw = route([mine(10)])
    shared = PAIR.shared(backends(raw["spec"]["rules"][0], namespace="ml"), 10)
    action = ShareRoute("digits", "7", "digits", ((0, shared),), testers=HEADER, opened=(0,))
    now = applied(raw, share_patch(raw, action, canary=PAIR.canary))
    assert [ref["name"] for ref in now["spec"]["rules"][0]["backendRefs"]] == ["digits", "digits-canary"]
    assert now["spec"]["rules"][1]["backendRefs"] == [mine(1) | {"name": "digits-canary"}]


@pytest.mark.parametrize(
    "change",
    [
        {"backendRefs": [mine(), OTHER]},
        {"backendRefs": [OTHER]},
        {"backendRefs": []},
        {"matches": [{"path": {"value": "/v2"}}]},
        {"matches": [{"headers": [ASKED]}, {"path": {"value": "/v2"}}]},
        {"matches": [{"headers": [ASKED | {"value": "no"}]}]},
        {"matches": [{"headers": [ASKED | {"type": "RegularExpression"}]}]},
    ],
)
def test_a_rule_that_says_anything_else_is_not_ours(change: Json) -> None:
    """It is left to whoever has made it."""
    made = of({"matches": [{"path": {"value": "/v2"}}], "backendRefs": [mine()]})
    raw = route()
    raw["spec"]["rules"] = [made, made | change]
    assert places(raw, HEADER, PAIR) == (0,)


def test_a_header_is_the_same_in_capitals_and_by_default_asked_for_exactly() -> None:
    """As HTTP and the Gateway API have it."""
    raw = route([{"name": "digits-canary", "port": 80}])
    raw["spec"]["rules"][0]["matches"] = [{"headers": [{"name": "x-TESTER", "value": "yes"}]}]
    assert places(raw, HEADER, PAIR) == (0,)


def test_a_rule_for_testers_that_others_have_changed_since_is_not_taken_out() -> None:
    """The patch names the whole of it."""
    raw = opened(route([mine()]), 0)
    changed = copy.deepcopy(raw)
    changed["spec"]["rules"][1]["timeouts"] = {"request": "1s"}
    with pytest.raises(Mismatch):
        applied(changed, closing(raw, 1))


def _matching(*matches: Json, rules: int = 1) -> Json:
    """Return a route with these matches of its first rule, which serves the target."""
    raw = route([mine()], *([OTHER] for _ in range(rules - 1)))
    raw["spec"]["rules"][0]["matches"] = list(matches)
    return raw


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (_matching({"headers": [{"name": "x-tester", "value": "v2"}]}), "asks for header X-Tester itself"),
        (_matching({"headers": [{"name": f"x-{number}", "value": "1"} for number in range(16)]}), "with 16 headers"),
        (_matching({}, rules=16), "has 16 rules"),
        (_matching(*({"path": {"value": f"/{number}"}} for number in range(65))), "so many matches"),
    ],
)
def test_where_there_is_no_room_for_testers_it_is_said(raw: Json, words: str) -> None:
    """The API server, or the Gateway, would refuse the route."""
    assert words in (obstacle(raw, HEADER, PAIR) or "")


@pytest.mark.parametrize(
    "raw",
    [
        _matching({"headers": [{"name": f"x-{number}", "value": "1"} for number in range(15)]}),
        _matching({}, rules=15),
        _matching(*({"path": {"value": f"/{number}"}} for number in range(64))),
    ],
)
def test_up_to_the_limits_there_is_room(raw: Json) -> None:
    """One less is allowed."""
    assert obstacle(raw, HEADER, PAIR) is None
