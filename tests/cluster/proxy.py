"""A proxy between an operator and the real API server, which can hold watches back, end them, and refuse requests.

It speaks plain HTTP to the operator and is the administrator towards the API server. It invents no object: but for the
answers that a test asks it to refuse with, everything it passes on was said by the server.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from kubernetes import client as official

from retune.cluster.client import Connection, Transport, official_transport
from tools.localcluster.api import decoded, load_client_certificate

Refusal = tuple[int, dict[str, str]]
"""Status and headers of an answer that the server did not give."""
EXPIRED = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
"""What a server says in the middle of a watch that goes on from a point it has forgotten."""
_DROPPED = {"content-length", "transfer-encoding", "content-encoding", "connection", "host"}
_LONGEST_EVENT = 2**20


class Proxy:
    """Passes requests on, in the event loop of the test, unless it is told otherwise."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        self._cluster: dict[str, str] = document["clusters"][0]["cluster"]
        self._user: dict[str, str] = document["users"][0]["user"]
        self._flow = asyncio.Event()
        self._flow.set()
        self._end = asyncio.Event()
        self.refuse: Callable[[str, str], Refusal | None] = lambda method, path: None
        """What a request is refused with, by its method and its path with its query; None: it is passed on."""
        self.lag = 0.0
        """Seconds that every event of a watch is late."""
        self.watches: list[str] = []
        """Path and query of every watch that was begun."""
        self.lists: list[str] = []
        """Path and query of every list and every read."""
        self.url = ""

    def hold(self) -> None:
        """Keep the events of all watches back."""
        self._flow.clear()

    def release(self) -> None:
        """Let events through again, those first that were kept back."""
        self._flow.set()

    def expire(self) -> None:
        """End every watch as a server does that has forgotten where it began; what was kept back is lost."""
        self._end.set()
        self._end = asyncio.Event()

    def transport(self) -> Transport:
        """The official client, by way of the proxy."""
        return official_transport(official.Configuration(host=self.url, retries=False), threads=4)

    def login(self) -> Connection:
        """Where watches go."""
        return Connection(server=self.url, ca_file=None, verify=False, token=None, cert_file=None, key_file=None)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Proxy"]:
        """Listen on a free port of this machine."""
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(ssl=self._tls(), limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=_LONGEST_EVENT) as self._session:
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
            finally:
                self.release()
                self.expire()
                await runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=decoded(self._cluster["certificate-authority-data"]))
        load_client_certificate(context, self._user)
        return context

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        refusal = self.refuse(request.method, request.path_qs)
        if refusal is not None:
            status, headers = refusal
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "refused"}
            return web.json_response(body, status=status, headers=headers)
        watching = request.query.get("watch") == "true"
        if request.method == "GET":
            (self.watches if watching else self.lists).append(request.path_qs)
        return await (self._watch(request) if watching else self._pass_on(request))

    def _send(self, request: web.Request, body: bytes | None) -> Any:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        url = self._cluster["server"] + request.raw_path
        timeout = aiohttp.ClientTimeout(total=None)
        return self._session.request(request.method, url, data=body, headers=headers, timeout=timeout)

    async def _pass_on(self, request: web.Request) -> web.Response:
        async with self._send(request, await request.read() or None) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        end = self._end
        async with self._send(request, None) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            events = asyncio.create_task(self._events(answer.content, response))
            ending = asyncio.create_task(end.wait())
            await asyncio.wait({events, ending}, return_when=asyncio.FIRST_COMPLETED)
            for task in (events, ending):
                task.cancel()
            await asyncio.gather(events, ending, return_exceptions=True)
            if end.is_set():
                await response.write(json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n")
            return response

    async def _events(self, content: aiohttp.StreamReader, response: web.StreamResponse) -> None:
        async for line in content:
            if self.lag:
                await asyncio.sleep(self.lag)
            await self._flow.wait()
            await response.write(line)
