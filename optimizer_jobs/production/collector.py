"""A small server that turns an inference logger's events into captured requests: `python -m ...collector --help`.

It is for model servers that cannot capture requests themselves, such as those of KServe, whose logger sends every
request and every response as a CloudEvent. It pairs requests and responses by id and writes them in the capture format.
Memory is bounded: a request or response whose other half does not arrive in time is dropped and counted.
"""

import argparse
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from numpy.typing import NDArray
from prometheus_client import Counter, generate_latest

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.production.destinations import destination
from optimizer_jobs.production.events import Event, parse, tensors
from optimizer_jobs.production.protocol import BODY_BYTES, UnfitEventError
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Signature
from optimizer_jobs.stores.opening import is_bucket
from optimizer_jobs.stores.published import open_bundle

EVENTS = Counter("retune_collector_events", "Events by what became of them.", ["outcome"])

PENDING_BYTES = 64 << 20
"""Largest total size of the requests and responses that wait for their other half."""

PENDING_SECONDS = 120.0
"""Longest time that a request or response waits for its other half."""

_OVERHEAD_BYTES = 1024
"""What a waiting half takes besides its values."""


@dataclass
class _Half:
    """A request without its response yet, or a response without its request."""

    event: Event
    values: Mapping[str, NDArray[Any]]
    arrived: float
    size: int


@dataclass
class Pairing:
    """Pairs requests and responses by id, whichever comes first, and hands them to a writer."""

    signature: Signature
    writer: CaptureWriter
    model: str
    """Digest of the model that is recorded when a response does not name one."""
    _waiting: OrderedDict[str, _Half] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def take(self, event: Event) -> None:
        """Pair an event with its other half, or keep it until that arrives; raises UnfitEventError."""
        if event.body.is_own:
            EVENTS.labels("golden").inc()
            return
        values = tensors(event, self.signature)
        now = time.monotonic()
        other = self._waiting.get(event.id)
        if other is not None and other.event.kind != event.kind:
            self._forget(event.id)
            self._pair(*sorted((_Half(event, values, now, 0), other), key=lambda half: half.event.kind))
        elif other is not None:
            EVENTS.labels("doubled").inc()
        else:
            size = sum(tensor.nbytes for tensor in values.values()) + _OVERHEAD_BYTES
            self._wait(_Half(event, values, now, size))

    def _pair(self, request: _Half, response: _Half) -> None:
        arrival = request.event.time if request.event.time is not None else time.time()
        model = response.event.model or self.model
        self.writer.offer(request.event.request_id, model, request.values, response.values, arrival)
        EVENTS.labels("paired").inc(2)

    def _wait(self, half: _Half) -> None:
        self._waiting[half.event.id] = half
        self._bytes += half.size
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if self._bytes <= PENDING_BYTES and half.arrived - oldest.arrived <= PENDING_SECONDS:
                return
            self._forget(oldest.event.id)
            EVENTS.labels(f"{oldest.event.kind} without its other half").inc()

    def _forget(self, identity: str) -> None:
        self._bytes -= self._waiting.pop(identity).size


def application(pairing: Pairing) -> web.Application:
    """Return the server: it takes events at /, and answers /healthz and /metrics."""

    async def take(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            pairing.take(parse(headers, await request.read()))
        except UnfitEventError as error:
            EVENTS.labels("unfit").inc()
            return web.Response(status=400, text=str(error))
        return web.Response()

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def close(_server: web.Application) -> None:
        pairing.writer.close()

    server = web.Application(client_max_size=BODY_BYTES)
    server.add_routes([web.post("/", take), web.get("/healthz", health), web.get("/metrics", metrics)])
    server.on_cleanup.append(close)
    return server


def described(uri: str) -> tuple[Signature, str]:
    """Return signature and digest of a bundle's folder, or of an ONNX file on a volume; raises JobError."""
    if is_bucket(uri) or resolve(uri).local.is_dir():
        bundle = open_bundle(uri, digest=_digest_in(uri))
        return bundle.manifest.signature, bundle.digest
    path = resolve(uri).local
    return check_onnx(path, uri=uri), file_digest(path)


def _digest_in(uri: str) -> str | None:
    """Return the digest that a bundle's folder is named by; None where it is named otherwise."""
    name = uri.rstrip("/").rpartition("/")[2]
    return f"sha256:{name}" if re.fullmatch(r"[0-9a-f]{64}", name) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal ends the process; requests that are captured by then are written before it ends."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    signature, digest = described(options.model)
    writer = CaptureWriter(destination(options.folder), signature)
    say(f"capturing {options.model} ({digest[:19]}) into {options.folder}, events at port {options.port}")
    server = application(Pairing(signature, writer, digest))
    web.run_app(server, port=options.port, print=None, access_log=None, handle_signals=os.name == "posix")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optimizer_jobs.production.collector", description=__doc__)
    parser.add_argument("--model", required=True, help="URI of the bundle or ONNX file that is served")
    parser.add_argument("--folder", required=True, help="URI of the folder for captured requests, on a volume")
    parser.add_argument("--port", type=int, default=8080)
    return parser


if __name__ == "__main__":
    main()
