"""Faults 1 and 2 while a version is tried: the operator is killed after the k-th write of a canary, for every k.

The way is from a candidate that waits for a person by a canary to the champion. The operator's clock stands still, and
no weight is held, so that every process decides the same.
"""

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
STEPS = [{"weight": 40, "hold": "0s", "minRequests": 0}, {"weight": 50, "hold": "0s", "minRequests": 0}]
CANARY = {"strategy": "Canary", "canary": {"steps": STEPS, "traffic": {"overlap": "Allow"}}}
MERGE = "application/merge-patch+json"


def _recommended(found: dict[str, Any]) -> bool:
    """Return whether a candidate waits, and its run is recorded."""
    return bool(found.get("status", {}).get("candidate")) and promoted(found)


def _live(found: dict[str, Any]) -> bool:
    """Return whether the candidate is champion, and nothing is left to undo."""
    return bool(found["status"]["champion"]["version"] == 2) and not found["finalizers"]


def test_killed_after_any_write_a_trial_ends_in_the_same_state(
    kubeconfig: Path, api: Api, stagehand: Stagehand
) -> None:
    """Whatever write was the last: the target is given the version once, and no canary is left."""

    def go(namespace: str, kill_after: int | None) -> bool:
        path = f"/apis/retune.dev/v1alpha1/namespaces/{namespace}/modeloptimizations/digits"
        api.request("PATCH", path, {"spec": {"mode": "Automatic"}}, kind=MERGE)
        return go_on_after_a_kill(_live, api, kubeconfig, namespace, kill_after=kill_after, moment=PROMOTED_AT)

    kills = {number: f"tried-{number:03}" for number in range(1, MOST_WRITES)}
    for namespace in ("tried", *kills.values()):
        prepare(api, namespace, rollout=CANARY, mode="RecommendOnly")
    run_until(_recommended, api, kubeconfig, ["tried", *kills.values()], moment=PROMOTED_AT, seconds=300)
    go("tried", None)
    expected = snapshot(api, "tried")
    assert expected["deployments"] == ["digits-server"]
    kill_after_each_write(go, kills, least=LEAST_WRITES)
    for namespace in kills.values():
        assert snapshot(api, namespace) == expected, namespace
        assert stagehand.values_seen[namespace] == stagehand.values_seen["tried"]


def test_the_charts_rights_carry_a_canary(kubeconfig: Path, api: Api, stagehand: Stagehand, tmp_path: Path) -> None:
    """With `canary.enabled` they are enough for all of it, and no more is given."""
    namespace = "least-rights-tried"
    prepare(api, namespace, rollout=CANARY)
    account = operator_account(
        api, kubeconfig, tmp_path, release="tried", home=namespace, watched=namespace, values=["canary.enabled=true"]
    )
    with account as own:
        run_until(promoted, api, own, [namespace])
    assert snapshot(api, namespace)["deployments"] == ["digits-server"]
    assert len(stagehand.values_seen[namespace]) == 2
