"""Requests to a server on this machine, in HTTP of the standard library.

Answers are hostile input: their size and time are limited, and redirects and proxies are never followed.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from retune.contract.exits import Exit
from retune.contract.results import Reason

ANSWER_LIMIT_BYTES = 64 << 20
"""Longest answer that is read."""
ASKING_SECONDS = 10.0
"""Longest time of an answer that takes the server no work."""
LOADING_SECONDS = 900.0
"""Longest time in which a server loads a model, which for a GPU may be compiled then."""
PAUSE_SECONDS = 0.1
SHOWN = 400
"""Characters of a server's own words that are passed on."""


class SilentServerError(Exception):
    """Nobody answers, or not to the end; the message says what was seen, as words without a full stop."""


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    content: bytes

    @property
    def is_good(self) -> bool:
        """Whether the server did what it was asked."""
        return http.client.OK <= self.status < http.client.MULTIPLE_CHOICES

    @property
    def document(self) -> Any:
        """The content as JSON; None where it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    @property
    def words(self) -> str:
        """What the server says of its refusal, in its own words on one line, or at least its status."""
        document = self.document
        said = document.get("error") if isinstance(document, dict) else None
        if isinstance(said, dict):
            said = said.get("message")
        return printable(str(said or ""), limit=SHOWN) or f"it answered {self.status}"


@dataclass(frozen=True)
class Web:
    """The address of a server, and what it is called in sentences."""

    server: str
    """The server in sentences, such as `Triton`."""
    address: str
    """`http://HOST:PORT`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request."""

    def get(self, path: str, *, seconds: float = ASKING_SECONDS) -> Answer:
        """Return the answer to a GET; raises JobError ServerUnreachable where there is none."""
        return self._asked("GET", path, None, seconds)

    def post(self, path: str, document: Mapping[str, Any] | None = None, *, seconds: float = ASKING_SECONDS) -> Answer:
        """Return the answer to a POST of a JSON document or of nothing; raises JobError as `get` does."""
        return self._asked("POST", path, None if document is None else json.dumps(document).encode(), seconds)

    def put(self, path: str, document: Mapping[str, Any], *, seconds: float = ASKING_SECONDS) -> Answer:
        """Return the answer to a PUT of a JSON document; raises JobError as `get` does."""
        return self._asked("PUT", path, json.dumps(document).encode(), seconds)

    def is_ready(self) -> bool:
        """Return whether the server says that it is ready; where nobody answers, it is not."""
        try:
            return self.get("/v2/health/ready").is_good
        except JobError:
            return False

    @property
    def about(self) -> str | None:
        """Name and version that the server gives itself, such as `triton 2.51.0`; None where it gives none."""
        document = self.get("/v2").document
        parts = (document.get("name"), document.get("version")) if isinstance(document, dict) else ()
        return printable(" ".join(str(part) for part in parts if part), limit=80) or None

    def unreachable(self, fault: str) -> JobError:
        """Return the error that the server does not answer; `fault` is what was seen, without a full stop."""
        return JobError(
            Reason.SERVER_UNREACHABLE,
            f"{self.server} at {self.address}",
            f"{fault}.",
            "See the log of the server's container: it says why it does not start, or why it ended.",
            RETRY_EXIT,
        )

    def refused(self, what: str, words: str) -> JobError:
        """Return the error that the server refuses something, in the server's words."""
        said = words if words.endswith((".", "…", "!", "?")) else f"{words}."
        return JobError(
            Reason.SERVER_REFUSED,
            f"{self.server} at {self.address}",
            f"it does not serve {what}: {said}",
            "See the log of the server's container. Where its engine is too old for the model, name a newer server, or "
            "set spec.serving.engineVersion to the version of its engine, so that only what it runs is searched.",
            Exit.BAD_INPUT,
        )

    def _asked(self, method: str, path: str, body: bytes | None, seconds: float) -> Answer:
        connection = connected(self.address, seconds=seconds)
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        headers |= self.headers
        try:
            connection.request(method, path, body=body or b"", headers=headers)
            with connection.getresponse() as response:
                return Answer(response.status, bounded(response, seconds=seconds))
        except (SilentServerError, OSError, http.client.HTTPException) as error:
            raise self.unreachable(silence(error)) from error
        finally:
            connection.close()


def connected(address: str, *, seconds: float) -> http.client.HTTPConnection:
    """Return a connection to `http://HOST:PORT`, not opened yet, of which each step may take so many seconds."""
    url = urlsplit(address)
    return http.client.HTTPConnection(url.hostname or "", url.port, timeout=seconds)


def bounded(response: http.client.HTTPResponse, *, seconds: float) -> bytes:
    """Return a whole answer; raises SilentServerError where it is too long, too slow or cut off."""
    end, content = time.monotonic() + seconds, bytearray()
    while chunk := response.read1(1 << 20):
        content += chunk
        if len(content) > ANSWER_LIMIT_BYTES or time.monotonic() > end:
            raise SilentServerError(f"its answer is longer than {ANSWER_LIMIT_BYTES} bytes or {seconds:g} s")
    if response.length:
        raise SilentServerError(f"its answer ends {response.length} bytes too early")
    return bytes(content)


def silence(error: Exception) -> str:
    """Return what a failed request means, as words without a full stop."""
    if isinstance(error, SilentServerError):
        return str(error)
    return f"it does not answer ({type(error).__name__}: {printable(str(error), limit=80)})"


def model_path(name: str) -> str:
    """Return the path of a model in the Open Inference Protocol v2."""
    return f"/v2/models/{quote(name, safe='')}"


def wait_until(done: Callable[[], bool], *, seconds: float) -> bool:
    """Return whether something came true within so many seconds; it is asked again and again."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_SECONDS)
    return True
