"""Faults 1 and 2 while a champion is watched: the operator is killed after the k-th write, for every k.

The way is from a window that is over to the end of the run that its verdict started: check, signal, gathering, search,
judge, record. The operator's clock stands still, so that every process sees the same window.
"""

from pathlib import Path

import pytest

from tests.faults.kills import go_on_after_a_kill, kill_after_each_write
from tests.faults.stage import (
    MONITORING,
    PROMOTED_AT,
    REFRESH,
    WATCHED_AT,
    judged,
    prepare,
    run_until,
    snapshot,
    watched,
)
from tests.faults.stagehand import Stagehand
from tools.localcluster.api import Api

pytestmark = pytest.mark.timeout(900)
LEAST_WRITES, MOST_WRITES = 12, 26


def test_killed_after_any_write_a_window_is_judged_once(kubeconfig: Path, api: Api, stagehand: Stagehand) -> None:
    """Whatever write was the last: one check, adopted once; one run, with data gathered once; the same end."""

    def go(namespace: str, kill_after: int | None) -> bool:
        return go_on_after_a_kill(judged, api, kubeconfig, namespace, kill_after=kill_after, moment=WATCHED_AT)

    kills = {number: f"watched-{number:03}" for number in range(1, MOST_WRITES)}
    for namespace in ("watched", *kills.values()):
        prepare(api, namespace, monitoring=MONITORING, refresh=REFRESH)
    run_until(watched, api, kubeconfig, ["watched", *kills.values()], moment=PROMOTED_AT, seconds=300)
    go("watched", None)
    expected = snapshot(api, "watched")
    (quality,) = (one for one in expected["status"]["monitoring"]["signals"] if one["name"] == "Quality")
    assert (quality["raised"], quality["streak"]) == (True, 1)
    assert "digits-r2-gather" in expected["jobs"]
    kill_after_each_write(go, kills, least=LEAST_WRITES)
    for namespace in kills.values():
        assert snapshot(api, namespace) == expected, namespace
    assert not {where: uids for where, uids in stagehand.jobs_seen.items() if len(uids) > 1}
