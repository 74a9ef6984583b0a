"""An operator process that ends itself, without any goodbye, once its k-th API call has been committed.

`python -m tests.faults.mortal KUBECONFIG NAMESPACE K`; K = 0 lets it live.
"""

import asyncio
import os
import sys
import threading
from pathlib import Path

from kubernetes import client as official
from kubernetes import config as official_config

from retune.cluster.client import Request, Response, Transport, connection, official_transport
from retune.runtime import Operator
from retune.settings import Settings

DIED = 137
_THREADS = 4


class Fuse:
    """A transport that ends the process after so many calls; the last one is committed, its answer is not seen."""

    def __init__(self, send: Transport, *, limit: int) -> None:
        self._send = send
        self._limit = limit
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Response:
        """Send one request, and die after the last."""
        with self._lock:
            self._calls += 1
            last = self._calls == self._limit
            if last:
                self._send(request)
                os._exit(DIED)
        return self._send(request)


def main(kubeconfig: Path, namespace: str, limit: int) -> None:
    """Run one operator for one namespace."""
    found = official.Configuration(retries=False)
    official_config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
    settings = Settings(namespaces=(namespace,), workers=2, api_threads=_THREADS, metrics_port=0)
    fuse = Fuse(official_transport(found, threads=_THREADS), limit=limit)
    asyncio.run(Operator(settings, transport=fuse, login=lambda: connection(found)).run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
