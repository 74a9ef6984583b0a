"""A server that speaks of MLflow as far as we ask it, and as badly as a test wants it to."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import yaml

from tests.unit.jobs.http_for_tests import served

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class Tracking:
    """What the server answers, and which requests it got."""

    port: int
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Status and body by path and query, see `_key`."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Proxied files by their paths below the root of artifacts."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes the next answers with a file break off."""
    ranges: bool = False
    """Whether parts of files are handed out."""
    redirect: str | None = None
    """Where every request is sent on to."""
    writes: Callable[[str, str, Mapping[str, Any]], tuple[int, Any] | None] | None = None
    """Answers requests of the REST API by method, name and fields; None leaves a request to `answers`."""
    keep: Callable[[str, bytes], bytes] = lambda _, content: content
    """What becomes of a file that is written, by its path; whatever it raises ends the connection."""
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""

    @property
    def address(self) -> str:
        """What MLFLOW_TRACKING_URI has to be."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, name: str, content: Any, /, *, status: int = 200, **parameters: str) -> None:
        """Set the answer to a request of the REST API."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answers[_key(f"{API}{name}?{urlencode(parameters)}")] = (status, body)

    def refuse(self, name: str, status: int, code: str, message: str = "no", /, **parameters: str) -> None:
        """Refuse a request in MLflow's words."""
        self.answer(name, {"error_code": code, "message": message}, status=status, **parameters)

    def register(self, version: str, files: Mapping[str, bytes], *, root: str | None = None, **more: str) -> None:
        """Register a version of `digits`, whose files are proxied unless `root` says where they are."""
        folder = f"1/models/m-{version}/artifacts"
        self.files |= {f"{folder}/{name}": content for name, content in files.items()}
        described = {"name": "digits", "version": version, "status": "READY", **more}
        self.answer("model-versions/get", {"model_version": described}, name="digits", version=version)
        uri = f"mlflow-artifacts:/{folder}" if root is None else root
        self.answer("model-versions/get-download-uri", {"artifact_uri": uri}, name="digits", version=version)

    def name(self, alias: str, version: str) -> None:
        """Give a version of `digits` an alias."""
        described = {"model_version": {"name": "digits", "version": version, "status": "READY"}}
        self.answer("registered-models/alias", described, name="digits", alias=alias)

    def paths(self) -> list[str]:
        """Return the paths that were asked for, without queries."""
        return [urlsplit(path).path for path, _ in self.asked]


def mlmodel(**flavours: Mapping[str, Any]) -> bytes:
    """Return an MLmodel with these flavours."""
    return yaml.safe_dump({"flavors": flavours, "model_uuid": "m-1"}).encode()


@contextmanager
def tracking() -> Iterator[Tracking]:
    """Serve until left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = Tracking(server.server_port)
    server.tracking = found  # type: ignore[attr-defined]
    with served(server):
        yield found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found: Tracking = self.server.tracking  # type: ignore[attr-defined]
        found.asked.append((self.path, dict(self.headers)))
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if found.redirect is not None:
            self._send(302, b"", {"Location": found.redirect})
        elif path.startswith(API) and found.writes is not None:
            self._answer(found, dict(parse_qsl(urlsplit(self.path).query)))
        elif path == FILES:
            self._send(200, _listed(found, query.get("path", [""])[0]))
        elif path.startswith(f"{FILES}/"):
            self._file(found, unquote(path.removeprefix(f"{FILES}/")))
        else:
            self._send(*found.answers.get(_key(self.path), (404, b"<html>none</html>")))

    def do_POST(self) -> None:
        found: Tracking = self.server.tracking  # type: ignore[attr-defined]
        found.asked.append((self.path, dict(self.headers)))
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if found.redirect is not None:
            self._send(302, b"", {"Location": found.redirect})
            return
        self._answer(found, json.loads(body or b"{}"))

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        found: Tracking = self.server.tracking  # type: ignore[attr-defined]
        found.asked.append((self.path, dict(self.headers)))
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path.removeprefix(f"{FILES}/"))
        try:
            found.files[path] = found.keep(path, content)
        except ConnectionError:
            self.close_connection = True
            return
        self._send(200, b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, found: Tracking, fields: Mapping[str, Any]) -> None:
        """Answer a request of the REST API."""
        name = urlsplit(self.path).path.removeprefix(API)
        answer = found.writes(self.command, name, fields) if found.writes else None
        if answer is None:
            self._send(*found.answers.get(_key(self.path), (404, b"<html>none</html>")))
        else:
            self._send(answer[0], answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode())

    def _file(self, found: Tracking, path: str) -> None:
        if path not in found.files:
            self._send(404, b"{}")
            return
        content, start = found.files[path], 0
        if found.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        end = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers = {"Content-Range": end} if start else {}
        cuts = found.cuts.get(path, [])
        self._send(206 if start else 200, content[start:], headers, cut=cuts.pop(0) if cuts else None)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = self.close_connection or cut is not None


def _key(path: str) -> str:
    """Return path and query in one way of the many that they can be encoded in."""
    parts = urlsplit(path)
    return f"{parts.path} {sorted(parse_qsl(parts.query))}"


def _listed(found: Tracking, folder: str) -> bytes:
    names = {path[len(folder) + 1 :]: content for path, content in found.files.items() if path.startswith(f"{folder}/")}
    entries = [
        {"path": name, "is_dir": False, "file_size": str(len(content))}
        for name, content in names.items()
        if "/" not in name
    ]
    entries += [{"path": name, "is_dir": True} for name in {name.partition("/")[0] for name in names if "/" in name}]
    return json.dumps({"files": entries}).encode()
