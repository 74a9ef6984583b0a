"""The whole operator, watches and all, as a task and as a process."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from retune.cluster.kinds import DEPLOYMENTS
from retune.runtime import Operator
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.running import PATIENCE, idle, running, until
from tests.unit.operator.test_notify import Receiver, sinks_file
from tests.unit.operator.web import serving
from tools.localcluster.controlplane import ControlPlane, control_plane
from tools.localcluster.settings import REPOSITORY

pytestmark = pytest.mark.usefixtures("hung_up")
APPS = "/apis/apps/v1"


async def test_an_event_is_enough(bench: Bench) -> None:
    """A resource that appears gets its Job from the watches alone, in three writes, and kopf leaves no mark on it."""
    bench.deploy()
    async with running(bench) as operator:
        key = bench.declare(execution={})
        await until(lambda: bool(bench.jobs))
        await until(lambda: idle(operator))
        assert bench.spy.writes == ["POST leases", "PATCH modeloptimizations/status", "POST jobs"]
        meta = bench.resource()["metadata"]
        assert "annotations" not in meta
        assert "finalizers" not in meta
        assert operator.cache.resource(key) is not None
        bench.api.request("DELETE", bench.path("modeloptimizations", "digits"))
        await until(lambda: operator.cache.resource(key) is None)


async def test_noise_on_the_target_costs_no_write(bench: Bench) -> None:
    """Fault 33: heartbeats of other controllers are seen, and nothing is written for them."""
    bench.deploy()
    async with running(bench) as operator:
        bench.declare(execution={})
        await until(lambda: bool(bench.jobs))
        written = len(bench.spy.writes)
        path = bench.path("deployments", "digits-server", api=APPS)
        beats = [bench.patch(path, {"metadata": {"annotations": {"beat": str(number)}}}) for number in range(50)]
        last = int(beats[-1]["metadata"]["resourceVersion"])
        await until(lambda: operator.cache.newest(DEPLOYMENTS) >= last)
        await until(lambda: idle(operator))
        assert len(bench.spy.writes) == written


async def test_a_second_operator_is_harmless(bench: Bench) -> None:
    """Fault 30: two at once, as during a node's failure, still make one Job and one Lease."""
    bench.deploy()
    async with running(bench) as first, running(bench) as second:
        bench.declare(execution={})
        await until(lambda: bool(bench.jobs))
        await until(lambda: idle(first) and idle(second))
    assert len(bench.jobs) == 1
    assert len(bench.leases) == 1


@pytest.fixture
def frail() -> Iterator[Bench]:
    """A bench on a control plane of its own, which a test may stop."""
    from retune.api.crd import modeloptimization_crd, optimizationrun_crd

    with control_plane() as plane:
        found = Bench(plane)
        install(found.api, [modeloptimization_crd(), optimizationrun_crd()])
        yield found


async def test_an_api_server_that_goes_away_and_comes_back_is_caught_up_with(frail: Bench) -> None:
    """Fault 10: the process stays healthy meanwhile, and nobody has to touch it afterwards."""
    frail.deploy()
    async with running(frail, resync_seconds=5) as operator:
        frail.declare("first", execution={})
        await until(lambda: bool(frail.jobs))
        failed_before = _errors(operator)
        await asyncio.to_thread(frail.plane.stop, "kube-apiserver", kill=True)
        operator.queue.add(f"{frail.namespace}/first")
        await until(lambda: _errors(operator) > failed_before)
        assert operator.health.ailments() == []
        await asyncio.to_thread(frail.plane.start, "kube-apiserver")
        frail.deploy("other")
        frail.declare("second", target="other", execution={})
        await until(lambda: len(frail.jobs) == 2)


def _errors(operator: Operator) -> float:
    """Calls that got no answer."""
    found = operator.metrics.registry.get_sample_value("retune_api_requests_total", {"verb": "GET", "code": "error"})
    return found or 0.0


async def test_the_process_starts_from_its_environment_and_stops_on_sigterm(bench: Bench) -> None:
    """Ready over HTTP, a Job for a resource, and a clean end in time."""
    bench.deploy()
    given = {
        "KUBECONFIG": str(bench.plane.kubeconfig),
        "RETUNE_NAMESPACES": bench.namespace,
        "RETUNE_METRICS_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "retune", env=_environment(**given), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while "ready:" not in "".join(lines):
                lines.append((await process.stderr.readline()).decode())
        port = lines[-1].rpartition(" ")[2].strip()
        assert await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/readyz") == "ok"
        assert await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/healthz") == "ok"
        bench.declare(execution={})
        await until(lambda: bool(bench.jobs))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(25):
            rest = (await process.stderr.read()).decode()
            assert await process.wait() == 0
        assert "stopped" in rest
        assert "Traceback" not in rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
        return str(answer.read().decode())


def test_a_bad_setting_ends_the_process_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the variable and what it may be; no traceback."""
    from retune.__main__ import main

    monkeypatch.setenv("RETUNE_WORKERS", "none")
    assert main() == 2
    assert capsys.readouterr().err == "retune: RETUNE_WORKERS is 'none': give a whole number\n"


def test_an_unknown_context_is_named(plane: ControlPlane) -> None:
    """A typing error in RETUNE_KUBECONTEXT does not fall back to another cluster, and makes no traceback."""
    given = {"KUBECONFIG": str(plane.kubeconfig), "RETUNE_KUBECONTEXT": "nowhere"}
    ended = subprocess.run(
        [sys.executable, "-m", "retune"], env=_environment(**given), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "context nowhere of the kubeconfig cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def _environment(**variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY / "operator")} | variables


async def test_a_transition_is_told_by_webhook_as_its_event_says_it(bench: Bench, tmp_path: Path) -> None:
    """What a receiver hears is an Event that can be looked up by its UID, and it is counted."""
    receiver = Receiver(503, 200)
    async with serving(receiver.answer) as port:
        path = sinks_file(tmp_path, {"url": f"http://127.0.0.1:{port}/"})
        async with running(bench, notifications=str(path)) as operator:
            bench.declare(execution={})  # its target is missing
            await until(lambda: len(receiver.requests) > 1)
            await until(
                lambda: not re.search(rb'retune_notices_total{outcome="delivered"} 0', operator.metrics.expose())
            )
    *_, (_, _, told) = receiver.requests
    events = bench.api.request("GET", f"/api/v1/namespaces/{bench.namespace}/events")["items"]
    (event,) = (event for event in events if event["metadata"]["uid"] == told["id"])
    assert (told["data"]["reason"], told["data"]["message"]) == (event["reason"], event["message"])
