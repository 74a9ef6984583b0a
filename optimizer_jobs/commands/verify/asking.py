"""Ask a model server over the Open Inference Protocol.

The answers of a server are hostile input: their size and time are limited, and redirects and proxies are never
followed.
"""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.golden import GoldenRequest
from retune.contract.exits import Exit
from retune.contract.results import Reason

ANSWER_LIMIT_BYTES = 16 << 20
CALL_SECONDS = 10.0
"""Longest time of one answer."""
PATIENCE_SECONDS = 30.0
"""Time after which a pod that refuses connections counts as unreachable."""

_PAUSE_SECONDS = 0.5
_SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class Unreachable(Exception):  # noqa: N818 - a state of the server, not a fault of ours
    """The server did not answer, but may answer a moment later."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for one answer, and for a pod that does not answer yet."""

    call_seconds: float = CALL_SECONDS
    total_seconds: float = PATIENCE_SECONDS


PATIENCE = Patience()
"""The usual one."""


def ask_patiently(endpoint: str, *, model: str, request: GoldenRequest, patience: Patience) -> dict[str, Any]:
    """Ask until the server answers or the patience ends.

    Raises:
        JobError: ServerUnreachable or ProtocolMismatch, which name the server.
    """
    end = time.monotonic() + patience.total_seconds
    while True:
        try:
            return ask(endpoint, model=model, body=request.body(), seconds=patience.call_seconds)
        except Unreachable as error:
            if time.monotonic() + _PAUSE_SECONDS > end:
                raise JobError(
                    Reason.SERVER_UNREACHABLE,
                    endpoint,
                    f"{error} for {patience.total_seconds:g} s.",
                    "See the pod's log, and check inference.port, inference.modelName and NetworkPolicies.",
                    RETRY_EXIT,
                ) from error
        time.sleep(_PAUSE_SECONDS)


def ask(endpoint: str, *, model: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the server's JSON answer; raises Unreachable, or JobError when the answer does not follow the protocol."""
    status, payload = _post(endpoint, f"/v2/models/{quote(model, safe='')}/infer", body, seconds=seconds)
    if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.NOT_FOUND:
        raise Unreachable(f"the server answered {status}")
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError):
        answer = None
    if status != http.client.OK or not isinstance(answer, dict):
        shown = payload[:200].decode(errors="replace")
        raise JobError(
            Reason.PROTOCOL_MISMATCH,
            f"{endpoint} model {model}",
            f"the server answered {status} with {shown!r}.",
            "Check inference.modelName, and that the server speaks the Open Inference Protocol v2 over HTTP.",
            Exit.INFEASIBLE,
        )
    return answer


def _post(endpoint: str, path: str, body: dict[str, Any], *, seconds: float) -> tuple[int, bytes]:
    connection, prefix = _connection(endpoint, seconds=seconds)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("POST", prefix + path, body=json.dumps(body), headers=headers)
        with connection.getresponse() as response:
            return response.status, _bounded(response, seconds=seconds)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the server did not answer ({type(error).__name__}: {error})") from error
    finally:
        connection.close()


def _connection(endpoint: str, *, seconds: float) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to the endpoint, which is not opened yet, and the prefix of all paths."""
    try:
        url = urlsplit(endpoint)
        kind, host, port = _SCHEMES[url.scheme], url.hostname or "", url.port
    except (KeyError, ValueError) as error:
        raise _no_address(endpoint) from error
    if not host:
        raise _no_address(endpoint)
    return kind(host, port, timeout=seconds), url.path.rstrip("/")


def _no_address(endpoint: str) -> JobError:
    return JobError(Reason.REQUEST_INVALID, endpoint, "this is not an http(s) address.", "Give http://HOST:PORT.")


def _bounded(response: http.client.HTTPResponse, *, seconds: float) -> bytes:
    """Return the whole answer; raises Unreachable when it is too long or too slow."""
    end, payload = time.monotonic() + seconds, bytearray()
    while chunk := response.read1(1 << 16):
        payload += chunk
        if len(payload) > ANSWER_LIMIT_BYTES or time.monotonic() > end:
            raise Unreachable(f"the server's answer is longer than {ANSWER_LIMIT_BYTES} bytes or {seconds:g} s")
    return bytes(payload)
