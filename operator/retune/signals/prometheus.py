"""One number from a Prometheus server that the administrator allowed, or why there is none.

A resource names a server, never an address, and only Kubernetes' own names are filled into its query. It may ask only
where its namespace is named, or where the server confines every answer to a namespace. Whatever the server answers, the
outcome is a LiveNumber with a reason.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retune.plan.observed import LiveNumber
from retune.settings import Server
from retune.signals.bounded import UnreadableError, Web

TIMEOUT_SECONDS = 10.0
"""Longest that a server may take to answer."""
SIZE_LIMIT = 64 * 1024
"""Bytes of one answer: a single number takes 200."""
_TOKEN_LIMIT = 16 * 1024
_REFUSED = frozenset({400, 422, 503})
"""Codes with which Prometheus says in JSON what is wrong with a query."""
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_SAFE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
NAMES = ("namespace", "target", "model", "window")
"""Placeholders that a query may have."""


class BadQueryError(ValueError):
    """A query cannot be filled in; the message says why and what to write."""


def filled(query: str, values: Mapping[str, str]) -> str:
    """Return the query with its placeholders replaced.

    Args:
        query: PromQL with placeholders such as {{namespace}}.
        values: What stands for each of NAMES: Kubernetes names and durations, which have letters, digits, '.', '_' and
            '-'. Anything else could end the string that it stands in, and is refused rather than escaped.

    Raises:
        BadQueryError: A placeholder is not known or not closed, or a value cannot stand in a query.
    """

    def value(placeholder: re.Match[str]) -> str:
        name = placeholder[1].strip()
        if name not in values:
            allowed = ", ".join("{{" + known + "}}" for known in NAMES)
            raise BadQueryError(f"the query has {placeholder[0][:60]}, which nobody fills in: use {allowed}")
        if not _SAFE.fullmatch(values[name]):
            raise BadQueryError(f"the {name} {values[name][:60]!r} cannot stand in a query")
        return values[name]

    text = _PLACEHOLDER.sub(value, query)
    if "{{" in text or "}}" in text:
        raise BadQueryError("the query has a placeholder that is not closed, or braces that are doubled")
    return text


class Prometheus:
    """Asks the servers that the operator's settings allow.

    Args:
        servers: The servers by name.
        seconds: Longest that one may take to answer.
    """

    def __init__(self, servers: Mapping[str, Server], *, seconds: float = TIMEOUT_SECONDS) -> None:
        self._servers = servers
        self._web = Web(seconds=seconds, limit=SIZE_LIMIT)

    async def number(self, name: str, query: str, *, server: str, values: Mapping[str, str], at: float) -> LiveNumber:
        """Return a signal's number, or why there is none.

        Args:
            name: Name of the signal.
            query: PromQL with placeholders.
            server: Name of an allowed server.
            values: What stands for each placeholder.
            at: Time that the query is evaluated for, in seconds since 1970.
        """
        allowed = self._servers.get(server)
        if allowed is None:
            return LiveNumber(name, None, "ServerNotAllowed", _not_allowed(server, self._servers))
        if not allowed.answers(values["namespace"]):
            return LiveNumber(name, None, "ServerNotAllowed", _not_for(server, values["namespace"]))
        try:
            form = {"query": filled(query, values), "time": f"{at:.3f}", "timeout": f"{TIMEOUT_SECONDS:g}s"}
            if allowed.parameter:
                form[allowed.parameter] = values["namespace"]
            text = await self._web.text(
                f"{allowed.url}/api/v1/query", form=form, headers=_authorization(allowed), also=_REFUSED
            )
        except BadQueryError as error:
            return LiveNumber(name, None, "NoData", f"{error}.")
        except UnreadableError as error:
            return LiveNumber(name, None, "Unreachable", f"Prometheus {server}: {error}.")
        return parsed(name, text, server=server)

    async def close(self) -> None:
        """Close connections."""
        await self._web.close()


def _not_allowed(server: str, servers: Mapping[str, Server]) -> str:
    known = ", ".join(sorted(servers)) or "none"
    return (
        f"The operator's settings allow no Prometheus server named {server!r} (allowed: {known}); its administrator "
        "adds one with the chart's prometheus.servers."
    )


def _not_for(server: str, namespace: str) -> str:
    return (
        f"Prometheus {server} does not answer resources of namespace {namespace}; its administrator names it in the "
        "chart's prometheus.servers[].namespaces."
    )


def _authorization(server: Server) -> dict[str, str]:
    """Return the header with the server's token, which is read each time because it may be rotated.

    Raises:
        UnreadableError: The token file cannot be read or holds no token.
    """
    if server.token_file is None:
        return {}
    try:
        with Path(server.token_file).open("rb") as file:
            token = file.read(_TOKEN_LIMIT).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"the token file {server.token_file} cannot be read") from error
    if not token or not token.isprintable():
        raise UnreadableError(f"the token file {server.token_file} holds no token")
    return {"Authorization": f"Bearer {token}"}


def parsed(name: str, text: str, *, server: str) -> LiveNumber:
    """Return the number in an answer of `/api/v1/query`, or why there is none; never raises, whatever the answer is."""
    try:
        return _answered(name, json.loads(text), server=server)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return LiveNumber(name, None, "Unreachable", f"Prometheus {server} answers with something that is no answer.")


def _answered(name: str, answer: Any, *, server: str) -> LiveNumber:
    if answer["status"] != "success":
        words = " ".join(str(answer.get("error", "no reason given")).split())[:300]
        return LiveNumber(name, None, "NoData", f"Prometheus {server} refuses the query: {words}.")
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    if kind == "scalar":
        return _finite(name, result[1], server=server)
    if kind != "vector":
        return LiveNumber(name, None, "NoData", f"The query answers a {str(kind)[:20]}; it must answer one number.")
    if len(result) != 1:
        words = f"{len(result)} series; sum or average them to one" if result else "no series"
        return LiveNumber(name, None, "NoData", f"Prometheus {server} answers the query with {words}.")
    return _finite(name, result[0]["value"][1], server=server)


def _finite(name: str, text: str, *, server: str) -> LiveNumber:
    value = float(text)
    if not math.isfinite(value):
        return LiveNumber(name, None, "NotANumber", f"Prometheus {server} answers the query with {value}.")
    return LiveNumber(name, value, "Measured", f"Prometheus {server} answers {value:.6g}.")
