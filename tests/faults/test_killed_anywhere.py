"""Faults 1 and 2: the operator is killed after the k-th API call of one full pass, for every k.

A pass is from a created resource to a promoted champion with a recorded run: Lease, baseline, search, judge,
rollout, golden requests, bake. The kill comes after the call has been committed and before its answer is seen.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.kills import TOGETHER, go_on_after_a_kill
from tests.faults.stage import prepare, promoted, snapshot
from tests.faults.stagehand import Stagehand
from tools.localcluster.api import Api

pytestmark = pytest.mark.timeout(900)
MOST_CALLS = 200


def _pass(api: Api, kubeconfig: Path, namespace: str, *, kill_after: int | None) -> bool:
    """Make one pass with a kill on the way; returns whether that took place."""
    prepare(api, namespace)
    return go_on_after_a_kill(promoted, api, kubeconfig, namespace, kill_after=kill_after)


def _every(api: Api, kubeconfig: Path) -> list[int]:
    """Make passes killed after 1, 2, 3, ... calls until one is over before its kill; returns the kills."""
    over = threading.Event()

    def one(number: int) -> int | None:
        if over.is_set():
            return None
        if _pass(api, kubeconfig, f"kill-{number:03}", kill_after=number):
            return number
        over.set()
        return None

    with ThreadPoolExecutor(TOGETHER) as pool:
        return [number for number in pool.map(one, range(1, MOST_CALLS)) if number is not None]


def test_killed_after_any_api_call_ends_in_the_same_state(kubeconfig: Path, api: Api, stagehand: Stagehand) -> None:
    """Whatever call was the last, the next process reaches the state of a pass without a kill; no Job is made twice."""
    _pass(api, kubeconfig, "whole", kill_after=None)
    expected = snapshot(api, "whole")
    assert expected["runs"]["digits-r1"]["outcome"] == "Promoted"
    kills = _every(api, kubeconfig)
    assert len(kills) >= 20, "a whole pass makes more calls than this: the kills did not reach it"
    print(f"killed after each of {len(kills)} API calls of a pass")
    for number in kills:
        assert snapshot(api, f"kill-{number:03}") == expected, f"killed after call {number}"
        assert stagehand.values_seen[f"kill-{number:03}"] == stagehand.values_seen["whole"]
    twice = {where: uids for where, uids in stagehand.jobs_seen.items() if len(uids) > 1}
    assert not twice
