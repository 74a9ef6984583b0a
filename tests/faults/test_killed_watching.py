"""Faults 1 and 2 while a champion is watched: the operator is killed after the k-th write, for every k.

The way is from a window that is over to the end of the run that its verdict started: check, signal, gathering, search,
judge, record. The operator's clock stands still, so that every process sees the same window.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
TOGETHER = 4
LEAST_WRITES, MOST_WRITES = 12, 26


def _pass(api: Api, kubeconfig: Path, namespace: str, *, kill_after: int | None) -> bool:
    """Go the way with a kill, then let a second process finish it; returns whether the kill took place."""
    died = run_until(judged, api, kubeconfig, [namespace], kill_after=kill_after, moment=WATCHED_AT)
    if died:
        run_until(judged, api, kubeconfig, [namespace], moment=WATCHED_AT)
    return died


def test_killed_after_any_write_a_window_is_judged_once(kubeconfig: Path, api: Api, stagehand: Stagehand) -> None:
    """Whatever write was the last: one check, adopted once; one run, with data gathered once; the same end."""
    kills = {number: f"watched-{number:03}" for number in range(1, MOST_WRITES)}
    for namespace in ("watched", *kills.values()):
        prepare(api, namespace, monitoring=MONITORING, refresh=REFRESH)
    run_until(watched, api, kubeconfig, ["watched", *kills.values()], moment=PROMOTED_AT, seconds=300)
    _pass(api, kubeconfig, "watched", kill_after=None)
    expected = snapshot(api, "watched")
    (quality,) = (one for one in expected["status"]["monitoring"]["signals"] if one["name"] == "Quality")
    assert (quality["raised"], quality["streak"]) == (True, 1)
    assert "digits-r2-gather" in expected["jobs"]
    with ThreadPoolExecutor(TOGETHER) as pool:
        died = pool.map(lambda kill: _pass(api, kubeconfig, kill[1], kill_after=kill[0]), kills.items())
        reached = [number for number, dead in zip(kills, died, strict=True) if dead]
    # A look that comes late sees two steps of a Job as one: how many writes the way takes differs at its end.
    assert reached[:LEAST_WRITES] == list(range(1, LEAST_WRITES + 1))
    assert len(reached) < len(kills), "the kills do not end where the way does"
    print(f"killed after each of {len(reached)} writes")
    for namespace in kills.values():
        assert snapshot(api, namespace) == expected, namespace
    assert not {where: uids for where, uids in stagehand.jobs_seen.items() if len(uids) > 1}
