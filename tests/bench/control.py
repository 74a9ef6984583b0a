"""How fast and how frugal the control loop is: `python -m tests.bench.control [N ...]` prints a table.

For each N, on a control plane of its own (real API server and etcd, no kubelet): N resources are created in a burst,
and the time from each creation to its baseline Job is taken by a watch; API writes are counted by the operator and
checked against the API server's own counters; then the operator rests through several resyncs, and what it writes is
counted; last, a bare client creates the same Jobs with as many threads. Times are of this machine and this run: only
the ratio to the bare client, taken in the same run, says something about the code.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kubernetes import client as official
from kubernetes import config as official_config
from rich.console import Console
from rich.table import Table

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.cluster.client import Request, Transport, official_transport
from tests.cluster.crds import install
from tests.faults.stage import deployment
from tests.localcluster.api import Api
from tests.localcluster.controlplane import control_plane, free_ports
from tests.samples import manifest

Json = dict[str, Any]
THREADS = 16
RESYNC_SECONDS = 15
REST_SECONDS = 50
NAMESPACE = "bench"
_JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
_RESOURCES = f"/apis/retune.dev/v1alpha1/namespaces/{NAMESPACE}/modeloptimizations"
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@dataclass(frozen=True)
class Row:
    """What one N gave. Seconds, megabytes, counts."""

    resources: int
    p50: float
    p99: float
    span: float
    bare_span: float
    writes: float
    writes_by_server: float
    rest_writes: float
    rss: float
    peak: float


def main(sizes: list[int]) -> None:
    """Measure every size and print the table."""
    console = Console(width=132)
    rows = []
    for size in sizes:
        console.print(f"{size} resources: about {REST_SECONDS + 20 + size // 20} s ...")
        rows.append(measure(size))
    console.print(table(rows))


def measure(size: int) -> Row:
    """Run one size on a control plane of its own."""
    with control_plane() as plane:
        api = Api(plane.kubeconfig)
        install(api, [modeloptimization_crd(), optimizationrun_crd()])
        _prepare(api, plane.kubeconfig, size)
        with _operator(plane.kubeconfig) as (pid, port):
            watch, before = _JobWatch(api), _server_writes(api)
            created = _burst(plane.kubeconfig, size)
            seen = watch.wait(size)
            writes, by_server = _operator_writes(port), _server_writes(api) - before
            rest = _rest(port)
            rss, peak = _memory(pid)
        jobs = [_bare(job) for job in api.get(_JOBS)["items"]]
        bare = _post_all(plane.kubeconfig, _JOBS, jobs)
    waits = np.array([seen[name] - created[name] for name in created])
    return Row(
        resources=size,
        p50=float(np.percentile(waits, 50)),
        p99=float(np.percentile(waits, 99)),
        span=max(seen.values()) - min(created.values()),
        bare_span=bare,
        writes=writes / size,
        writes_by_server=by_server / size,
        rest_writes=rest * 3600 / REST_SECONDS,
        rss=rss,
        peak=peak,
    )


def _prepare(api: Api, kubeconfig: Path, size: int) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    api.apply(f"/api/v1/namespaces/{NAMESPACE}", namespace)
    targets = [_named(deployment(NAMESPACE), f"server-{number}") for number in range(size)]
    _post_all(kubeconfig, f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", targets)


def _named(document: Json, name: str) -> Json:
    copy: Json = json.loads(json.dumps(document))
    copy["metadata"] |= {"name": name, "namespace": NAMESPACE}
    return copy


def _burst(kubeconfig: Path, size: int) -> dict[str, float]:
    """Create the resources; returns when each was asked for."""
    times: dict[str, float] = {}
    bodies = [
        _named(manifest(target={"ref": {"name": f"server-{number}"}}), f"digits-{number}") for number in range(size)
    ]

    def note(body: Json) -> None:
        times[body["metadata"]["name"]] = time.monotonic()

    _post_all(kubeconfig, _RESOURCES, bodies, before=note)
    return times


def _post_all(
    kubeconfig: Path, path: str, bodies: list[Json], *, before: Callable[[Json], None] = lambda _: None
) -> float:
    """Create objects with the official client and as many threads as the operator has; returns the seconds."""
    send = _transport(kubeconfig)

    def post(body: Json) -> None:
        before(body)
        response = send(Request("POST", path, body=body))
        if response.status != 201:
            raise SystemExit(f"{response.status}: {response.body[:500]!r}")

    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(post, bodies))
    return time.monotonic() - began


def _transport(kubeconfig: Path) -> Transport:
    found = official.Configuration(retries=False)
    official_config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
    return official_transport(found, threads=THREADS)


def _bare(job: Json) -> Json:
    """Return the same Job under another name, as a client without an operator would create it."""
    meta, spec = job["metadata"], job["spec"]
    for field in ("selector", "manualSelector", "suspend"):
        spec.pop(field, None)
    labels = spec["template"]["metadata"]["labels"]
    spec["template"]["metadata"]["labels"] = {
        key: value for key, value in labels.items() if "job" not in key and "uid" not in key
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"bare-{meta['name']}"[:63], "labels": meta.get("labels", {})},
        "spec": spec,
    }


class _JobWatch:
    """Notes when each resource's first Job is seen."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: dict[str, float] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for event in self._api.watch(_JOBS, seconds=600):
            with self._changed:
                name = event["object"]["metadata"]["labels"]["retune.dev/resource"]
                self._seen.setdefault(name, time.monotonic())
                self._changed.notify_all()

    def wait(self, count: int) -> dict[str, float]:
        """Wait until so many resources have a Job; returns when each was seen."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self._seen) >= count, timeout=300)
        if not done:
            raise SystemExit(f"only {len(self._seen)} of {count} Jobs after 300 s")
        return dict(self._seen)


@contextmanager
def _operator(kubeconfig: Path) -> Iterator[tuple[int, int]]:
    """Run the operator as a process of its own; yields its pid and metrics port once it is ready."""
    (port,) = free_ports(1)
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "RETUNE_METRICS_PORT": str(port),
        "RETUNE_RESYNC_SECONDS": str(RESYNC_SECONDS),
        "RETUNE_LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen([sys.executable, "-m", "retune"], env=environment)
    try:
        _until(lambda: _fetch(port, "/readyz") is not None, what="the operator's readiness")
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _until(check: Callable[[], bool], *, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} after {seconds:g} s")
        time.sleep(0.1)


def _fetch(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def _operator_writes(port: int) -> float:
    """Return the writes that the operator has counted."""
    text = _fetch(port, "/metrics") or ""
    found = re.findall(r'^retune_api_requests_total\{code="(\d+)",verb="(\w+)"\} (\S+)', text, re.MULTILINE)
    return sum(float(count) for _, verb, count in found if verb in _WRITES)


def _server_writes(api: Api) -> float:
    """Return the writes to Jobs, Leases and our status that the API server has counted, as a check of the above."""
    with api.open("GET", "/metrics", kind="text/plain", timeout=30) as response:
        text = response.read().decode()
    total = 0.0
    for line in re.findall(r"^apiserver_request_total\{.*$", text, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        ours = (labels["resource"], labels["subresource"]) in {
            ("jobs", ""), ("leases", ""), ("modeloptimizations", "status"), ("events", ""),
        }  # fmt: skip
        if ours and labels["verb"] in _WRITES and labels["scope"] == "resource" and not labels["group"].startswith("x"):
            total += float(line.rsplit(" ", 1)[1])
    return total


def _rest(port: int) -> float:
    """Let the operator rest, through several resyncs; returns what it wrote meanwhile."""
    _until(lambda: _quiet(port), what="an idle queue", seconds=120)
    settled = _operator_writes(port)
    time.sleep(REST_SECONDS)
    return _operator_writes(port) - settled


def _quiet(port: int) -> bool:
    text = _fetch(port, "/metrics") or ""
    return "retune_queue_depth 0.0" in text and "retune_active_workers 0.0" in text


def _memory(pid: int) -> tuple[float, float]:
    """Return resident and peak resident memory in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1000, int(found["VmHWM"]) / 1000


def table(rows: list[Row]) -> Table:
    """Return the table people read."""
    found = Table(title="Control loop: created resource to created Job")
    for column in (
        "resources", "p50 s", "p99 s", "span s", "bare span s", "span ratio", "writes each", "by server",
        "writes/h at rest", "RSS MB", "peak MB",
    ):  # fmt: skip
        found.add_column(column, justify="right")
    for row in rows:
        numbers = (
            row.p50,
            row.p99,
            row.span,
            row.bare_span,
            row.span / row.bare_span,
            row.writes,
            row.writes_by_server,
        )
        found.add_row(
            str(row.resources), *(f"{number:.2f}" for number in numbers), f"{row.rest_writes:.0f}",
            f"{row.rss:.0f}", f"{row.peak:.0f}",
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [1, 100, 1000])
