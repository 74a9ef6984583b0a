"""Faults 1 and 2 while a version is tried: the operator is killed after the k-th write of a canary, for every k.

The way is from a candidate that waits for a person by a canary to the champion. The operator's clock stands still, and
no weight is held, so that every process decides the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.accounts import operator_account
from tests.faults.kills import go_on_after_a_kill, kill_after_each_write
from tests.faults.stage import PROMOTED_AT, prepare, promoted, run_until, snapshot
from tests.faults.stagehand import Stagehand
from tools.localcluster.api import Api

pytestmark = pytest.mark.timeout(900)
LEAST_WRITES, MOST_WRITES = 12, 30
LEAST_BY_ROUTE, MOST_BY_ROUTE = 18, 40
STEPS = [{"weight": 40, "hold": "0s", "minRequests": 0}, {"weight": 50, "hold": "0s", "minRequests": 0}]
CANARY = {"strategy": "Canary", "canary": {"steps": STEPS, "traffic": {"overlap": "Allow"}}}
TRAFFIC: dict[str, Any] = {"kind": "HTTPRoute", "route": {"name": "digits"}}
BY_ROUTE = {"strategy": "Canary", "canary": {"steps": STEPS, "traffic": TRAFFIC}}
BY_HEADER = TRAFFIC | {"testers": {"header": {"name": "x-tester", "value": "yes"}}}
AT_ONCE = {"strategy": "BlueGreen", "blueGreen": {"preview": "0s", "keepOld": "0s", "traffic": BY_HEADER}}
MERGE = "application/merge-patch+json"


def _recommended(found: dict[str, Any]) -> bool:
    """Return whether a candidate waits, and its run is recorded."""
    return bool(found.get("status", {}).get("candidate")) and promoted(found)


def _live(found: dict[str, Any]) -> bool:
    """Return whether the candidate is champion, and nothing is left to undo."""
    return bool(found["status"]["champion"]["version"] == 2) and not found["finalizers"]


@pytest.mark.parametrize(
    ("name", "rollout", "least", "most"),
    [
        ("tried", CANARY, LEAST_WRITES, MOST_WRITES),
        ("routed", BY_ROUTE, LEAST_BY_ROUTE, MOST_BY_ROUTE),
        ("switched", AT_ONCE, LEAST_BY_ROUTE, MOST_BY_ROUTE),
    ],
    ids=["by pods", "by a route", "at once after testers"],
)
def test_killed_after_any_write_a_trial_ends_in_the_same_state(
    kubeconfig: Path, api: Api, stagehand: Stagehand, name: str, rollout: dict[str, Any], least: int, most: int
) -> None:
    """Whatever write was the last: the target is given the version once, no canary is left, the route is as it was.

    Testers have rules of theirs in the route before all requests are switched at once.
    """

    def go(namespace: str, kill_after: int | None) -> bool:
        path = f"/apis/retune.dev/v1alpha1/namespaces/{namespace}/modeloptimizations/digits"
        api.request("PATCH", path, {"spec": {"mode": "Automatic"}}, kind=MERGE)
        return go_on_after_a_kill(_live, api, kubeconfig, namespace, kill_after=kill_after, moment=PROMOTED_AT)

    kills = {number: f"{name}-{number:03}" for number in range(1, most)}
    for namespace in (name, *kills.values()):
        prepare(api, namespace, rollout=rollout, mode="RecommendOnly")
    rules = snapshot(api, name)["rules"]
    run_until(_recommended, api, kubeconfig, [name, *kills.values()], moment=PROMOTED_AT, seconds=300)
    go(name, None)
    expected = snapshot(api, name)
    assert (expected["deployments"], expected["services"]) == (["digits-server"], ["digits"])
    assert expected["rules"] == rules
    kill_after_each_write(go, kills, least=least)
    for namespace in kills.values():
        assert snapshot(api, namespace) == expected, namespace
        assert stagehand.values_seen[namespace] == stagehand.values_seen[name]


def _told(words: str) -> Callable[[dict[str, Any]], bool]:
    """Return whether CanaryPossible says this."""
    return lambda found: any(
        entry["type"] == "CanaryPossible" and words in entry["message"]
        for entry in found.get("status", {}).get("conditions", ())
    )


@pytest.mark.parametrize(
    ("name", "rollout", "values"),
    [
        ("tried", CANARY, ["canary.enabled=true"]),
        ("routed", BY_ROUTE, ["canary.enabled=true", "canary.httpRoutes=true"]),
    ],
    ids=["by pods", "by a route"],
)
def test_the_charts_rights_carry_a_canary(
    kubeconfig: Path,
    api: Api,
    stagehand: Stagehand,
    tmp_path: Path,
    *,
    name: str,
    rollout: dict[str, Any],
    values: list[str],
) -> None:
    """With the chart's settings for it they are enough for all of it, and no more is given."""
    namespace = f"least-rights-{name}"
    prepare(api, namespace, rollout=rollout)
    rules = snapshot(api, namespace)["rules"]
    account = operator_account(
        api, kubeconfig, tmp_path, release=name, home=namespace, watched=namespace, values=values
    )
    with account as own:
        run_until(promoted, api, own, [namespace])
    after = snapshot(api, namespace)
    assert (after["deployments"], after["rules"]) == (["digits-server"], rules)
    assert len(stagehand.values_seen[namespace]) == 2


@pytest.mark.usefixtures("stagehand")
def test_a_canary_by_a_route_without_its_rights_says_which_is_missing(
    kubeconfig: Path, api: Api, tmp_path: Path
) -> None:
    """Those of a canary alone are not enough; nothing is made, and the setting of the chart is named."""
    namespace, values = "rights-for-no-route", ["canary.enabled=true"]
    prepare(api, namespace, rollout=BY_ROUTE)
    account = operator_account(
        api, kubeconfig, tmp_path, release="unrouted", home=namespace, watched=namespace, values=values
    )
    with account as own:
        run_until(_told("may not get httproutes.gateway.networking.k8s.io"), api, own, [namespace])
    assert _told("canary.httpRoutes")(snapshot(api, namespace))
    assert snapshot(api, namespace)["deployments"] == ["digits-server"]
