"""Delivery of notices: each by a task of its own, so that a receiver that hangs delays nobody, tried again for an hour.

What waits is kept in memory alone. A notice is lost when the operator ends before it was delivered; its Event stays in
the cluster. A receiver may get a notice twice, with the same id.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path

import aiohttp

from retune.notify.forms import CONTENT_TYPES, body
from retune.notify.notice import Notice
from retune.notify.sinks import Sink, Sinks, SinksError, read_sinks

log = logging.getLogger(__name__)

DELIVERED, REFUSED, GIVEN_UP, DROPPED = OUTCOMES = ("delivered", "refused", "given_up", "dropped")
"""How deliveries end: refused by the receiver, given up after all tries, dropped because too many wait."""
Count = Callable[[str], None]
MOST_WAITING = 1000
_SECONDS = 10.0
"""Longest that a receiver may take to answer."""
_AT_ONCE = 8
_TRIES = 16
_FIRST, _LONGEST = 1.0, 300.0
"""Seconds between two tries: doubled each time, up to the longest."""
_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class _LaterError(Exception):
    """A try failed, and another may not; the message says why."""

    def __init__(self, message: str, *, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds
        """How long the receiver asks to be left alone, or None."""


class Notifier:
    """Tells receivers what has happened, while everything else goes on.

    Args:
        path: The file that names the receivers. It is read anew for each notice, because Secrets change.
        count: Told how each delivery has ended, as one of OUTCOMES.
        first_wait: Seconds before the second try.
    """

    def __init__(self, path: Path, *, count: Count, first_wait: float = _FIRST) -> None:
        self._path = path
        self._count = count
        self._first_wait = first_wait
        self._sinks = read_sinks(path)
        self._tasks = set[asyncio.Task[None]]()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    def tell(self, notice: Notice) -> None:
        """Have every receiver that wants this notice told of it; returns at once."""
        for sink in self._current().sinks:
            if sink.wants(notice):
                self._begin(notice, sink.name)

    async def close(self) -> None:
        """Give up what is not delivered, and close connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _current(self) -> Sinks:
        try:
            self._sinks = read_sinks(self._path)
        except SinksError as error:
            log.warning("notifications: %s; the receivers from before are told", error)
        return self._sinks

    def _begin(self, notice: Notice, name: str) -> None:
        if len(self._tasks) >= MOST_WAITING:
            self._count(DROPPED)
            return
        task = asyncio.create_task(self._deliver(notice, name), name=f"notice {notice.id} to {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, notice: Notice, name: str) -> None:
        for number in range(_TRIES):
            sink = self._current().named(name)
            if sink is None:
                self._count(DROPPED)
                return
            try:
                await self._post(notice, sink)
            except _LaterError as error:
                log.info("notifications: %s was not reached (try %d of %d): %s", name, number + 1, _TRIES, error)
                await asyncio.sleep(self._wait(number, error.seconds))
            else:
                return
        log.warning("notifications: %s was given up after %d tries", name, _TRIES)
        self._count(GIVEN_UP)

    def _wait(self, number: int, wish: float | None) -> float:
        """Return the seconds before the next try; jitter keeps many notices from coming back together."""
        doubled = min(self._first_wait * 2.0**number, _LONGEST) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return max(doubled, min(wish or 0.0, _LONGEST))

    async def _post(self, notice: Notice, sink: Sink) -> None:
        """Post once; raises _LaterError where another try may help."""
        content = body(notice, form=sink.form, cluster=self._sinks.cluster)
        headers = sink.headers | {"Content-Type": CONTENT_TYPES[sink.form]}
        try:
            async with (
                self._turns,
                self._opened().post(sink.url, data=content, headers=headers, allow_redirects=False) as answer,
            ):
                self._conclude(answer, sink.name)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _LaterError(type(error).__name__) from error  # its text would tell the address

    def _conclude(self, answer: aiohttp.ClientResponse, name: str) -> None:
        """Count what a receiver's answer says; raises _LaterError where it asks for another try."""
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            self._count(DELIVERED)
        elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _AGAIN:
            raise _LaterError(f"it answers with {answer.status}", seconds=asked(answer.headers))
        else:
            log.warning("notifications: %s refuses a notice with %d", name, answer.status)
            self._count(REFUSED)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)
        return self._session


def asked(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After, which may be a date too (RFC 9110, 10.2.3); None without any."""
    value = headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return (parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
