"""The tracking server: its address and credentials from the environment, and bounded answers to requests.

What it answers is hostile input. No redirect to another host is followed, no address of the machine's own network is
asked, and credentials go to no public address in clear text.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientResponse, ClientSession
from fsspec.asyn import get_loop, sync
from yarl import URL

from optimizer_jobs.data.addresses import RefusedError, check_endpoint, is_public
from optimizer_jobs.data.remote import check_secret
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.data.web import open_client
from optimizer_jobs.errors import printable

VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable with the server's address."""

_ANSWER_LIMIT_BYTES = 4 << 20
_CHUNK = 1 << 16
_API = "api/2.0/mlflow/"


class AnswerError(OSError):
    """The server refuses a request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"status {status}{f', {message}' if message else ''}")
        self.status = status
        """HTTP status."""
        self.code = code
        """MLflow's word for it, such as RESOURCE_DOES_NOT_EXIST; empty where the answer is not MLflow's."""
        self.message = message
        """What the server says, in printable text."""


class UnfitAnswerError(ValueError):
    """The server answers what no tracking server does; the message is a sentence."""


@dataclass(frozen=True)
class Server:
    """A tracking server."""

    base: str
    """Its address, with a slash at its end."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ask(self, name: str, /, **parameters: str) -> dict[str, Any]:
        """Return the answer to a request of MLflow's REST API, such as `model-versions/get`.

        Raises:
            AnswerError: The server refuses it.
            UnfitAnswerError: The answer is no JSON object, or too large.
            OSError: The server cannot be reached.
        """
        return self.read(f"{_API}{name}", parameters)

    def read(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the JSON object at a path, which is percent-encoded; raises as `ask`."""
        answer: dict[str, Any] = sync(get_loop(), self._read, self._url(path).with_query(dict(parameters)))
        return answer

    def open(self, path: str, *, start: int) -> "Download":
        """Begin to read a file.

        Args:
            path: Percent-encoded path.
            start: First byte that is wanted; the server may begin before it, see `Download.start`.

        Raises:
            AnswerError: The server refuses it.
            OSError: The server cannot be reached.
        """
        download: Download = sync(get_loop(), self._open, self._url(path), start)
        return download

    def send(self, name: str, /, *, method: str = "POST", **fields: Any) -> dict[str, Any]:
        """Return the answer to a request of MLflow's REST API that changes something, such as `runs/create`.

        It is never sent on to another address. Errors are those of `ask`.
        """
        answer: dict[str, Any] = sync(get_loop(), self._send, method, self._url(f"{_API}{name}"), fields)
        return answer

    def put(self, path: str, file: Path) -> None:
        """Write a file at a path, which is percent-encoded; raises as `ask`."""
        sync(get_loop(), self._put, self._url(path), file)

    def _url(self, path: str) -> URL:
        return URL(self.base + path, encoded=True)

    async def _read(self, url: URL) -> dict[str, Any]:
        async with await open_client() as client, client.get(url, headers=self.headers) as answer:
            return _parsed(await _bounded(await _accepted(answer)))

    async def _send(self, method: str, url: URL, fields: Mapping[str, Any]) -> dict[str, Any]:
        async with (
            await open_client() as client,
            client.request(method, url, json=dict(fields), headers=self.headers, allow_redirects=False) as answer,
        ):
            return _parsed(await _bounded(_here(await _accepted(answer))))

    async def _put(self, url: URL, file: Path) -> None:
        with file.open("rb") as content:
            async with (
                await open_client() as client,
                client.put(url, data=content, headers=self.headers, allow_redirects=False) as answer,
            ):
                await _bounded(_here(await _accepted(answer)))

    async def _open(self, url: URL, start: int) -> "Download":
        client = await open_client()
        try:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            answer = await _accepted(await client.get(url, headers={**self.headers, **headers}))
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            return Download(client, answer, start if goes_on else 0)
        except BaseException:
            await client.close()
            raise


@dataclass(frozen=True)
class Download:
    """A file that is being read."""

    client: ClientSession
    answer: ClientResponse
    start: int
    """Where in the file the answer begins: a server without ranges begins anew."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, and none at the end; raises OSError or aiohttp's errors where it breaks off."""
        content: bytes = sync(get_loop(), self.answer.content.read, size)
        return content

    def close(self) -> None:
        """End the connection, also in the middle of a transfer."""
        sync(get_loop(), self._close)

    async def _close(self) -> None:
        self.answer.close()
        await self.client.close()


def tracking_server() -> Server:
    """Return the server that the environment names.

    Raises:
        CredentialsError: None is named, or its address or credentials are not what they should be.
        RefusedError: It is at an address that Jobs must not connect to, or would get credentials in clear text.
    """
    check_secret()
    address = os.environ.get(VARIABLE, "").strip()
    if not address:
        raise CredentialsError(f"mlflow:// needs the address of the tracking server in {VARIABLE}.")
    scheme, host = _checked(address)
    check_endpoint(VARIABLE)
    headers = _authorization()
    if scheme == "http" and headers and is_public(host):
        raise RefusedError(f"credentials would go to {host} in clear text: give https:// in {VARIABLE}.")
    return Server(address.rstrip("/") + "/", headers)


def _checked(address: str) -> tuple[str, str]:
    """Return scheme and host of an address; raises CredentialsError where it is none of a server."""
    try:
        parts = urlsplit(address)
        plain = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        plain, parts = False, urlsplit("")
    if not plain or not re.fullmatch(r"[!-\"$->@-~]+", address):
        raise CredentialsError(f"{VARIABLE} is no address of a server: give http://host:port or https://host.")
    if "@" in parts.netloc:
        raise CredentialsError(f"{VARIABLE} has a user in it: give MLFLOW_TRACKING_USERNAME and _PASSWORD instead.")
    return parts.scheme, parts.hostname or ""


def _authorization() -> dict[str, str]:
    """Return the header with the credentials, in the order of MLflow's own clients."""
    user, password, token = (
        os.environ.get(name, "")
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    )
    if user and password:
        if ":" in user:
            raise CredentialsError("MLFLOW_TRACKING_USERNAME has a colon, which no user's name can have.")
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    if user or (password and not token):
        raise CredentialsError("MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are needed both.")
    if not token:
        return {}
    if not token.isascii() or not token.isprintable():
        raise CredentialsError("MLFLOW_TRACKING_TOKEN is no token: it has a line break or the like.")
    return {"Authorization": f"Bearer {token}"}


async def _accepted(answer: ClientResponse) -> ClientResponse:
    """Return an answer that is no refusal; raises AnswerError for one."""
    if answer.status >= 400:
        raise _refusal(answer.status, await _bounded(answer))
    return answer


def _here(answer: ClientResponse) -> ClientResponse:
    """Return an answer that sends on to nowhere; raises UnfitAnswerError for one that does."""
    if answer.status >= 300:
        there = printable(answer.headers.get("Location", "nowhere"), limit=200)
        raise UnfitAnswerError(f"it sends what is written on to {there}.")
    return answer


async def _bounded(answer: ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        content += chunk
        if len(content) > _ANSWER_LIMIT_BYTES:
            raise UnfitAnswerError(f"its answer has more than {_ANSWER_LIMIT_BYTES} bytes.")
    return bytes(content)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise UnfitAnswerError("its answer is no JSON object: this is no MLflow tracking server.")
    return answer


def _refusal(status: int, content: bytes) -> AnswerError:
    """Return the error with MLflow's words, or with the first of those that somebody else has said."""
    try:
        answer = _parsed(content)
    except UnfitAnswerError:
        text = content[:400].decode(errors="replace")
        return AnswerError(status, "", "" if "<" in text else printable(text, limit=100))
    code, message = (str(answer.get(key) or "") for key in ("error_code", "message"))
    return AnswerError(status, printable(code, limit=60), printable(message, limit=200))
