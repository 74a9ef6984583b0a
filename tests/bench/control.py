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
6. Argo Rollouts by the same procedure as step 4, twice, each on a control plane of its own: see `rollouts_peer`.

API server, etcd, controller and generator share this machine's cores, so times say little of themselves: only ratios
to the bare client of the same run do, and the processor time each object costs. Writes are the API server's own count,
and the operator's beside it.
"""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.bench import deployed, rollouts_peer
from tests.bench.burst import REST_SECONDS, Burst, Watch, meet
from tests.bench.measured import (
    OURS,
    Posted,
    jobs_of,
    named,
    operator_process,
    operator_writes,
    post_all,
    present,
    resources_of,
)
from tests.cluster.crds import install
from tests.faults.stage import deployment
from tests.samples import manifest
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, control_plane

Json = dict[str, Any]
FIRST, LATER, BARE = "before-operator", "after-operator", "bare"
"""Namespaces: of resources there before their operator, of those that come later, of the bare client's Jobs."""
_RESOURCE = re.compile(rb'"retune.dev/resource":"([^"]+)"')


@dataclass(frozen=True)
class Row:
    """What one N gave. Spans in seconds."""

    resources: int
    bare_span: float
    create_span: float
    boot: float
    loop_span: float
    headline: Burst
    counted: float
    """Writes a resource in the headline, as the operator counts them."""
    argo: Burst
    argo_raised: Burst


def main() -> None:
    """Measure every size and print the table."""
    present(
        "python -m tests.bench.control", str(__doc__), sizes=[1, 100, 1000], measure=measure, table=table, width=132
    )


def measure(size: int) -> Row:
    """Run one size, each contestant on a control plane of its own."""
    print(f"{size} resources: about {3 * REST_SECONDS + 90 + size // 6} s ...", file=sys.stderr)
    deployed.packages()  # the start of the operator is timed, and these links are no part of it
    ours, argo = _ours(size), rollouts_peer.measure(size)
    return Row(**ours, argo=argo, argo_raised=rollouts_peer.measure(size, *rollouts_peer.RAISED))


def _ours(size: int) -> dict[str, Any]:
    """Measure the operator; returns its part of the row."""
    with control_plane() as plane:
        api = Api(plane.kubeconfig)
        install(api, [modeloptimization_crd(), optimizationrun_crd()])
        _prepare(plane, size)
        create_span = _create(plane, FIRST, size).span
        boot, loop_span = _loop_alone(plane, size)
        jobs = [_bare(job) for job in api.get(jobs_of(FIRST))["items"]]
        bare = [_bare_span(plane, jobs, "a")]
        headline, counted = _headline(plane, size)
        bare.append(_bare_span(plane, jobs, "b"))
    return {
        "resources": size,
        "bare_span": float(np.mean(bare)),
        "create_span": create_span,
        "boot": boot,
        "loop_span": loop_span,
        "headline": headline,
        "counted": counted,
    }


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
    watch = Watch(plane, jobs_of(FIRST), names=_RESOURCE)
    lease = Watch(plane, leases, names=_RESOURCE, stop_after=1)
    began = time.monotonic()
    with operator_process(plane, FIRST):
        (first,) = lease.wait(1).values()
        return first - began, max(watch.wait(size).values()) - first


def _headline(plane: ControlPlane, size: int) -> tuple[Burst, float]:
    """Let an operator that is ready meet a burst; returns what came of it, and its own count of writes a resource."""
    with operator_process(plane, LATER) as (pid, port):
        before = operator_writes(port)
        found = meet(
            plane,
            pid,
            create=lambda: _create(plane, LATER, size),
            watch=Watch(plane, jobs_of(LATER), names=_RESOURCE),
            kinds=OURS,
        )
        return found, (operator_writes(port) - before) / size


def _bare_span(plane: ControlPlane, jobs: list[Json], mark: str) -> float:
    """Create the Jobs without an operator; returns the seconds from the first request to the last answer."""
    return post_all(plane, jobs_of(BARE), [named(job, BARE, f"{mark}-{job['metadata']['name']}") for job in jobs]).span


def _create(plane: ControlPlane, namespace: str, size: int) -> Posted:
    """Create the resources, each of another model with other data."""
    return post_all(plane, resources_of(namespace), [_resource(namespace, f"digits-{n}", n) for n in range(size)])


def _resource(namespace: str, name: str, number: int) -> Json:
    data = {part: {"uri": f"pvc://data/{name}/{part}.npz"} for part in ("training", "validation", "test")}
    model, target = {"uri": f"pvc://models/{name}/model.onnx"}, {"ref": {"name": f"server-{number}"}}
    return named(manifest(model=model, data=data, target=target), namespace, name)


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


_BURST: tuple[tuple[str, Callable[[Burst], str]], ...] = (
    ("  one object, p50 s", lambda burst: f"{burst.p50:.2f}"),
    ("  one object, p99 s", lambda burst: f"{burst.p99:.2f}"),
    ("  API writes an object", lambda burst: f"{burst.writes:.2f}"),
    ("  API writes an hour at rest", lambda burst: f"{burst.rest_writes_per_hour:.0f}"),
    ("  processor time an object, controller, ms", lambda burst: f"{burst.cpu:.1f}"),
    ("  the same until nothing is written any more, ms", lambda burst: f"{burst.settled_cpu:.1f}"),
    ("  processor time an object, API server and etcd, ms", lambda burst: f"{burst.server_cpu:.1f}"),
    ("  resident memory of the controller, MB", lambda burst: f"{burst.rss:.0f}"),
    ("  resident memory, peak, MB", lambda burst: f"{burst.peak:.0f}"),
)
_BURSTS: tuple[tuple[str, Callable[[Row], Burst]], ...] = (
    ("headline: first create to last Job seen, span s", lambda row: row.headline),
    ("Argo Rollouts, its defaults: first create to last ReplicaSet seen, span s", lambda row: row.argo),
    (f"Argo Rollouts, {' '.join(rollouts_peer.RAISED)}: the same, span s", lambda row: row.argo_raised),
)
_LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("bare client: the same Jobs, span s", lambda row: f"{row.bare_span:.3f}"),
    ("generator alone: the resources without operator, span s", lambda row: f"{row.create_span:.2f}"),
    ("  ratio to bare", lambda row: f"{row.create_span / row.bare_span:.2f}"),
    ("loop alone: first Lease to last Job of resources there before, span s", lambda row: f"{row.loop_span:.2f}"),
    ("  ratio to bare", lambda row: f"{row.loop_span / row.bare_span:.2f}"),
    ("  start of the process to first Lease, s", lambda row: f"{row.boot:.2f}"),
    ("API writes a resource in the headline, by the operator's count", lambda row: f"{row.counted:.2f}"),
)


def table(rows: list[Row]) -> Table:
    """Return the table people read: a column for each N."""
    found = Table("objects", title="Control loop: created object to created child")
    for row in rows:
        found.add_column(str(row.resources), justify="right")
    for name, text in _LINES:
        found.add_row(name, *(text(row) for row in rows))
    for name, burst in _BURSTS:
        found.add_section()
        found.add_row(name, *(f"{burst(row).span:.2f}" for row in rows))
        found.add_row("  ratio to bare", *(f"{burst(row).span / row.bare_span:.2f}" for row in rows))
        for detail, number in _BURST:
            found.add_row(detail, *(number(burst(row)) for row in rows))
    return found


if __name__ == "__main__":
    main()
