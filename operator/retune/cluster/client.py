"""The one door to the Kubernetes API: the official client behind a bounded pool of threads.

Every call has a timeout, every answer is plain JSON, and every error is one of a few types that say what to do next.
Nothing here retries: whether to try again is the queue's decision, so that a thread never sleeps.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import urllib3
from kubernetes import client as official
from kubernetes import config as official_config

from retune.api.base import Json
from retune.cluster.errors import NoCluster, Transient, error_of
from retune.cluster.kinds import Kind
from retune.cluster.server_clock import ServerClock

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
_LEAST_WRITE_SECONDS = 1.0
"""Time without which a write is not begun."""
PAGE = 100
"""Objects asked for at a time when a collection is listed: what is in memory at once, before it is trimmed."""


@dataclass(frozen=True)
class Request:
    """One call to the API server."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    content_type: str = "application/json"
    timeout: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS)
    """Seconds to connect, and to wait for an answer."""
    operations: Sequence[Json] | None = None
    """Those of a JSON patch, in place of a body."""


@dataclass(frozen=True)
class Response:
    """Its answer, not yet parsed."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Transport = Callable[[Request], Response]
"""Sends one request and waits for the answer; raises OSError or urllib3's HTTPError when there is none."""


class Counter(Protocol):
    """What counts requests."""

    def __call__(self, verb: str, code: str) -> None:
        """Count one request by its verb and the answer's code, which is `error` where no answer came."""


@dataclass(frozen=True)
class Connection:
    """How to reach the API server, for a reader that brings its own HTTP client."""

    server: str
    ca_file: str | None
    verify: bool
    token: str | None
    cert_file: str | None
    key_file: str | None


def configuration(*, context: str | None = None) -> official.Configuration:
    """Return the official client's configuration: the pod's service account, else the kubeconfig's `context`.

    Raises NoCluster when neither can be used.
    """
    settings = official.Configuration(retries=False)
    with suppress(official_config.ConfigException):
        if context is None:
            official_config.load_incluster_config(client_configuration=settings)
            return settings
    try:
        official_config.load_kube_config(client_configuration=settings, context=context)
    except official_config.ConfigException as error:
        place = f"context {context}" if context else "the current context"
        text = f"no cluster: {place} of the kubeconfig cannot be used: {error} Set KUBECONFIG and RETUNE_KUBECONTEXT."
        raise NoCluster(text) from error
    return settings


def connection(settings: official.Configuration) -> Connection:
    """Return the parts of a configuration that another HTTP client needs; the token is read anew."""
    header = settings.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    return Connection(
        server=settings.host,
        ca_file=settings.ssl_ca_cert,
        verify=settings.verify_ssl,
        token=header.rpartition(" ")[2] or None,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )


def official_transport(settings: official.Configuration, *, threads: int) -> Transport:
    """Return a transport over the official client.

    Args:
        settings: How to reach the API server; changed to keep connections alive.
        threads: Calls in flight at most, each with a connection of its own.
    """
    settings.connection_pool_maxsize = threads
    settings.keep_alive = True
    api = official.ApiClient(settings)

    def send(request: Request) -> Response:
        _, url, headers, _, _ = api.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query.items()),
            header_params={"Accept": "application/json", "Content-Type": request.content_type},
            auth_settings=["BearerToken"],
        )
        try:
            body = request.body if request.operations is None else list(request.operations)
            answer = api.call_api(request.method, url, headers, body, _request_timeout=request.timeout)
        except official.ApiException as error:  # the official client's wrapping of a TLS failure
            raise ConnectionError(" ".join(str(error.reason).split())) from error
        return Response(answer.status, answer.read(), answer.headers)

    return send


class Client:
    """Asynchronous face of a transport: JSON in, JSON out, typed errors.

    Args:
        transport: Sends requests.
        threads: Calls in flight at most.
        count: Counts them.
        write_seconds: For how long a write that begins now may be under way, where that is limited.
        clock: Is told the time of every answer.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        threads: int = 16,
        count: Counter | None = None,
        write_seconds: Callable[[], float] | None = None,
        clock: ServerClock | None = None,
    ) -> None:
        self._clock = clock or ServerClock()
        self._transport = transport
        self._write_seconds = write_seconds
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="api")
        self._count = count

    def close(self) -> None:
        """Let running calls finish and stop the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        """Return one object as it is now; raises NotFound."""
        return await self.call(Request("GET", kind.path(namespace, name)))

    async def call(self, request: Request) -> Json:
        """Return the answer's JSON; raises an ApiError that says what to do."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, request)

    async def pages(self, kind: Kind, namespace: str | None = None, *, selector: str = "") -> AsyncIterator[Json]:
        """Yield a collection page by page, each a List with its `items` and `metadata`.

        Args:
            kind: The kind to list.
            namespace: The namespace to list; None for all.
            selector: Label selector in place of the kind's own.
        """
        query = {"limit": str(PAGE)}
        if selector or kind.selector:
            query["labelSelector"] = selector or kind.selector
        while True:
            page = await self.call(Request("GET", kind.path(namespace), query))
            yield page
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    def _call(self, request: Request) -> Json:
        if request.method != "GET" and self._write_seconds is not None:
            request = _in_time(request, self._write_seconds())
        sent = self._clock.wall()
        try:
            response = self._transport(request)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            self._counted(request, "error")
            raise Transient(f"{request.method} {request.path}: {type(error).__name__}: {error}") from error
        self._counted(request, str(response.status))
        self._clock.heard(response.headers.get("Date"), sent=sent)
        return _json(request, response)

    def _counted(self, request: Request, code: str) -> None:
        if self._count is not None:
            self._count(request.method, code)


def _in_time(request: Request, left: float) -> Request:
    """Return a write that has ended, well or not, within `left` seconds; raises Transient where that is too little."""
    if left < _LEAST_WRITE_SECONDS:
        raise Transient("this operator does not lead any more, and writes nothing")
    connect = min(request.timeout[0], left / 4)
    return replace(request, timeout=(connect, min(request.timeout[1], left - connect)))


def _json(request: Request, response: Response) -> Json:
    try:
        document: Any = json.loads(response.body) if response.body else {}
    except ValueError:
        document = {"message": response.body[:200].decode(errors="replace")}
    answer: Json = document if isinstance(document, dict) else {}
    if response.status < 300:
        return answer
    raise error_of(request.method, request.path, response.status, answer, retry_after=_retry_after(response))


def _retry_after(response: Response) -> float | None:
    value = response.headers.get("Retry-After") or response.headers.get("retry-after")
    return float(value) if value and value.isdigit() else None
