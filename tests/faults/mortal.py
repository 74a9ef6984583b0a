"""An operator process that ends itself, without any goodbye, once its k-th API call has been committed.

`python -m tests.faults.mortal KUBECONFIG NAMESPACES K [MOMENT]`; K = 0 lets it live. With a MOMENT, in ISO 8601, its
clock stands still there, so that what it decides does not depend on how fast anything is, and only writes are counted:
a read changes nothing, so that a kill after it leaves what a kill after the write before it leaves. As no time passes,
a canary's pods are not kept for proxies that have yet to hear that they go.
"""

import asyncio
import os
import sys
import threading
from datetime import datetime
from pathlib import Path

from kubernetes import client as official
from kubernetes import config as official_config

from retune.cluster.client import Request, Response, Transport, connection, official_transport
from retune.plan.rollout import withdrawing
from retune.runtime import Operator
from retune.settings import Settings
from tests.cluster.harness import Clock

DIED = 137
_THREADS = 4


class Fuse:
    """A transport that ends the process after so many calls; the last one is committed, its answer is not seen."""

    def __init__(self, send: Transport, *, limit: int, counts_reads: bool) -> None:
        self._send = send
        self._limit = limit
        self._counts_reads = counts_reads
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Response:
        """Send one request, and die after the last."""
        with self._lock:
            counted = self._counts_reads or request.method != "GET"
            self._calls += counted
            last = counted and self._calls == self._limit
            if last:
                self._send(request)
                os._exit(DIED)
        return self._send(request)


def main(kubeconfig: Path, namespaces: str, limit: int, moment: str | None = None) -> None:
    """Run one operator for these namespaces."""
    found = official.Configuration(retries=False)
    official_config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
    settings = Settings(namespaces=tuple(namespaces.split(",")), workers=2, api_threads=_THREADS, metrics_port=0)
    fuse = Fuse(official_transport(found, threads=_THREADS), limit=limit, counts_reads=moment is None)
    operator = Operator(settings, transport=fuse, login=lambda: connection(found))
    if moment is not None:
        Clock(datetime.fromisoformat(moment)).drive(operator)
        withdrawing.RELEASE_SECONDS = 0.0
    asyncio.run(operator.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
