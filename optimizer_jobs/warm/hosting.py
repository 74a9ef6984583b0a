"""The check host: it takes requests one a connection, and has a child of its own do each.

It opens no file of a request, and parses none: that is the child's work, whose end, whatever it is, ends one check. It
has one thread, so that a fork copies no lock that another thread holds.
"""

import asyncio
import hmac
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from optimizer_jobs.errors import printable
from optimizer_jobs.progress import say
from optimizer_jobs.warm import messages, wire
from optimizer_jobs.warm.admission import Admission
from optimizer_jobs.warm.child import LOG, Asked, Child, Limits, start

_READ_SECONDS = 10.0
_LOOK_SECONDS = 0.002
_ENDING_SECONDS = 20.0
_MORE = 16
"""Connections beside those that wait or run, so that a probe always gets an answer."""


@dataclass(frozen=True)
class Bounds:
    """How much a host does at once."""

    children: int = 1
    """Checks that run at the same time."""
    waiting: int = 200
    """Checks that wait for their turn."""
    wait_seconds: float = messages.WAIT_SECONDS
    """How long each may wait."""


@dataclass
class Host:
    """Answers checks."""

    admission: Admission
    limits: Limits = field(default_factory=Limits)
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        self._release = messages.release()
        self._turn = asyncio.Semaphore(self.bounds.children)
        self._open = self._present = 0
        self._closing, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()

    async def serve(self, port: int, *, address: str | None = None) -> None:
        """Answer until SIGTERM; then finish the checks that run, and take no other."""
        server = await asyncio.start_server(self._connected, address, port, limit=wire.HEAD_BYTES, backlog=256)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._closing.set)
        say(f"ready on port {server.sockets[0].getsockname()[1]} with release {self._release}")
        await self._closing.wait()
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING_SECONDS):
                await self._idle.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, whatever comes."""
        self._open += 1
        self._idle.clear()
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                writer.write(await self._answer(reader))
                async with asyncio.timeout(_READ_SECONDS):
                    await writer.drain()
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if self._open > self.bounds.children + self.bounds.waiting + _MORE:
            return wire.refusal(HTTPStatus.SERVICE_UNAVAILABLE, "it has too many connections")
        try:
            async with asyncio.timeout(_READ_SECONDS):
                request = await wire.read(reader)
        except wire.BadRequestError as error:
            return wire.refusal(error.status, str(error))
        if (request.method, request.path) == ("GET", messages.HEALTH_PATH):
            return wire.answer(HTTPStatus.OK, {"release": self._release})
        if (request.method, request.path) != ("POST", messages.CHECK_PATH):
            return wire.refusal(HTTPStatus.NOT_FOUND, "there is nothing else here")
        theirs = request.headers.get(messages.RELEASE_HEADER.lower(), "")
        if not hmac.compare_digest(theirs.encode(), self._release.encode()):
            words = f"it has release {self._release}, and the Job {printable(theirs, limit=100)}"
            return wire.refusal(HTTPStatus.CONFLICT, words)
        return await self._while_asked(request, reader)

    async def _while_asked(self, request: wire.Request, reader: asyncio.StreamReader) -> bytes:
        """Return the answer to a check; where nobody waits for it any more, stop at once."""
        asked = Asked(request.body, request.headers.get(messages.SETTINGS_HEADER.lower(), ""))
        work = asyncio.ensure_future(self._checked(asked))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise ConnectionResetError
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait({work, gone})

    async def _checked(self, asked: Asked) -> bytes:
        """Wait for a turn, and have a child do the check."""
        if self._present >= self.bounds.children + self.bounds.waiting:
            return wire.refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{self._present} checks wait there already")
        self._present += 1
        try:
            async with asyncio.timeout(self.bounds.wait_seconds):
                await self._turn.acquire()
        except TimeoutError:
            words = f"it was busy for {self.bounds.wait_seconds:g} s"
            return wire.refusal(HTTPStatus.SERVICE_UNAVAILABLE, words)
        finally:
            self._present -= 1
        return await self._in_turn(asked)

    async def _in_turn(self, asked: Asked) -> bytes:
        """Run a child, and give the turn back once it is gone for good."""
        folder = Path(tempfile.mkdtemp(prefix="check-"))
        try:
            child = start(asked, self.admission, self.limits, folder=folder)
        except OSError as error:
            self._turn.release()
            shutil.rmtree(folder, ignore_errors=True)
            return wire.refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"it cannot start a process ({error.strerror})")
        began = time.monotonic()
        payload = b""
        try:
            async with asyncio.timeout(self.limits.wall_seconds):
                payload = await _read_to_end(child.answer)
        except TimeoutError:
            return wire.refusal(HTTPStatus.GATEWAY_TIMEOUT, f"the check took over {self.limits.wall_seconds:g} s there")
        finally:
            os.close(child.answer)
            gone = asyncio.ensure_future(self._ended(child, folder, began))
            _KEPT.add(gone)
            gone.add_done_callback(_KEPT.discard)
        ended = await asyncio.shield(gone)
        return _answer_of(payload, ended)

    async def _ended(self, child: Child, folder: Path, began: float) -> "Ended":
        """Kill what is left of a child, wait until it is gone, and remove its files."""
        status, usage = await _reaped(child.pid)
        ended = Ended(os.waitstatus_to_exitcode(status), _log(folder))
        shutil.rmtree(folder, ignore_errors=True)
        self._turn.release()
        seconds, used = time.monotonic() - began, usage.ru_utime + usage.ru_stime
        say(f"check ended with {ended.code}: {used:.2f} CPU s, {usage.ru_maxrss >> 10} MB, after {seconds:.2f} s")
        return ended


_KEPT: set["asyncio.Future[Ended]"] = set()
"""Children that are being waited for: the loop itself keeps no task alive."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Its exit code; below 0, the signal that killed it."""
    log: str


async def _read_to_end(descriptor: int) -> bytes:
    """Return what comes on a pipe until its end, or until it is more than an answer may have."""
    loop, payload = asyncio.get_running_loop(), b""
    while len(payload) <= messages.ANSWER_BYTES:
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
        part = os.read(descriptor, 65536)
        if not part:
            break
        payload += part
    return payload


async def _reaped(pid: int) -> tuple[int, resource.struct_rusage]:
    """Return status and usage of a child that has said all it has to say; one that stays is killed with its own.

    A process that waits for a volume that hangs may outlive even that: it then keeps its turn, and nothing else.
    """
    pause = _LOOK_SECONDS
    while (gone := _gone(pid)) is None:
        await asyncio.sleep(pause)
        _kill(pid)
        pause = min(1.0, 2 * pause)
    _kill(pid)
    return gone


def _gone(pid: int) -> tuple[int, resource.struct_rusage] | None:
    """Return status and usage of a child, without waiting; None while it lives."""
    found, status, usage = os.wait4(pid, os.WNOHANG)
    return (status, usage) if found else None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _log(folder: Path) -> str:
    """Return the end of what a child has said."""
    with suppress(OSError), (folder / LOG).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - messages.LOG_BYTES))
        return file.read(messages.LOG_BYTES).decode(errors="replace")
    return ""


def _answer_of(payload: bytes, ended: Ended) -> bytes:
    """Return the answer to a Job, from what its child said: a child is hostile once it has read a file."""
    try:
        said: Any = json.loads(payload) if len(payload) <= messages.ANSWER_BYTES else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
        return wire.refusal(HTTPStatus.BAD_GATEWAY, f"the check ended there by {how}, without a result")
    if "refused" in said:
        return wire.refusal(HTTPStatus.UNPROCESSABLE_ENTITY, printable(str(said["refused"]), limit=400))
    return wire.answer(HTTPStatus.OK, {"result": str(said.get("result", "")), "log": ended.log})
