"""Pods that answer requests, for controllers that are real: each has an address of its own, and counts like MLServer.

No request is sent. A pod counts so many a second from when it was ready, and of them a share fails where its version is
bad: the counts are exact, so that what is measured is the controller's doing.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cluster.kubelet import Kubelet, value_of
from tools.localcluster.api import Api

Json = dict[str, Any]
RATE = 5.0
"""Requests a second that a pod answers."""
_INFER = 'method="POST",path="/v2/models/{model_name}/infer"'


@dataclass(frozen=True)
class Pod:
    """A pod that is ready."""

    app: str
    """What it belongs to, by its label `app`."""
    value: str | None
    """The model that it was given."""
    since: float
    """When it became ready, in seconds of the monotonic clock."""


class Pods(Kubelet):
    """Runs pods at once, each at an address of its own on this machine.

    Args:
        api: The API server.
        namespace: Where the pods are.
        delivered: The model that is not bad.
    """

    def __init__(self, api: Api, namespace: str, *, delivered: str) -> None:
        super().__init__(api, namespace)
        self._delivered = delivered
        self.failing = 0.0
        """Share of requests that every other model fails."""
        self.ready: dict[str, Pod] = {}
        """Every pod that ever ran, by address."""

    def address(self, pod: Json) -> str:
        """Return an address that no other pod has had."""
        number = len(self.ready) + 1
        place = f"127.9.{number // 250}.{number % 250 + 1}"
        self.ready[place] = Pod(pod["metadata"]["labels"]["app"], value_of(pod), time.monotonic())
        return place

    def counts(self, pod: Pod) -> tuple[int, int]:
        """Return the requests that a pod has answered until now, and those of them that failed."""
        answered = int(RATE * (time.monotonic() - pod.since))
        return answered, 0 if pod.value == self._delivered else round(self.failing * answered)

    def first_bad(self, app: str) -> float | None:
        """Return when the first pod of an app was ready that has another model; None before there is one."""
        moments = [pod.since for pod in self.ready.values() if pod.app == app and pod.value != self._delivered]
        return min(moments, default=None)

    def share_failed(self, app: str) -> float:
        """Return the share of requests that an app's pods with another model have failed."""
        counts = [self.counts(pod) for pod in self.ready.values() if pod.app == app and pod.value != self._delivered]
        answered, failed = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
        return failed / answered if answered else 0.0

    def metrics(self, address: str) -> str:
        """Return what a pod says of itself, in Prometheus' text format."""
        answered, failed = self.counts(self.ready[address])
        good = answered - failed
        lines = [f'rest_server_requests_total{{{_INFER},status_code="200"}} {good}']
        lines += [f'rest_server_requests_total{{{_INFER},status_code="500"}} {failed}']
        name = "rest_server_request_duration_seconds"
        lines += [f'{name}_bucket{{{_INFER},le="{bound}"}} {answered}' for bound in ("0.01", "0.025", "+Inf")]
        return "\n".join([*lines, f"{name}_count{{{_INFER}}} {answered}", ""])


@contextmanager
def answering(pods: Pods) -> Iterator[int]:
    """Serve the metrics of every pod at its address, and `/failed/APP` for whoever asks; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer for the pod whose address was asked."""
            address, app = str(self.connection.getsockname()[0]), self.path.rpartition("/")[2]
            is_metrics = self.path == "/metrics"
            text = pods.metrics(address) if is_metrics else json.dumps({"share": pods.share_failed(app)})
            self.send_response(200)
            self.send_header("Content-Type", "text/plain" if is_metrics else "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104 - every pod has an address of its own
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
