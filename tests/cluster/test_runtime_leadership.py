"""Two operator processes on a real API server: one works, and the other takes its place, however the first one goes."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from retune.cluster.leadership import LEASE_SECONDS, WRITE_SECONDS
from tests.cluster.harness import Bench
from tests.cluster.wire import wired
from tools.localcluster.settings import REPOSITORY

TAKEN_OVER_SECONDS = 15.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Process:
    """An operator's process, and the file with what it says."""

    handle: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def get(self, path: str) -> str:
        """Return what it answers over HTTP."""
        port = re.findall(r"metrics on port (\d+)", self.said)[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())


def held(bench: Bench) -> tuple[str, datetime]:
    """Return who holds the Lease, and when he last wrote that he does."""
    spec = bench.api.get(bench.path("leases", "retune", api="/apis/coordination.k8s.io/v1"))["spec"]
    return spec["holderIdentity"], datetime.fromisoformat(spec["renewTime"])


@contextmanager
def operator(bench: Bench, log: Path, *, kubeconfig: Path | None = None) -> Iterator[Process]:
    """Run an operator for the bench's namespace that takes part in the election."""
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY / "operator"),
        "KUBECONFIG": str(kubeconfig or bench.plane.kubeconfig),
        "RETUNE_NAMESPACES": bench.namespace,
        "RETUNE_LEADER_LEASE": f"{bench.namespace}/retune",
        "RETUNE_METRICS_PORT": "0",
    }
    with log.open("wb") as output:
        handle = subprocess.Popen([sys.executable, "-m", "retune"], env=environment, stderr=output)
    try:
        yield Process(handle, log)
    finally:
        handle.kill()
        handle.wait()


def until(true: Callable[[], bool], *, seconds: float = PATIENCE) -> float:
    """Wait for a condition; returns the seconds that it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.05)
    return time.monotonic() - begun


@pytest.fixture
def pair(bench: Bench, tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    """A leader that works, and a standby that has seen it."""
    bench.deploy()
    with ExitStack() as stack:
        first = stack.enter_context(operator(bench, tmp_path / "first"))
        until(lambda: "ready:" in first.said)
        second = stack.enter_context(operator(bench, tmp_path / "second"))
        until(lambda: "standing by" in second.said)
        yield first, second


def works(bench: Bench, name: str) -> bool:
    """Whether a new resource gets its Job."""
    bench.deploy(name)
    bench.declare(name, target=name, execution={})
    until(lambda: any(job["metadata"]["name"].startswith(f"{name}-b1") for job in bench.jobs))
    return True


def test_the_standby_stands_by(bench: Bench, pair: tuple[Process, Process]) -> None:
    """Fault 30: it is ready and healthy, and does nothing while the leader works."""
    first, second = pair
    assert works(bench, "one")
    assert first.get("/readyz") == second.get("/readyz") == second.get("/healthz") == "ok"
    assert "retune_leading 1.0" in first.get("/metrics")
    assert "retune_leading 0.0" in second.get("/metrics")
    assert "ready:" not in second.said


def test_a_killed_leader_is_replaced_within_fifteen_seconds(bench: Bench, pair: tuple[Process, Process]) -> None:
    """Fault 30: it had no time to give the Lease up, and what it began is carried on."""
    first, second = pair
    first.handle.kill()
    assert until(lambda: "ready:" in second.said) < TAKEN_OVER_SECONDS
    assert works(bench, "two")


def test_a_leader_that_is_asked_to_stop_is_replaced_at_once(bench: Bench, pair: tuple[Process, Process]) -> None:
    """As in an upgrade and when a node is drained."""
    first, second = pair
    first.handle.send_signal(signal.SIGTERM)
    until(lambda: first.handle.poll() is not None)
    assert until(lambda: "ready:" in second.said) < TAKEN_OVER_SECONDS / 2
    assert first.handle.returncode == 0
    assert works(bench, "three")


def test_a_leader_without_network_ends_by_itself_and_is_replaced(bench: Bench, tmp_path: Path) -> None:
    """Fault 30: nothing tells it, and a network that is back does not make it go on.

    Who takes over has waited for longer than any write of the one before may take, however late a busy machine lets
    that one say that it ends.
    """
    bench.deploy()
    with ExitStack() as stack:
        wire, through = stack.enter_context(wired(bench.plane.kubeconfig, tmp_path))
        first = stack.enter_context(operator(bench, tmp_path / "first", kubeconfig=through))
        until(lambda: "ready:" in first.said)
        second = stack.enter_context(operator(bench, tmp_path / "second"))
        until(lambda: "standing by" in second.said)
        wire.cut()
        begun, (holder, renewed) = time.monotonic(), held(bench)
        until(lambda: held(bench)[0] != holder)
        assert held(bench)[1] - renewed >= timedelta(seconds=LEASE_SECONDS) > timedelta(seconds=WRITE_SECONDS)
        until(lambda: "ready:" in second.said)
        assert time.monotonic() - begun < TAKEN_OVER_SECONDS
        until(lambda: "could not be renewed in time" in first.said)
        wire.mend()
        until(lambda: first.handle.poll() is not None)
        assert first.handle.returncode == 1
        assert "Traceback" not in first.said
        assert works(bench, "four")
