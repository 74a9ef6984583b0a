"""How a registry is asked: one request at a time, with the token that it wants, and held to the rules for addresses.

What it answers is hostile input. No redirect is followed, credentials go to the registry and to the token service that
it names and nowhere else, and neither is asked without TLS where its address is public.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Any

from aiohttp import ClientResponse, ClientSession
from yarl import URL

from optimizer_jobs.data.addresses import RefusedError, check_host, is_public
from optimizer_jobs.errors import printable
from optimizer_jobs.registries.oci.credentials import PLAIN_HTTP, Credentials, speaks_plainly
from optimizer_jobs.registries.oci.references import Repository

ANSWER_LIMIT_BYTES = 4 << 20
"""Largest manifest that registries have to take, and so the largest answer that is read."""

_CHUNK = 1 << 16
_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_TOKEN = re.compile(r"[!-~]{1,65536}")


class RefusalError(OSError):
    """The registry, or the token service that it names, refuses a request."""

    def __init__(self, status: int, code: str = "", message: str = "", wait_seconds: float | None = None) -> None:
        said = ": ".join(part for part in (code, message) if part)
        super().__init__(f"status {status}{f', {said}' if said else ''}")
        self.status = status
        self.code = code
        """The specification's word for it, such as DENIED; empty where the answer is none of a registry."""
        self.wait_seconds = wait_seconds
        """After how long it wants to be asked again; None where it does not say."""


class UnfitAnswerError(ValueError):
    """The answer is none of a registry; the message is a sentence."""


@dataclass(frozen=True)
class Answer:
    """What a registry has answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Access:
    """A registry, asked as those credentials."""

    def __init__(self, client: ClientSession, repository: Repository, credentials: Credentials) -> None:
        self._client, self._repository, self._credentials = client, repository, credentials
        self._base = URL(f"{'http' if speaks_plainly(repository) else 'https'}://{repository.authority}")
        self._authorization = f"Bearer {credentials.bearer}" if credentials.bearer else ""

    async def check(self) -> None:
        """Raise RefusedError where the registry is at an address that Jobs must not connect to."""
        await _check(self._base, "the registry")

    def url(self, path: str) -> URL:
        """Return the address of something in the repository."""
        return self._base.join(URL(f"/v2/{self._repository.name}/{path}", encoded=True))

    def sent_on(self, location: str) -> URL:
        """Return where an upload goes on: on the registry's own host, by its own scheme.

        Raises RefusedError for another host. A registry behind a proxy may have its own scheme wrong.
        """
        there = self._base.join(_address(location, "the place of an upload"))
        if there.authority != self._base.authority:
            raise RefusedError(f"the registry sends uploads on to {printable(there.authority, limit=100)}.")
        return there.with_scheme(self._base.scheme) if there.scheme != self._base.scheme else there

    async def ask(
        self, method: str, url: URL, *, headers: Mapping[str, str] | None = None, body: bytes | Path | None = None
    ) -> Answer:
        """Return the answer to a request.

        Args:
            method: HTTP method.
            url: Address, of `url` or `sent_on`.
            headers: Headers besides those of credentials.
            body: Content, or the file that has it.

        Raises:
            RefusalError: The registry refuses it.
            UnfitAnswerError: Its answer is too large.
            RefusedError: It names a token service that Jobs must not connect to.
            OSError, aiohttp.ClientError: It cannot be reached.
        """
        try:
            return await self._once(method, url, headers or {}, body)
        except _ChallengeError as challenge:
            self._authorization = await self._authorized(challenge)
        try:
            return await self._once(method, url, headers or {}, body)
        except _ChallengeError as challenge:
            raise challenge.refusal from None

    async def _once(self, method: str, url: URL, headers: Mapping[str, str], body: bytes | Path | None) -> Answer:
        sent = dict(headers) | ({"Authorization": self._authorization} if self._authorization else {})
        with _opened(body) as content:
            async with self._client.request(method, url, headers=sent, data=content, allow_redirects=False) as answer:
                read = await _bounded(answer)
        if answer.status == 401:
            raise _ChallengeError(answer.headers.getall("WWW-Authenticate", []), _refusal(answer, read))
        if answer.status >= 400:
            raise _refusal(answer, read)
        return Answer(answer.status, answer.headers, read)

    async def _authorized(self, challenge: "_ChallengeError") -> str:
        """Return the header that a challenge asks for; raises the refusal where there is nothing to show."""
        if bearer := challenge.parameters("bearer"):
            return f"Bearer {await self._token(bearer)}"
        if challenge.parameters("basic") is not None and self._credentials.basic:
            return f"Basic {self._credentials.basic}"
        raise challenge.refusal

    async def _token(self, wanted: Mapping[str, str]) -> str:
        """Return a token of the service that the registry names, for what it says is needed."""
        realm = _address(wanted.get("realm", ""), "the token service")
        if self._base.scheme == "https" and realm.scheme != "https":
            raise RefusedError("the registry's token service speaks no TLS.")
        await _check(realm, "the registry's token service")
        fields = {name: wanted[name] for name in ("service", "scope") if wanted.get(name)}
        basic, refresh = self._credentials.basic, self._credentials.refresh
        headers = {"Authorization": f"Basic {basic}"} if basic else {}
        if refresh:
            fields |= {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": "retune"}
            request = self._client.post(realm, data=fields, allow_redirects=False)
        else:
            request = self._client.get(realm.extend_query(fields), headers=headers, allow_redirects=False)
        async with request as answer:
            content = await _bounded(answer)
        if answer.status >= 400:
            raise _refusal(answer, content)
        return _token_of(content)


class _ChallengeError(Exception):
    """The registry wants credentials, or others."""

    def __init__(self, challenges: list[str], refusal: RefusalError) -> None:
        super().__init__()
        self._challenges, self.refusal = challenges, refusal

    def parameters(self, kind: str) -> dict[str, str] | None:
        """Return the parameters of a challenge of this kind, or None without one."""
        for challenge in self._challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            if scheme.lower() == kind:
                return {name.lower(): value for name, value in _PARAMETER.findall(rest)}
        return None


def _opened(body: bytes | Path | None) -> AbstractContextManager[Any]:
    """Return the content of a request, opened anew for each try."""
    return body.open("rb") if isinstance(body, Path) else nullcontext(body)


def _address(text: str, what: str) -> URL:
    try:
        url = URL(text, encoded=True)
        _ = url.authority  # which is parsed when it is asked for
    except ValueError as error:
        raise UnfitAnswerError(f"{what} that it names is no address.") from error
    return url


async def _check(url: URL, what: str) -> None:
    """Raise RefusedError for a server that Jobs must not ask, or that would be asked over the internet without TLS."""
    host = url.host or ""
    if url.scheme not in {"http", "https"} or not host or url.user or url.password:
        raise RefusedError(f"{what} has no address of https://.")
    check_host(host)
    if url.scheme == "http" and await asyncio.to_thread(is_public, host):
        raise RefusedError(f"{what} would be asked over the internet without TLS ({PLAIN_HTTP}).")


async def _bounded(answer: ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        content += chunk
        if len(content) > ANSWER_LIMIT_BYTES:
            raise UnfitAnswerError(f"its answer has more than {ANSWER_LIMIT_BYTES} bytes.")
    return bytes(content)


def _refusal(answer: ClientResponse, content: bytes) -> RefusalError:
    """Return the error with the registry's first word on it, or with the start of what somebody else has said."""
    wait = _wait_seconds(answer.headers.get("Retry-After", ""))
    try:
        first = json.loads(content)["errors"][0]
        code, message = (str(first.get(key) or "") for key in ("code", "message"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        text = content[:400].decode(errors="replace")
        return RefusalError(answer.status, "", "" if "<" in text else printable(text, limit=100), wait)
    return RefusalError(answer.status, printable(code, limit=60), printable(message, limit=200), wait)


def _wait_seconds(text: str) -> float | None:
    """Return what a Retry-After says, as seconds or as a date."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError):
        return None


def _token_of(content: bytes) -> str:
    try:
        answer = json.loads(content)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UnfitAnswerError("its token service answers with no token.")
    return token
