"""What it costs to watch many champions: `python -m tests.bench.watching [N ...]` prints a table.

For each N, on a control plane of its own (real API server and etcd, no kubelet, no controllers): an operator measures N
ModelOptimizations that only observe, then their windows of one minute pass in real time. A stub node answers every Job
at once, and every check says that nothing has changed.

Windows end at the same moment for everybody, and their checks become due within the tenth of a window that follows.
Lateness is the time from the moment a check is due until a watch shows its Job. What is measured is whole windows in
the steady state; API server, etcd, operator and node share this machine's cores.
"""

import json
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

import numpy as np
from rich.table import Table

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.api.monitoring import Monitoring
from retune.cluster.client import Request
from retune.plan.watch.windows import own_delay
from tests.bench.measured import (
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
    transport,
    until,
)
from tests.cluster.crds import install
from tests.faults.stage import deployment
from tests.faults.stagehand import Stagehand
from tests.samples import manifest
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane, control_plane

Json = dict[str, Any]
WINDOW, DELAY = 60, 10
WINDOWS = 3
"""Windows that are measured."""
WATCHED = "watched"
MONITORING = {
    "production": {"uri": "pvc://store/production"},
    "window": f"{WINDOW}s",
    "delay": f"{DELAY}s",
}
_NAME = re.compile(rb'"name":"((watched-\d+)-w(\d+))"')
_HANDS = 4


@dataclass(frozen=True)
class Row:
    """What one N gave. Times in seconds, processor time in milliseconds a check, memory in MB."""

    resources: int
    windows: int
    checks: int
    skipped: int
    late_p50: float
    late_p99: float
    late_most: float
    settled: float
    writes: float
    writes_by_server: float
    writes_per_hour: float
    operator_cpu: float
    operator_share: float
    server_cpu: float
    rss: float
    peak: float


def main() -> None:
    """Measure every size and print the table."""
    present(
        "python -m tests.bench.watching", str(__doc__), sizes=[10, 100, 1000], measure=measure, table=table, width=110
    )


def measure(size: int) -> Row:
    """Run one size on a control plane of its own."""
    print(f"{size} resources: about {(WINDOWS + 4) * WINDOW + size // 8} s ...", file=sys.stderr)
    with control_plane() as plane:
        install(Api(plane.kubeconfig), [modeloptimization_crd(), optimizationrun_crd()])
        _prepare(plane, size)
        with _Node(plane) as node, operator_process(plane, WATCHED, resync_seconds=600) as (pid, port):
            until(lambda: node.answered >= size, what="answered baselines", seconds=60 + size)
            _sleep_until(_next_due() + 2 * WINDOW - 5)  # the first whole window of everybody is over then, and judged
            until(lambda: quiet(port), what="an idle queue", seconds=WINDOW)
            return _measured(plane, node, size, pid=pid, port=port)


def _prepare(plane: ControlPlane, size: int) -> None:
    """Make the namespace, and in it resources that only observe, with a Deployment each."""
    api = Api(plane.kubeconfig)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WATCHED}}
    api.apply(f"/api/v1/namespaces/{WATCHED}", space)
    names = [f"watched-{number}" for number in range(size)]
    post_all(
        plane,
        f"/apis/apps/v1/namespaces/{WATCHED}/deployments",
        [named(deployment(WATCHED), WATCHED, n) for n in names],
    )
    api.request("POST", f"{resources_of(WATCHED)}?dryRun=All", named(manifest(), WATCHED, "first"))
    spec = {"monitoring": MONITORING, "mode": "ObserveOnly"}
    bodies = [named(manifest(target={"ref": {"name": n}}, **spec), WATCHED, n) for n in names]
    post_all(plane, resources_of(WATCHED), bodies)


def _measured(plane: ControlPlane, node: "_Node", size: int, *, pid: int, port: int) -> Row:
    """Let windows pass and read what they cost."""
    due = [_next_due() + number * WINDOW for number in range(WINDOWS)]
    began = (operator_writes(port), server_writes(node.api), cpu([pid]), server_cpu(plane))
    _sleep_until(due[-1] + WINDOW - 5)
    until(lambda: quiet(port), what="an idle queue", seconds=WINDOW)
    ended = (operator_writes(port), server_writes(node.api), cpu([pid]), server_cpu(plane))
    writes, by_server, operator, server = (after - before for after, before in zip(ended, began, strict=True))
    late = np.array([seen - due_at for ended, due_at, seen in node.seen() if ended + DELAY in due])
    states = [each["status"]["monitoring"] for each in node.api.get(resources_of(WATCHED))["items"]]
    settled = sum(state.get("window") == due[-1] // WINDOW - 1 for state in states)
    rss, peak = memory(pid)
    return Row(
        resources=size,
        windows=WINDOWS,
        checks=len(late),
        skipped=sum(each["skippedWindows"] for each in states),
        late_p50=float(np.percentile(late, 50)),
        late_p99=float(np.percentile(late, 99)),
        late_most=float(late.max()),
        settled=settled / size,
        writes=writes / len(late),
        writes_by_server=by_server / len(late),
        writes_per_hour=writes * 3600 / (WINDOWS * WINDOW),
        operator_cpu=operator * 1000 / len(late),
        operator_share=operator / (WINDOWS * WINDOW),
        server_cpu=server * 1000 / len(late),
        rss=rss,
        peak=peak,
    )


def _next_due() -> int:
    """Return the next moment at which checks become due, in seconds since 1970."""
    return int((time.time() - DELAY) // WINDOW + 1) * WINDOW + DELAY


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


class _Kept(Api):
    """The small client on connections that are kept: handshakes would be most of what a node costs."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(kubeconfig)
        self._send = transport(kubeconfig)

    def request(self, method: str, path: str, body: Json | None = None, *, kind: str = "application/json") -> Json:
        """One request with a JSON answer."""
        response = self._send(Request(method, path, body=body, content_type=kind))
        if response.status >= 400:
            raise ApiError(response.status, response.body.decode(errors="replace"))
        found: Json = json.loads(response.body)
        return found


class _Node:
    """Answers every Job as soon as a watch shows it, and notes when that was."""

    def __init__(self, plane: ControlPlane) -> None:
        self.api = _Kept(plane.kubeconfig)
        self._stagehand = Stagehand(self.api)
        self._first: dict[str, tuple[int, float, float]] = {}
        self._hands = ThreadPoolExecutor(_HANDS)
        self._lock = threading.Lock()
        self.answered = 0
        """Jobs that have their answer."""
        path = f"{jobs_of(WATCHED)}?watch=true&timeoutSeconds=3000"
        self._watch = self.api.open("GET", path, kind="application/json", timeout=3030)

    def __enter__(self) -> Self:
        """Begin."""
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what was begun."""
        self._hands.shutdown(cancel_futures=True)

    def seen(self) -> list[tuple[int, float, float]]:
        """Return of each check when its window ended, when it was due, and when it was seen first."""
        return list(self._first.values())

    def _follow(self) -> None:
        with self._watch, suppress(OSError, HTTPException, RuntimeError):  # the API server is ended at the end
            for line in self._watch:
                now, check = time.time(), _NAME.search(line)
                if check:
                    ended = (int(check[3]) + 1) * WINDOW
                    due = ended + own_delay(f"{WATCHED}/{check[2].decode()}", Monitoring(delay=f"{DELAY}s"), WINDOW)
                    self._first.setdefault(check[1].decode(), (ended, due, now))
                if b'"type":"ADDED"' in line[:20]:
                    self._hands.submit(self._answer, line)

    def _answer(self, line: bytes) -> None:
        try:
            self._stagehand.finish(json.loads(line)["object"])
        except (
            ApiError,
            OSError,
        ) as error:  # it would be lost in the pool, and what waits for the Job would not say why
            print(f"a Job was not answered: {error}", file=sys.stderr)
        with self._lock:
            self.answered += 1


_LINES = (
    ("windows measured", "windows", "d"),
    ("checks in them", "checks", "d"),
    ("windows passed over, all in all", "skipped", "d"),
    ("resources whose newest window is judged at the end", "settled", ".1%"),
    ("lateness of a check's Job, p50 s", "late_p50", ".2f"),
    ("lateness, p99 s", "late_p99", ".2f"),
    ("lateness, most s", "late_most", ".2f"),
    ("API writes a check, by the operator's count", "writes", ".2f"),
    ("API writes a check, by the API server's count, its own Lease with them", "writes_by_server", ".2f"),
    ("API writes an hour", "writes_per_hour", ".0f"),
    ("processor time a check, operator, ms", "operator_cpu", ".1f"),
    ("processor time a check, API server and etcd, ms", "server_cpu", ".1f"),
    ("operator's share of one core", "operator_share", ".1%"),
    ("resident memory, MB", "rss", ".0f"),
    ("resident memory, peak, MB", "peak", ".0f"),
)


def table(rows: list[Row]) -> Table:
    """Return the table people read: a column for each N."""
    found = Table("resources", title=f"Watching champions: windows of {WINDOW} s")
    for row in rows:
        found.add_column(str(row.resources), justify="right")
    for name, field, how in _LINES:
        found.add_row(name, *(format(getattr(row, field), how) for row in rows))
    return found


if __name__ == "__main__":
    main()
