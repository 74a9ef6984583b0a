"""Ask again where a registry fails for a reason that may pass: it is busy, restarts, or a connection breaks off."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import ClientError

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.faults import causes, certificate_is_bad
from optimizer_jobs.progress import say
from optimizer_jobs.registries.oci.access import RefusalError

ATTEMPTS = 5
"""How often something is asked at most."""
LONGEST_WAIT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 1.0
"""What is waited after the first failure where the registry does not say; twice as long after each other."""

_PASSING = frozenset({416, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID"})
"""An upload that the registry has lost or got wrong: it is begun anew.

So it is with status 416, where the registry has a part of it already and is sent it from its beginning, as the HTTP
library does once by itself where a kept connection breaks.
"""

Found = TypeVar("Found")


async def patiently(ask: Callable[[], Awaitable[Found]]) -> Found:
    """Return what `ask` returns, asked again after failures that may pass; raises what it raises at last."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await ask()
        except (OSError, ClientError) as error:
            if not may_pass(error):
                raise
            wait = _wait_seconds(error, attempt)
            say(f"the registry fails ({_words(error)}): try {attempt + 1} of {ATTEMPTS} in {wait:.0f} s")
        await asyncio.sleep(wait)
    return await ask()


def may_pass(error: BaseException) -> bool:
    """Return whether the same request may do another time."""
    if isinstance(error, RefusalError):
        return error.status in _PASSING or error.code in _PASSING_CODES
    if any(isinstance(cause, RefusedError) or certificate_is_bad(cause) for cause in causes(error)):
        return False
    return isinstance(error, ClientError | TimeoutError | ConnectionError)


def _wait_seconds(error: BaseException, attempt: int) -> float:
    wanted = error.wait_seconds if isinstance(error, RefusalError) else None
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1) if wanted is None else wanted)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, RefusalError) else type(error).__name__
