"""A reverse proxy beside a model server that captures what it lets through: `python -m ...proxy --help`.

It is for servers of the Open Inference Protocol that log nothing. Every request and answer passes as it is, whatever it
is, and as it comes; what is captured is read afterwards, in a thread, from a copy that is bounded. A capture that fails
is counted and costs no request.
"""

import argparse
import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest
from yarl import URL

from optimizer_jobs.production.calls import CALLS, Call, Capture, Named
from optimizer_jobs.production.collector import described
from optimizer_jobs.production.destinations import destination
from optimizer_jobs.production.protocol import BODY_BYTES, ID_LIMIT
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.progress import say

SESSION = web.AppKey("session", aiohttp.ClientSession)
"""The connections to the server."""

_INFERENCE = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer|/v1/models/([^/:]+):predict")
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers that concern one connection."""
_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 2.0
"""How long an unused connection is kept: shorter than servers keep theirs, so that none ends under a request."""


class _BrokenOffError(Exception):
    """The server ended in the middle of an answer, so the client's connection has to end, too."""


@dataclass
class _Copy:
    """A copy of a body that passes; nothing is left of it once it is too large to be captured."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    async def of(self, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """Yield what comes, and keep it."""
        async for part in content.iter_any():
            self.size += len(part)
            if self.size > BODY_BYTES:
                self.parts.clear()
            else:
                self.parts.append(part)
            yield part

    @property
    def whole(self) -> bytes | None:
        """The body, or None where it was too large."""
        return b"".join(self.parts) if self.size <= BODY_BYTES else None


@dataclass
class Proxy:
    """Lets requests through to one server."""

    upstream: str
    """Base URL of the server, without a slash at its end."""
    capture: Capture
    only: str | None = None
    """The model whose requests are captured; None captures those of every model that fit the signature."""

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Ask the server the same, and answer with what it answers."""
        came, asked, answered = time.time(), _Copy(), _Copy()
        try:
            response = await self._passed(request, asked, answered)
        except aiohttp.ClientError as error:
            return web.json_response({"error": f"the model server does not answer: {type(error).__name__}"}, status=502)
        model = self._model(request) if response.status == 200 else None
        if model is not None:
            self._offer(model, came, asked.whole, answered.whole, request.headers.get("X-Request-Id", ""))
        return response

    async def _passed(self, request: web.Request, asked: _Copy, answered: _Copy) -> web.StreamResponse:
        """Return the answer, which has been sent; raises ClientError where none has begun."""
        asking = request.app[SESSION].request(
            request.method,
            URL(f"{self.upstream}{request.raw_path}", encoded=True),
            headers=_passed_on(request.headers),
            data=asked.of(request.content) if request.can_read_body else None,
            allow_redirects=False,
        )
        async with asking as answer:
            headers = _passed_on(answer.headers)
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
            await response.prepare(request)
            try:
                async for part in answered.of(answer.content):
                    await response.write(part)
            except aiohttp.ClientError as error:
                raise _BrokenOffError("the model server ended in the middle of an answer") from error
        await response.write_eof()
        return response

    def _model(self, request: web.Request) -> str | None:
        """Return the name of the model that a request asks, or None where it is not captured."""
        found = _INFERENCE.fullmatch(request.path)
        name = (found[1] or found[2]) if found and request.method == "POST" else None
        return name if self.only in {None, name} else None

    def _offer(self, model: str, came: float, asked: bytes | None, answered: bytes | None, header_id: str) -> None:
        if asked is None or answered is None:
            CALLS.labels("too large").inc()
        else:
            self.capture.offer(Call(model, came, asked, answered, header_id[:ID_LIMIT] or None))


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the headers that concern both ends."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP | named]


def application(proxy: Proxy) -> web.Application:
    """Return the server that lets everything through; when it ends, what was captured by then is written."""

    async def connected(server: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
        ) as session:
            server[SESSION] = session
            yield
        await asyncio.to_thread(proxy.capture.close)

    server = web.Application()
    server.router.add_route("*", "/{path:.*}", proxy.pass_on)
    server.cleanup_ctx.append(connected)
    return server


def with_metrics(server: web.Application, port: int) -> web.Application:
    """Return the server with /metrics and /healthz at a port of their own, because its paths are the model server's."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def running(_server: web.Application) -> AsyncIterator[None]:
        own = web.Application()
        own.add_routes([web.get("/metrics", metrics), web.get("/healthz", health)])
        runner = web.AppRunner(own, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        yield
        await runner.cleanup()

    server.cleanup_ctx.append(running)
    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal ends the process; requests that are captured by then are written before it ends."""
    options = _parser(os.environ).parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    signature, digest = described(options.model)
    writer, upstream = CaptureWriter(destination(options.folder), signature), options.upstream.rstrip("/")
    say(f"requests to {upstream} pass at port {options.port}; {options.model} is captured in {options.folder}")
    proxy = Proxy(upstream, Capture(signature, writer, digest, Named(upstream)), options.name)
    server = with_metrics(application(proxy), options.metrics_port)
    signals = os.name == "posix"
    web.run_app(server, port=options.port, print=None, access_log=None, handle_signals=signals, auto_decompress=False)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optimizer_jobs.production.proxy", description=__doc__)
    add, model, folder = parser.add_argument, environment.get("MODEL_URI"), environment.get("CAPTURE_URI")
    add("--upstream", required=True, help="base URL of the model server, such as http://127.0.0.1:8000")
    add("--model", default=model, required=not model, help="URI of the bundle or ONNX file that is served [MODEL_URI]")
    add("--folder", default=folder, required=not folder, help="URI of the folder for captures [CAPTURE_URI]")
    add("--name", help="the model on the server that is captured; left out, every one that fits")
    add("--port", type=int, default=8080, help="port that requests come to")
    add("--metrics-port", type=int, default=9090, help="port of /metrics and /healthz")
    return parser


if __name__ == "__main__":
    main()
