"""What the agent tells over HTTP: `/ready` for whoever waits for a version, and `/version` for people and programs."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from optimizer_jobs.agent.following import Follower, Standing
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.version_numbers import number_of
from retune.contract.results import Reason

_ASKING_SECONDS = 10.0


@contextmanager
def pages(follower: Follower, *, port: int) -> Iterator[int]:
    """Answer on all addresses of the pod, as kubelets ask; yields the port.

    Args:
        follower: What is told about.
        port: The port; 0 takes a free one.

    Raises:
        JobError: Another process has the port.
    """
    try:
        server = ThreadingHTTPServer(("", port), _handler(follower))
    except OSError as error:
        raise JobError(
            Reason.REQUEST_INVALID, f"port {port}", f"it cannot be had ({error.strerror}).", "Name another: --port."
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told(standing: Standing) -> dict[str, Any]:
    """Return how it stands, in the form of `/version`."""
    return {
        "ready": standing.is_ready,
        "wanted": standing.wanted,
        "served": standing.served,
        "modelVersion": str(number_of(standing.served)) if standing.served else None,
        "fault": standing.fault,
        "reason": standing.reason,
        "failures": standing.failures,
        "loads": standing.loads,
    }


def _handler(follower: Follower) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _ASKING_SECONDS

        def do_GET(self) -> None:
            standing = follower.standing
            good = HTTPStatus.OK if standing.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            status = {"/ready": good, "/version": HTTPStatus.OK}.get(self.path, HTTPStatus.NOT_FOUND)
            content = json.dumps(told(standing)).encode() if status is not HTTPStatus.NOT_FOUND else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing of probes."""

    return Handler
