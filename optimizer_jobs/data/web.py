"""The HTTP client for https:// URIs: it trusts added certificates, refuses forbidden addresses and leaves no host.

Imported when such a URI is opened, because the library is slow to import.
"""

import socket
import ssl
from functools import cache
from types import SimpleNamespace
from typing import Any

from aiohttp import (
    ClientSession,
    ClientTimeout,
    TCPConnector,
    ThreadedResolver,
    TraceConfig,
    TraceRequestRedirectParams,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from optimizer_jobs.data.addresses import RefusedError, check_address, trusts_proxies
from optimizer_jobs.data.transfer import (
    CA_VARIABLE,
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    TIME_LIMIT_SECONDS,
    CredentialsError,
    authorities,
)


class CheckedResolver(AbstractResolver):
    """Resolves host names, and refuses a host with an address that a Job must not connect to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host; raises RefusedError when any of them is refused."""
        answers = await ThreadedResolver().resolve(host, port, family)
        for answer in answers:
            check_address(answer["host"], name=host)
        return answers

    async def close(self) -> None:
        """Nothing is kept open."""


async def open_client(**_: Any) -> ClientSession:
    """Return a client that follows no redirect to another host."""
    trace = TraceConfig()
    trace.on_request_redirect.append(_stay)
    return ClientSession(
        connector=TCPConnector(resolver=CheckedResolver(), ssl=_trust()),
        timeout=ClientTimeout(total=TIME_LIMIT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
        trace_configs=[trace],
        trust_env=trusts_proxies(),
    )


async def _stay(_: ClientSession, __: SimpleNamespace, step: TraceRequestRedirectParams) -> None:
    """Refuse a redirect that leaves the host, its port or https."""
    here, there = step.url, step.url.join(URL(step.response.headers.get("Location", "")))
    if (there.scheme, there.host, there.port) != (here.scheme, here.host, here.port):
        raise RefusedError(
            f"the server sends on to {there.scheme}://{there.authority}, and no redirect to another host is followed."
        )


def _trust() -> ssl.SSLContext:
    return _trusting(authorities())


@cache
def _trusting(extra: str) -> ssl.SSLContext:
    """Return a context that trusts these certificates too; it is made once, because that takes some 40 ms."""
    context = ssl.create_default_context()
    if extra:
        try:
            context.load_verify_locations(cadata=extra)
        except (ssl.SSLError, ValueError) as error:
            raise CredentialsError(f"{CA_VARIABLE} holds no certificates in PEM form.") from error
    return context
