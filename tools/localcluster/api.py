"""A very small client of the Kubernetes API on the standard library, for waiting, applying and watching.

It exists so that the cluster's own code needs no package that could be broken by what is being tested.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FIELD_MANAGER = "retune-localcluster"
Document = dict[str, Any]


class ApiError(Exception):
    """The API server's refusal. status: HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """One API server, as one user."""

    def __init__(self, kubeconfig: Path) -> None:
        """Read the first cluster and user of a kubeconfig with embedded data."""
        document = yaml.safe_load(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self.server: str = cluster["server"]
        self.token: str | None = user.get("token")
        context = ssl.create_default_context(cadata=decoded(cluster["certificate-authority-data"]))
        if "client-certificate-data" in user:
            load_client_certificate(context, user)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def open(self, method: str, path: str, body: Document | None = None, *, kind: str, timeout: float) -> Any:
        """Send one request and return the open response; raises ApiError on a refusal, OSError when unreachable."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data=data, method=method)  # noqa: S310 - from our kubeconfig
        request.add_header("Content-Type", kind)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            return self.opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, message_of(error)) from error

    def request(
        self, method: str, path: str, body: Document | None = None, *, kind: str = "application/json"
    ) -> Document:
        """One request with a JSON answer."""
        with self.open(method, path, body, kind=kind, timeout=15) as response:
            answer: Document = json.load(response)
        return answer

    def get(self, path: str) -> Document:
        """Read one object or list."""
        return self.request("GET", path)

    def apply(self, path: str, body: Document) -> Document:
        """Server-side apply of one object; nothing is written when nothing differs."""
        target = f"{path}?fieldManager={FIELD_MANAGER}&force=true"
        return self.request("PATCH", target, body, kind="application/apply-patch+yaml")

    def healthy(self, path: str = "/readyz") -> bool:
        """Whether the server answers this health check with success."""
        try:
            with self.open("GET", path, kind="text/plain", timeout=3) as response:
                return bool(response.status == 200)
        except (ApiError, OSError):
            return False

    def watch(self, path: str, *, seconds: int) -> Iterator[Document]:
        """Events of a list from now on, until the server ends the watch after `seconds`."""
        target = f"{path}?watch=true&timeoutSeconds={seconds}"
        with self.open("GET", target, kind="application/json", timeout=seconds + 30) as response:
            for line in response:
                yield json.loads(line)


def decoded(text: str) -> str:
    """Base64 to text."""
    return base64.b64decode(text).decode()


def load_client_certificate(context: ssl.SSLContext, user: dict[str, str]) -> None:
    """Give the context a client certificate; the ssl module reads it only from a file, which is removed at once."""
    with tempfile.NamedTemporaryFile("w") as pair:
        pair.write(decoded(user["client-certificate-data"]) + decoded(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)


def message_of(error: urllib.error.HTTPError) -> str:
    """The message of a Status answer, or the plain text."""
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        return text
