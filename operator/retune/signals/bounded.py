"""HTTP reads with bounds on time and size and without redirects: the only way that live numbers come into the operator.

An answer that is late, too large, a redirect or no text is an error with a sentence. It is never waited for or kept.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import ParamSpec, TypeVar

import aiohttp

_CHUNK = 16 * 1024
_CONNECTIONS = 1024
"""Most connections at once. Waiting for one counts as time of the answer, so slow pods must not use all of them."""


_ASIDE = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
"""One thread: it takes turns with the event loop, and must not crowd it out."""

P = ParamSpec("P")
T = TypeVar("T")


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` returns, done beside the event loop: what others wrote may take long to read."""
    return await asyncio.get_running_loop().run_in_executor(_ASIDE, partial(work, *args, **kwargs))


class UnreadableError(Exception):
    """Nothing usable came back; the message says from where and why."""


class Web:
    """An HTTP session that is opened when it is first needed.

    Args:
        seconds: Longest that one answer may take.
        limit: Most bytes of one answer.
        at_once: Most answers that are read at once by those who take turns.
    """

    def __init__(self, *, seconds: float, limit: int, at_once: int = _CONNECTIONS) -> None:
        self.turns = asyncio.Semaphore(at_once)
        """Turns of those who read large answers, whoever these belong to."""
        self._seconds = seconds
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def text(
        self,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        also: frozenset[int] = frozenset(),
    ) -> str:
        """Return the text at `url`.

        Args:
            url: Where to ask.
            form: Fields to send by POST; without them the request is a GET.
            headers: Further headers.
            also: Status codes besides 200 whose answer is wanted as well.

        Raises:
            UnreadableError: There is no such answer within the bounds.
        """
        try:
            return await self._ask("POST" if form else "GET", url, form=form, headers=headers, also=also)
        except TimeoutError as error:
            raise UnreadableError(f"{url} did not answer within {self._seconds:g} s") from error
        except UnicodeDecodeError as error:
            raise UnreadableError(f"{url} answers with something that is no text") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnreadableError(f"{url} cannot be read: {_line(error)}") from error

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        also: frozenset[int],
    ) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,  # a small answer must not become a large one
            )
        async with self._session.request(method, url, data=form, headers=headers, allow_redirects=False) as answer:
            if answer.status != HTTPStatus.OK and answer.status not in also:
                raise UnreadableError(f"{url} answers with {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > self._limit:
                    raise UnreadableError(f"{url} answers with more than {self._limit} bytes")
        return body.decode()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
