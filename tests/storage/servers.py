"""Real servers that speak S3's and Google's protocols, over TLS where they can, with the files of a folder."""

import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tools.localcluster import binaries
from tools.localcluster.certs import LOOPBACK, Identity, ensure
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import wait_for

KEY, SECRET = "retune-tests", "a-key-for-tests-only"
BUCKET = "models"


@dataclass(frozen=True)
class Store:
    """A running server."""

    port: int
    put: Callable[[str, bytes], object]
    """Put a file into the bucket, by its name there."""
    environment: dict[str, str]
    """What the Secret of a user has to hold."""
    pki: Path | None = None
    """Folder with its certificate and that of its authority, where it speaks TLS."""


@contextmanager
def s3(folder: Path) -> Iterator[Store]:
    """Serve a bucket over S3's protocol, with keys and a certificate of an authority of its own."""
    pki, bucket, (port,) = folder / "pki", folder / "root" / BUCKET, free_ports(1)
    ensure(pki, [Identity("server", "localhost", names=LOOPBACK)])
    bucket.mkdir(parents=True)
    (folder / "sidecar").mkdir()
    arguments = (
        "--port",
        f"127.0.0.1:{port}",
        "--access",
        KEY,
        "--secret",
        SECRET,
        "--cert",
        pki / "server.crt",
        "--key",
        pki / "server.key",
        "--quiet",
        "posix",
        "--sidecar",
        folder / "sidecar",
        folder / "root",
    )
    environment = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"https://localhost:{port}",
        "CA_CERTIFICATES": (pki / "ca.crt").read_text(),
    }
    with _running("versitygw", arguments, port=port, log=folder / "log"):
        yield Store(port, lambda name, content: _write(bucket / name, content), environment, pki)


@contextmanager
def gcs(folder: Path) -> Iterator[Store]:
    """Serve a bucket over Google's protocol; this server asks nobody who they are."""
    bucket, (port,) = folder / "root" / BUCKET, free_ports(1)
    bucket.mkdir(parents=True)
    arguments = (
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        port,
        "-filesystem-root",
        folder / "root",
        "-public-host",
        f"127.0.0.1:{port}",
    )
    with _running("fake-gcs-server", arguments, port=port, log=folder / "log"):
        server = f"http://127.0.0.1:{port}"
        yield Store(port, lambda name, content: _upload(server, name, content), {"STORAGE_EMULATOR_HOST": server})


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _upload(server: str, name: str, content: bytes) -> None:
    query = urlencode({"uploadType": "media", "name": name})
    address = f"{server}/upload/storage/v1/b/{BUCKET}/o?{query}"
    with urlopen(Request(address, data=content, method="POST"), timeout=30):  # noqa: S310 - this machine's
        return


@contextmanager
def _running(name: str, arguments: Sequence[object], *, port: int, log: Path) -> Iterator[None]:
    path = binaries.ensure(load(), ("storage",))[name]
    with log.open("wb") as output:
        process = subprocess.Popen([path, *map(str, arguments)], stdout=output, stderr=output)
    try:
        wait_for(lambda: process.poll() is not None or listens(port), what=f"{name} listening", seconds=30)
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended at once: {log.read_text()[-500:]}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def listens(port: int) -> bool:
    """Return whether somebody takes connections at a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
