"""How fast and how frugal the control loop is: `python -m tests.bench.control [N ...]` prints a table.

For each N, on a control plane of its own (real API server and etcd, no kubelet, no controllers), in this order:

1. Generator alone: N ModelOptimizations are created while no operator runs. It is the floor of step 4.
2. Loop alone: an operator starts and finds those N. Its span is from its first Lease to its last baseline Job; how long
   it took from the start of its process to that first Lease (Python's imports, the first list) is told beside it.
3. Bare client: the same Jobs are created in another namespace with the operator's own HTTP client and as many threads.
4. Headline: an operator that is ready meets N other ModelOptimizations created in a burst. The span is from the first
   create to the moment when a watch shows the last baseline Job: it has in it the generator's work, the delivery of
   events, for each resource three writes one after the other (Lease, status, Job), and the delivery of the Job. Then
   the operator rests through several resyncs, and what it writes is counted.
5. Bare client again; the mean of the two is what spans are compared with.

API server, etcd, operator and generator share this machine's cores, so times say little of themselves: only ratios to
the bare client of the same run do, and the processor time each resource costs. Writes are counted by the operator and
checked against the API server's own counters.
"""

import http.client
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.bench.measured import (
    Posted,
    cpu,
    jobs_of,
    memory,
    named,
    operator_process,
    operator_writes,
    post_all,
    present,
    quiet,
    resources_of,
    server_cpu,
    server_writes,
    until,
)
from tests.cluster.crds import install
from tests.faults.stage import deployment
from tests.samples import manifest
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, control_plane

Json = dict[str, Any]
REST_SECONDS = 50
FIRST, LATER, BARE = "before-operator", "after-operator", "bare"
"""Namespaces: of resources there before their operator, of those that come later, of the bare client's Jobs."""
_RESOURCE = re.compile(rb'"retune.dev/resource":"([^"]+)"')


@dataclass(frozen=True)
class Row:
    """What one N gave. Spans and percentiles in seconds, processor time in milliseconds a resource, memory in MB."""

    resources: int
    bare_span: float
    create_span: float
    boot: float
    loop_span: float
    span: float
    p50: float
    p99: float
    writes: float
    writes_by_server: float
    rest_writes_per_hour: float
    operator_cpu: float
    server_cpu: float
    rss: float
    peak: float


def main() -> None:
    """Measure every size and print the table."""
    present(
        "python -m tests.bench.control", str(__doc__), sizes=[1, 100, 1000], measure=measure, table=table, width=132
    )


def measure(size: int) -> Row:
    """Run one size on a control plane of its own."""
    print(f"{size} resources: about {REST_SECONDS + 25 + size // 20} s ...", file=sys.stderr)
    with control_plane() as plane:
        api = Api(plane.kubeconfig)
        install(api, [modeloptimization_crd(), optimizationrun_crd()])
        _prepare(plane, size)
        create_span = _create(plane, FIRST, size).span
        boot, loop_span = _loop_alone(plane, size)
        jobs = [_bare(job) for job in api.get(jobs_of(FIRST))["items"]]
        bare = [_bare_span(plane, jobs, "a")]
        found = _headline(plane, size)
        bare.append(_bare_span(plane, jobs, "b"))
    return Row(
        resources=size, bare_span=float(np.mean(bare)), create_span=create_span, boot=boot, loop_span=loop_span, **found
    )


def _prepare(plane: ControlPlane, size: int) -> None:
    """Make the namespaces, and in two of them a Deployment for each resource."""
    api = Api(plane.kubeconfig)
    for namespace in (FIRST, LATER, BARE):
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        api.apply(f"/api/v1/namespaces/{namespace}", document)
    for namespace in (FIRST, LATER):
        targets = [named(deployment(namespace), namespace, f"server-{number}") for number in range(size)]
        post_all(plane, f"/apis/apps/v1/namespaces/{namespace}/deployments", targets)
    # The API server takes seconds to serve a kind that is new to it: not a matter of any span.
    api.request("POST", f"{resources_of(FIRST)}?dryRun=All", named(manifest(), FIRST, "first"))


def _loop_alone(plane: ControlPlane, size: int) -> tuple[float, float]:
    """Let an operator find resources that are there; returns seconds to its first Lease, and from there to the end."""
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{FIRST}/leases"
    watch, lease = _Watch(plane, jobs_of(FIRST)), _Watch(plane, leases, stop_after=1)
    began = time.monotonic()
    with operator_process(plane, FIRST):
        (first,) = lease.wait(1).values()
        return first - began, max(watch.wait(size).values()) - first


def _headline(plane: ControlPlane, size: int) -> dict[str, float]:
    """Let an operator that is ready meet a burst, then rest; returns those fields of the row."""
    api = Api(plane.kubeconfig)
    with operator_process(plane, LATER) as (pid, port):
        watch, before = _Watch(plane, jobs_of(LATER)), server_writes(api)
        operator, server = cpu([pid]), server_cpu(plane)
        created = _create(plane, LATER, size).asked
        seen = watch.wait(size)
        operator, server = cpu([pid]) - operator, server_cpu(plane) - server
        writes, by_server = operator_writes(port), server_writes(api) - before
        rest = _rest(port)
        rss, peak = memory(pid)
    waits = np.array([seen[name] - created[name] for name in created])
    return {
        "span": max(seen.values()) - min(created.values()),
        "p50": float(np.percentile(waits, 50)),
        "p99": float(np.percentile(waits, 99)),
        "writes": writes / size,
        "writes_by_server": by_server / size,
        "rest_writes_per_hour": rest * 3600 / REST_SECONDS,
        "operator_cpu": operator * 1000 / size,
        "server_cpu": server * 1000 / size,
        "rss": rss,
        "peak": peak,
    }


def _bare_span(plane: ControlPlane, jobs: list[Json], mark: str) -> float:
    """Create the Jobs without an operator; returns the seconds from the first request to the last answer."""
    return post_all(plane, jobs_of(BARE), [named(job, BARE, f"{mark}-{job['metadata']['name']}") for job in jobs]).span


def _create(plane: ControlPlane, namespace: str, size: int) -> Posted:
    """Create the resources."""
    bodies = [
        named(manifest(target={"ref": {"name": f"server-{number}"}}), namespace, f"digits-{number}")
        for number in range(size)
    ]
    return post_all(plane, resources_of(namespace), bodies)


def _bare(job: Json) -> Json:
    """Return the same Job as a client without an operator would create it: without owner, and what the server added."""
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
        "metadata": {"name": meta["name"], "labels": meta.get("labels", {})},
        "spec": spec,
    }


class _Watch:
    """Notes when each resource's first object under a path is seen."""

    def __init__(self, plane: ControlPlane, path: str, *, stop_after: int = sys.maxsize) -> None:
        self._seen: dict[str, float] = {}
        self._stop_after = stop_after
        self._changed = threading.Condition()
        target = f"{path}?watch=true&timeoutSeconds=600"
        response = Api(plane.kubeconfig).open("GET", target, kind="application/json", timeout=630)
        threading.Thread(target=self._follow, args=(response,), daemon=True).start()

    def _follow(self, response: Any) -> None:
        """Read names off the raw events: parsing them whole would take time from what is measured."""
        with response, suppress(OSError, http.client.HTTPException):  # the API server is ended at the end
            for line in response:
                found = _RESOURCE.search(line)
                with self._changed:
                    if found:
                        self._seen.setdefault(found[1].decode(), time.monotonic())
                        self._changed.notify_all()
                    if len(self._seen) >= self._stop_after:
                        return

    def wait(self, count: int) -> dict[str, float]:
        """Wait until objects of so many resources were seen; returns when each was."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._seen) >= count, timeout=300):
                raise SystemExit(f"only {len(self._seen)} of {count} after 300 s")
            return dict(self._seen)


def _rest(port: int) -> float:
    """Let the operator rest, through several resyncs; returns what it wrote meanwhile."""
    until(lambda: quiet(port), what="an idle queue", seconds=120)
    settled = operator_writes(port)
    time.sleep(REST_SECONDS)
    return operator_writes(port) - settled


_LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("bare client: the same Jobs, span s", lambda row: f"{row.bare_span:.3f}"),
    ("generator alone: the resources without operator, span s", lambda row: f"{row.create_span:.2f}"),
    ("  ratio to bare", lambda row: f"{row.create_span / row.bare_span:.2f}"),
    ("loop alone: first Lease to last Job of resources there before, span s", lambda row: f"{row.loop_span:.2f}"),
    ("  ratio to bare", lambda row: f"{row.loop_span / row.bare_span:.2f}"),
    ("  start of the process to first Lease, s", lambda row: f"{row.boot:.2f}"),
    ("headline: first create to last Job seen, span s", lambda row: f"{row.span:.2f}"),
    ("  ratio to bare", lambda row: f"{row.span / row.bare_span:.2f}"),
    ("  one resource, p50 s", lambda row: f"{row.p50:.2f}"),
    ("  one resource, p99 s", lambda row: f"{row.p99:.2f}"),
    ("API writes a resource, by the operator's count", lambda row: f"{row.writes:.2f}"),
    ("API writes a resource, by the API server's count", lambda row: f"{row.writes_by_server:.2f}"),
    ("API writes an hour at rest", lambda row: f"{row.rest_writes_per_hour:.0f}"),
    ("processor time a resource in the headline, operator, ms", lambda row: f"{row.operator_cpu:.1f}"),
    ("processor time a resource in the headline, API server and etcd, ms", lambda row: f"{row.server_cpu:.1f}"),
    ("resident memory, MB", lambda row: f"{row.rss:.0f}"),
    ("resident memory, peak, MB", lambda row: f"{row.peak:.0f}"),
)


def table(rows: list[Row]) -> Table:
    """Return the table people read: a column for each N."""
    found = Table("resources", title="Control loop: created resource to created Job")
    for row in rows:
        found.add_column(str(row.resources), justify="right")
    for name, text in _LINES:
        found.add_row(name, *(text(row) for row in rows))
    return found


if __name__ == "__main__":
    main()
