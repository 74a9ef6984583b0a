"""The little HTTP that a check host speaks: one request a connection, bounded in bytes, and an answer in JSON."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from optimizer_jobs.warm import messages

HEAD_BYTES = 16 << 10


class BadRequestError(Exception):
    """A request that is not read, with its status."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


async def read(reader: asyncio.StreamReader) -> Request:
    """Return the request on a connection; raises BadRequestError, or an error of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too long") from error
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    if len(words) != 3 or not all(colon for _, colon, _ in pairs):
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "this is no HTTP")
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Request(words[0], words[1], headers, await reader.readexactly(_length(headers)))


def _length(headers: Mapping[str, str]) -> int:
    """Return how many bytes the body has; those of a request without a length are none."""
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10) or "transfer-encoding" in headers:
        raise BadRequestError(HTTPStatus.LENGTH_REQUIRED, "the body has no length")
    if int(text) > messages.REQUEST_BYTES:
        words = f"the request has more than {messages.REQUEST_BYTES} bytes"
        raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
    return int(text)


def answer(status: HTTPStatus, document: Mapping[str, Any]) -> bytes:
    """Return an answer, after which the connection is closed."""
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def refusal(status: HTTPStatus, why: str) -> bytes:
    """Return an answer without a verdict, and why it has none, as a clause."""
    return answer(status, {"refused": why})
