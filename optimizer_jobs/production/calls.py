"""Read the calls that a proxy has let through, in a thread of its own: bounded, and never in a request's way."""

import json
import logging
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from prometheus_client import Counter

from optimizer_jobs.production.protocol import UnfitEventError, parse_body, tensors
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.serving.triton import DIGEST
from optimizer_jobs.signature import Signature

CALLS = Counter("retune_proxy_calls", "Calls for an inference by what became of their capture.", ["outcome"])

PENDING_BYTES = 64 << 20
"""Largest total size of the requests and answers that wait to be read."""

NAMED_SECONDS = 10.0
"""How long the server's word for the bundle of a model is believed."""

_ASK_SECONDS = 2.0
_CONFIG_BYTES = 1 << 20
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Call:
    """A request for an inference that the server has answered."""

    model: str
    """Name of the model on the server."""
    came: float
    """When it came, in seconds since 1970."""
    asked: bytes
    answered: bytes
    header_id: str | None = None
    """Header X-Request-Id, where there is one."""


class Named:
    """What a server of a model repository that `retune render` wrote says of its bundles, asked now and then."""

    def __init__(self, upstream: str) -> None:
        """Ask the server at a base URL, without a slash at its end."""
        self._upstream = upstream
        self._known: dict[str, tuple[float, str | None]] = {}

    def digest(self, model: str) -> str | None:
        """Return the digest of a model's bundle; None where the server does not name it. May wait for 2 s."""
        asked, digest = self._known.get(model, (-NAMED_SECONDS, None))
        if time.monotonic() - asked >= NAMED_SECONDS:
            digest = self._asked(model)
            self._known[model] = (time.monotonic(), digest)
        return digest

    def _asked(self, model: str) -> str | None:
        address = f"{self._upstream}/v2/models/{quote(model, safe='')}/config"
        with (
            suppress(OSError, ValueError, RecursionError),
            urlopen(address, timeout=_ASK_SECONDS) as answer,  # noqa: S310 - the server that the proxy is beside
        ):
            return _digest(json.loads(answer.read(_CONFIG_BYTES)))
        return None


def _digest(config: Any) -> str | None:
    parameters = config.get("parameters") if isinstance(config, dict) else None
    value = parameters.get(DIGEST) if isinstance(parameters, dict) else None
    digest = value.get("string_value") if isinstance(value, dict) else None
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None


@dataclass
class Capture:
    """Reads calls in a thread of its own and hands them to a writer."""

    signature: Signature
    writer: CaptureWriter
    model: str
    """Digest of the model that is recorded when neither answer nor server names one."""
    named: Named
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "capture-reader"))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _bytes: int = 0

    def offer(self, call: Call) -> None:
        """Take a call, or drop it where too much waits already; returns at once."""
        size = len(call.asked) + len(call.answered)
        with self._lock:
            full = self._bytes + size > PENDING_BYTES
            self._bytes += 0 if full else size
        if full:
            CALLS.labels("dropped").inc()
        else:
            self._reader.submit(self._read, call, size)

    def close(self) -> None:
        """Read and write what waits; takes 10 s at most for the writing."""
        self._reader.shutdown(wait=True)
        self.writer.close()

    def _read(self, call: Call, size: int) -> None:
        try:
            CALLS.labels(self._outcome(call)).inc()
        except UnfitEventError:
            CALLS.labels("unfit").inc()
        except Exception:  # whatever it is, the next call is read
            CALLS.labels("failed").inc()
            logging.getLogger(__name__).exception("a call could not be captured")
        finally:
            with self._lock:
                self._bytes -= size

    def _outcome(self, call: Call) -> str:
        """Return what became of a call; raises UnfitEventError."""
        asked, answered = parse_body(call.asked), parse_body(call.answered)
        if asked.is_own:
            return "golden"
        inputs, outputs = tensors(asked, "request", self.signature), tensors(answered, "response", self.signature)
        request_id = asked.id or answered.id or call.header_id or str(uuid.uuid4())
        model = answered.bundle or self.named.digest(call.model) or self.model
        return "captured" if self.writer.offer(request_id, model, inputs, outputs, call.came) else "dropped"
