"""Pods whose agents answer: what a kubelet gives them of a ConfigMap, and what each of them says of it, over HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from optimizer_jobs.agent.following import Standing
from optimizer_jobs.agent.pages import told
from optimizer_jobs.agent.wanted import digest_in
from retune.contract.results import Reason
from tests.cluster.kubelet import Kubelet
from tools.localcluster.api import Api
from tools.localcluster.controlplane import free_ports

Json = dict[str, Any]


class Agents:
    """The agents of all pods of a namespace, each at its pod's own address.

    Args:
        read: Returns what the followed file holds; empty where there is none.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self.port = free_ports(1)[0]
        self.fault: tuple[Reason, str] | None = None
        """Why no server serves a bundle that none has served yet."""
        self.seen: str | None = None
        """What kubelets have given to pods; None: what there is now."""
        self._read, self._proved = read, set[str]()
        self._servers: dict[str, ThreadingHTTPServer] = {}

    def standing(self) -> Standing:
        """How every agent stands."""
        wanted = (self._read() if self.seen is None else self.seen) or None
        if wanted is None:
            return Standing()
        if self.fault is not None and wanted not in self._proved:
            reason, words = self.fault
            return Standing(wanted=wanted, fault=words, reason=reason, failures=1)
        self._proved.add(wanted)
        return Standing(wanted=wanted, served=digest_in(wanted))

    def serve(self, address: str) -> None:
        """Have the agent of a pod answer at its address."""
        if address not in self._servers:
            server = self._servers[address] = ThreadingHTTPServer((address, self.port), _handler(self))
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop all of them."""
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def kubelet(self, api: Api, namespace: str, *, is_broken: Callable[[Json], bool]) -> Kubelet:
        """Return who plays the kubelet of these pods."""
        return _KubeletOf(self, api, namespace, is_broken=is_broken)


class _KubeletOf(Kubelet):
    """Gives each pod an address of this machine, at which its agent answers."""

    def __init__(self, agents: Agents, api: Api, namespace: str, *, is_broken: Callable[[Json], bool]) -> None:
        self._agents = agents
        super().__init__(api, namespace, is_broken=is_broken)

    def address(self, pod: Json) -> str:
        """Return an address of the loopback network."""
        number = int(pod["metadata"]["uid"].replace("-", "")[:4], 16)
        address = f"127.7.{number >> 8}.{max(1, number & 0xFE)}"
        self._agents.serve(address)
        return address


@contextmanager
def agents(read: Callable[[], str]) -> Iterator[Agents]:
    """Agents that follow a file, until the end of a test."""
    found = Agents(read)
    try:
        yield found
    finally:
        found.close()


def _handler(agents: Agents) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer as the agent of retune-runtime does."""
            content = json.dumps(told(agents.standing())).encode()
            self.send_response(200 if self.path == "/version" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
