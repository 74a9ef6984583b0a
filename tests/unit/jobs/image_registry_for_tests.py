"""A registry that speaks the distribution specification as far as we do, and as badly as a test wants it to."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.jobs.http_for_tests import served

PREFIX = "/v2/team/digits/"


@dataclass(frozen=True)
class Fault:
    """One answer that is not as it should be."""

    status: int = 0
    """HTTP status; 0 breaks the connection off."""
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    message: str = "no"
    body: bytes | None = None
    """What is answered in place of an error of the specification."""


@dataclass
class FakeRegistry:
    """What it has, and which requests it got."""

    port: int
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    """By digest and by tag."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """Next answers to requests whose method and path, after the repository's, begin so."""
    location: str | None = None
    """Where uploads are sent on to; here by default."""
    told: str | None = None
    """The digest that it says it has taken."""
    token: str | None = None
    """The token that it wants, from its own token service."""
    realm: str | None = None
    """Address of the token service; its own by default."""
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""

    @property
    def reference(self) -> str:
        """The repository that it has."""
        return f"oci://{self.host}/team/digits"

    @property
    def host(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def requests(self, method: str, path: str = "") -> list[str]:
        """Return the paths that were asked for by a method, after the repository's."""
        found = [each.removeprefix(PREFIX) for asked, each, _ in self.asked if asked == method]
        return [each for each in found if each.startswith(path)]

    def index(self, tag: str) -> Any:
        """Return what a tag names."""
        return json.loads(self.manifests[tag])


@contextmanager
def registry() -> Iterator[FakeRegistry]:
    """Serve until left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = FakeRegistry(server.server_port)
    server.registry = found  # type: ignore[attr-defined]
    with served(server):
        yield found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._token()
        else:
            self._answered(self._read)

    def do_HEAD(self) -> None:
        self._answered(self._read)

    def do_POST(self) -> None:
        if self.path.startswith("/token"):
            self._token()
        else:
            self._answered(self._begin)

    def do_PUT(self) -> None:
        self._answered(self._take)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def _registry(self) -> FakeRegistry:
        found: FakeRegistry = self.server.registry  # type: ignore[attr-defined]
        return found

    def _answered(self, act: Any) -> None:
        found = self._registry
        self._body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        found.asked.append((self.command, self.path, dict(self.headers)))
        fault = self._fault()
        if fault is not None:
            self._fail(fault)
        elif found.token and self.headers.get("Authorization") != f"Bearer {found.token}":
            realm = found.realm or f"http://{found.host}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:team/digits:pull,push"'
            self._fail(Fault(401, {"WWW-Authenticate": challenge}, "UNAUTHORIZED"))
        else:
            act(self.path.removeprefix(PREFIX))

    def _fault(self) -> Fault | None:
        path = f"{self.command} {self.path.removeprefix(PREFIX)}"
        for start, faults in self._registry.faults.items():
            if path.startswith(start) and faults:
                return faults.pop(0)
        return None

    def _fail(self, fault: Fault) -> None:
        if not fault.status:
            self.close_connection = True
            return
        error = json.dumps({"errors": [{"code": fault.code, "message": fault.message}]}).encode()
        self._send(fault.status, error if fault.body is None else fault.body, fault.headers)

    def _token(self) -> None:
        found = self._registry
        length = int(self.headers.get("Content-Length", "0"))
        self.path += f"&{self.rfile.read(length).decode()}" if length else ""
        found.asked.append((self.command, self.path, dict(self.headers)))
        fault = self._fault()
        if fault is not None:
            self._fail(fault)
        else:
            self._send(200, json.dumps({"token": found.token}).encode())

    def _read(self, path: str) -> None:
        kind, _, which = path.partition("/")
        content = (self._registry.blobs if kind == "blobs" else self._registry.manifests).get(which)
        if content is None:
            self._fail(Fault(404, code="MANIFEST_UNKNOWN"))
        else:
            media_type = json.loads(content).get("mediaType", "") if kind == "manifests" else "application/octet-stream"
            headers = {"Content-Type": media_type, "Docker-Content-Digest": _digest(content)}
            self._send(200, content, headers)

    def _begin(self, _: str) -> None:
        self._send(202, b"", {"Location": self._registry.location or f"{PREFIX}blobs/uploads/1?state=a%3D"})

    def _take(self, path: str) -> None:
        found, digest = self._registry, _digest(self._body)
        if path.startswith("manifests/"):
            found.manifests |= {digest: self._body, path.partition("/")[2]: self._body}
        else:
            assert parse_qs(urlsplit(path).query) == {"state": ["a="], "digest": [digest]}
            found.blobs[digest] = self._body
        self._send(201, b"", {"Docker-Content-Digest": found.told or digest})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
