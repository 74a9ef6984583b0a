"""A real HTTPS server with an authority of its own, that behaves as each test needs it."""

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.unit.jobs.http_for_tests import served
from tools.localcluster.certs import LOOPBACK, Identity, ensure


@dataclass
class Site:
    """What the server answers by path, and which requests it got."""

    port: int
    authority: str
    """Certificate of the authority as PEM."""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    stalling: set[str] = field(default_factory=set)
    endless: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""

    def uri(self, path: str) -> str:
        """Return the URI of a path of this server."""
        return f"https://localhost:{self.port}{path}"


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """Serve until left; certificates lie in the folder."""
    ensure(folder / "certificates", [Identity("server", "localhost", names=LOOPBACK)])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificates" / "server.crt", folder / "certificates" / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site = Site(port=server.server_port, authority=(folder / "certificates" / "ca.crt").read_text())
    server.site = site  # type: ignore[attr-defined]
    server.stopping = threading.Event()  # type: ignore[attr-defined]
    with served(server):
        try:
            yield site
        finally:
            server.stopping.set()  # type: ignore[attr-defined]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        site.asked.append((self.command, self.path, dict(self.headers)))
        if self.path in site.redirects:
            self._head(302, {"Location": site.redirects[self.path], "Content-Length": "0"})
        elif self.path in site.statuses:
            self._head(site.statuses[self.path], {"Content-Length": "0"})
        elif self.path in site.endless or self.path in site.stalling:
            self._head(200, {"Connection": "close"})
            self._drip(fast=self.path in site.endless and body)
        elif self.path in site.files:
            content = site.files[self.path]
            self._head(200, {"Content-Length": str(len(content))})
            if body:
                self.wfile.write(content)
        else:
            self._head(404, {"Content-Length": "0"})

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self, *, fast: bool) -> None:
        """Send bytes without an end: as fast as they go, or one every now and then."""
        self.close_connection = True
        stopping: threading.Event = self.server.stopping  # type: ignore[attr-defined]
        if self.command == "HEAD":
            return
        try:
            while not stopping.is_set():
                self.wfile.write(b"\0" * (1 << 16 if fast else 1))
                self.wfile.flush()
                if not fast:
                    time.sleep(0.01)
        except OSError:
            return
