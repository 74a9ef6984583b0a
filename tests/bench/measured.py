"""What the benchmarks on a control plane share: an operator process, warm clients, and readings of what they cost."""

import argparse
import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client as official
from kubernetes import config as official_config
from rich.console import Console
from rich.table import Table

from retune.cluster.client import Request, Transport, official_transport
from retune.settings import Settings
from tests.bench import deployed
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, free_ports

Json = dict[str, Any]
Row = TypeVar("Row", bound=Any)
"""A frozen dataclass of one bench."""
THREADS = Settings().api_threads
RESYNC_SECONDS = 15
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}


def resources_of(namespace: str) -> str:
    """Return the path of the ModelOptimizations of a namespace."""
    return f"/apis/retune.dev/v1alpha1/namespaces/{namespace}/modeloptimizations"


def jobs_of(namespace: str) -> str:
    """Return the path of the Jobs of a namespace."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def named(document: Json, namespace: str, name: str) -> Json:
    """Return a copy of a document under another name."""
    copy: Json = json.loads(json.dumps(document))
    copy["metadata"] |= {"name": name[:63], "namespace": namespace}
    return copy


@dataclass(frozen=True)
class Posted:
    """When objects were asked for, by name, and when the last answer came."""

    asked: dict[str, float]
    answered: float

    @property
    def span(self) -> float:
        """Seconds from the first request to the last answer."""
        return self.answered - min(self.asked.values())


def post_all(plane: ControlPlane, path: str, bodies: list[Json]) -> Posted:
    """Create objects with as many threads as the operator has, each with a warm connection."""
    send = transport(plane.kubeconfig)
    asked: dict[str, float] = {}

    def post(body: Json) -> None:
        asked[body["metadata"]["name"]] = time.monotonic()
        response = send(Request("POST", path, body=body))
        if response.status != 201:
            raise SystemExit(f"{response.status}: {response.body[:500]!r}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: send(Request("GET", "/version")), range(4 * THREADS)))
        list(pool.map(post, bodies))
        return Posted(asked, time.monotonic())


def transport(kubeconfig: Path) -> Transport:
    """Return what the operator sends its requests with, for its administrator."""
    found = official.Configuration(retries=False)
    official_config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
    return official_transport(found, threads=THREADS)


@contextmanager
def operator_process(
    plane: ControlPlane, namespace: str, *, resync_seconds: float = RESYNC_SECONDS
) -> Iterator[tuple[int, int]]:
    """Run the operator for a namespace as a process of its own; yields its pid and metrics port once it is ready."""
    (port,) = free_ports(1)
    settings = {
        "KUBECONFIG": str(plane.kubeconfig),
        "RETUNE_NAMESPACES": namespace,
        "RETUNE_METRICS_PORT": str(port),
        "RETUNE_RESYNC_SECONDS": str(resync_seconds),
        "RETUNE_LOG_LEVEL": "ERROR",
    }
    with deployed.operator(settings) as process:
        until(lambda: fetch(port, "/readyz") is not None, what="the operator's readiness")
        yield process.pid, port


def until(check: Callable[[], bool], *, what: str, seconds: float = 60) -> None:
    """Wait for a condition; ends the program when it takes too long."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} after {seconds:g} s")
        time.sleep(0.1)


def fetch(port: int, path: str) -> str | None:
    """Return what the operator serves at a path; None while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def operator_writes(port: int) -> float:
    """Return the writes that the operator has counted."""
    text = fetch(port, "/metrics") or ""
    found = re.findall(r'^retune_api_requests_total\{code="(\d+)",verb="(\w+)"\} (\S+)', text, re.MULTILINE)
    return sum(float(count) for _, verb, count in found if verb in _WRITES)


OURS = frozenset({("jobs", ""), ("leases", ""), ("modeloptimizations", "status"), ("events", "")})
"""Resources that the operator writes to while nothing is rolled out, each with its subresource."""


def server_writes(api: Api, kinds: Collection[tuple[str, str]] = OURS) -> float:
    """Return the writes to resources, each with its subresource, that the API server has counted."""
    with api.open("GET", "/metrics", kind="text/plain", timeout=30) as response:
        text = response.read().decode()
    total = 0.0
    for line in re.findall(r"^apiserver_request_total\{.*$", text, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        wanted = labels["verb"] in _WRITES and (labels["resource"], labels["subresource"]) in kinds
        renewal = (labels["resource"], labels["verb"]) == ("leases", "PUT")  # of the API server's own Lease
        if wanted and not renewal and labels["scope"] == "resource" and not labels["group"].startswith("x"):
            total += float(line.rsplit(" ", 1)[1])
    return total


def quiet(port: int) -> bool:
    """Return whether nothing is due and nothing runs in the operator."""
    text = fetch(port, "/metrics") or ""
    return "retune_queue_depth 0.0" in text and "retune_active_workers 0.0" in text


def memory(pid: int) -> tuple[float, float]:
    """Return resident and peak resident memory in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1000, int(found["VmHWM"]) / 1000


def cpu(pids: Iterable[int]) -> float:
    """Return the processor seconds that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def server_cpu(plane: ControlPlane) -> float:
    """Return the processor seconds that API server and etcd have used."""
    return cpu(process.pid for process in plane.processes.values())


def present(
    prog: str,
    text: str,
    *,
    sizes: list[int],
    measure: Callable[[int], Row],
    table: Callable[[list[Row]], Table],
    width: int,
) -> None:
    """Measure the sizes that the command line asks for, and print the rows as a table or as JSON."""
    parser = argparse.ArgumentParser(prog=prog, description=text.partition("\n")[0])
    parser.add_argument("sizes", metavar="N", type=int, nargs="*", default=sizes, help="resources")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how results are printed")
    wanted = parser.parse_args()
    rows = [measure(size) for size in wanted.sizes]
    if wanted.output == "json":
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console(width=width).print(table(rows))
