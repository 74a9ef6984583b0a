"""Operators that are killed after a certain write, and others that finish what they began."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from tests.faults.stage import Json, run_until
from tools.localcluster.api import Api

TOGETHER = 4


def go_on_after_a_kill(
    over: Callable[[Json], bool],
    api: Api,
    kubeconfig: Path,
    namespace: str,
    *,
    kill_after: int | None,
    moment: datetime | None = None,
) -> bool:
    """Go a way with a kill, then let a second process finish it; returns whether the kill took place.

    The arguments are those of `run_until`.
    """
    died = run_until(over, api, kubeconfig, [namespace], kill_after=kill_after, moment=moment)
    if died:
        run_until(over, api, kubeconfig, [namespace], moment=moment)
    return died


def kill_after_each_write(go: Callable[[str, int], bool], kills: Mapping[int, str], *, least: int) -> None:
    """Go a way with a kill after each of its writes, some at a time.

    A look that comes late sees two steps as one: how many writes a way takes differs at its end.

    Args:
        go: Goes it in a namespace with a kill after so many writes; returns whether the kill took place.
        kills: The namespaces, by the number of writes: more than the way has.
        least: Writes that the way has at least.

    Raises:
        AssertionError: A kill before `least` did not take place, or all of them did.
    """
    with ThreadPoolExecutor(TOGETHER) as pool:
        died = pool.map(lambda kill: go(kill[1], kill[0]), kills.items())
        reached = [number for number, dead in zip(kills, died, strict=True) if dead]
    assert reached[:least] == list(range(1, least + 1))
    assert len(reached) < len(kills), "the kills do not end where the way does"
    print(f"killed after each of {len(reached)} writes")
