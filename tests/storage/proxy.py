"""A proxy before a real server that breaks what a test wants broken: it answers itself, or cuts connections.

It ends TLS with the server's own certificate, so that it sees requests, and passes on what it does not break.
"""

import asyncio
import ssl
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 16
_METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")
_CONTINUE = b"HTTP/1.1 100"


@dataclass(frozen=True)
class Answer:
    """The proxy answers a request itself, and the server never sees it."""

    status: int
    code: str
    message: str = "so says the test"


@dataclass(frozen=True)
class Cut:
    """The connection breaks after so many bytes of a request, or of its answer."""

    sent: int | None = None
    answered: int | None = None


Fault = Answer | Cut
Plan = Callable[[bytes], Fault | bytes | None]
"""Says what happens to a request whose beginning it is given: a fault, other bytes that go on instead, or None."""


class _Broken(Exception):  # noqa: N818 - it is what was asked for, and no error
    """The connection ends here."""


class Proxy:
    """Passes connections on until `close`; `plan` may be changed at any moment."""

    def __init__(self, port: int, *, pki: Path | None = None) -> None:
        """Start before the server on `port` of this machine.

        Args:
            port: Port of the server.
            pki: Folder with the server's certificate and that of its authority; None where it speaks no TLS.
        """
        self.requests: list[bytes] = []
        """First lines of what was asked, in order."""
        self.plan: Plan = lambda head: None
        self._upstream, self._pki = port, pki
        self._open: set[StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Take no more connections, and end those that are open."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(30)
            self._loop.close()

    async def _listen(self) -> asyncio.Server:
        context = None
        if self._pki is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._pki / "server.crt", self._pki / "server.key")
        return await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=context)

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for end in self._open:
            end.transport.abort()  # a client that says no goodbye is not waited for
        await asyncio.sleep(0)

    async def _pass_on(self, client_in: StreamReader, client_out: StreamWriter) -> None:
        self._open.add(client_out)
        trust = None if self._pki is None else ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        name = None if trust is None else "localhost"
        with suppress(OSError, _Broken, asyncio.CancelledError):
            server_in, server_out = await asyncio.open_connection(
                "127.0.0.1", self._upstream, ssl=trust, server_hostname=name
            )
            self._open.add(server_out)
            limits: dict[str, int] = {}
            ways = [
                asyncio.ensure_future(self._forth(client_in, client_out, server_out, limits)),
                asyncio.ensure_future(_back(server_in, client_out, limits)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                server_out.transport.abort()
                client_out.close()

    async def _forth(
        self, client_in: StreamReader, client_out: StreamWriter, server_out: StreamWriter, limits: dict[str, int]
    ) -> None:
        """Pass requests on; a request begins with its method, which bodies of the tests do not."""
        while chunk := await client_in.read(_CHUNK):
            if chunk.startswith(_METHODS):
                chunk = await self._begun(chunk, client_out, limits)
            _spend(limits, "sent", len(chunk))
            server_out.write(chunk)
            await server_out.drain()

    async def _begun(self, head: bytes, client_out: StreamWriter, limits: dict[str, int]) -> bytes:
        self.requests.append(head.partition(b"\r\n")[0])
        found = self.plan(head)
        if isinstance(found, Answer):
            client_out.write(_words(found))
            await client_out.drain()
            raise _Broken
        if isinstance(found, Cut):
            both = {"sent": found.sent, "answered": found.answered}
            limits |= {name: limit for name, limit in both.items() if limit is not None}
        return found if isinstance(found, bytes) else head


async def _back(server_in: StreamReader, client_out: StreamWriter, limits: dict[str, int]) -> None:
    while chunk := await server_in.read(_CHUNK):
        if not chunk.startswith(_CONTINUE):
            _spend(limits, "answered", len(chunk))
        client_out.write(chunk)
        await client_out.drain()


def _spend(limits: dict[str, int], name: str, size: int) -> None:
    if name in limits:
        limits[name] -= size
        if limits[name] < 0:
            raise _Broken


def _words(answer: Answer) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>"
    head = f"HTTP/1.1 {answer.status} {answer.code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


@contextmanager
def before(port: int, *, pki: Path | None = None) -> Iterator[Proxy]:
    """Start a proxy before the server on a port, and end it."""
    proxy = Proxy(port, pki=pki)
    try:
        yield proxy
    finally:
        proxy.close()
