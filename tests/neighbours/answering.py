"""A model server of the tests' own that captures as Retune does, so that what others capture of it can be compared.

It speaks both versions of the protocol, and version 2 with tensors as JSON or as bytes.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.models.engine import Session
from optimizer_jobs.production.protocol import parse_body, tensors
from optimizer_jobs.production.writer import CaptureWriter

Array = NDArray[Any]
HEAD = "Inference-Header-Content-Length"
"""Header with the length of the JSON before the tensors of a request or answer."""
KINDS = ("json", "binary", "v1")
"""Ways to ask the same."""


@dataclass(frozen=True)
class Sent:
    """A request as it is sent."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def request(kind: str, rows: Array, identity: str) -> Sent:
    """Return a request for input `x`, of one of KINDS; in version 1 the id is only KServe's own header."""
    headers = {"Content-Type": "application/json", "Ce-Id": identity, "X-Request-Id": identity}
    if kind == "v1":
        return Sent("/v1/models/digits:predict", json.dumps({"instances": rows.tolist()}).encode(), headers)
    tensor: dict[str, Any] = {"name": "x", "shape": list(rows.shape), "datatype": "FP32"}
    path = "/v2/models/digits/infer"
    if kind == "json":
        body = {"id": identity, "inputs": [tensor | {"data": rows.ravel().tolist()}]}
        return Sent(path, json.dumps(body).encode(), headers)
    content = rows.tobytes()
    tensor["parameters"] = {"binary_data_size": len(content)}
    parameters = {"binary_data_output": True}
    head = json.dumps({"id": identity, "inputs": [tensor], "parameters": parameters}).encode()
    sizes = {HEAD: str(len(head)), "Content-Type": "application/octet-stream"}
    return Sent(path, head + content, headers | sizes)


def ask(port: int, sent: Sent) -> tuple[int, bytes]:
    """Send a request to this machine; return status and body of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", sent.path, sent.body, dict(sent.headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        came = time.time()
        body = parse_body(self.rfile.read(int(self.headers["Content-Length"])))
        inputs = tensors(body, "request", self.server.session.signature)
        outputs = self.server.session.run(inputs)
        identity = body.id or self.headers.get("Ce-Id") or str(uuid.uuid4())
        self.server.writer.offer(identity, self.server.digest, inputs, outputs, came)
        head, content = _answer(outputs, identity, binary=bool(body.binary), first="instances" in body.content)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(head) + len(content)))
        if content:
            self.send_header(HEAD, str(len(head)))
        self.end_headers()
        self.wfile.write(head + content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    session: Session
    writer: CaptureWriter
    digest: str


def _answer(outputs: Mapping[str, Array], identity: str, *, binary: bool, first: bool) -> tuple[bytes, bytes]:
    (scores,) = outputs.values()
    if first:
        return json.dumps({"predictions": scores.tolist()}).encode(), b""
    tensor: dict[str, Any] = {"name": next(iter(outputs)), "shape": list(scores.shape), "datatype": "FP32"}
    content = np.ascontiguousarray(scores).tobytes() if binary else b""
    tensor |= {"parameters": {"binary_data_size": len(content)}} if binary else {"data": scores.ravel().tolist()}
    return json.dumps({"id": identity, "model_name": "digits", "outputs": [tensor]}).encode(), content


@contextmanager
def answering(session: Session, folder: Path, digest: str) -> Iterator[int]:
    """Serve a model of one output and capture into a folder; yields the port, and writes all when it ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.session, server.writer, server.digest = session, CaptureWriter(folder, session.signature), digest
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        server.writer.close()
        thread.join()
