"""Real servers that speak S3's, Google's and Azure's protocols, over TLS where they can."""

import base64
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
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
ACCOUNT, ACCOUNT_KEY = "retunetests", base64.b64encode(b"a key for tests only, of 64 bytes as Azure's are").decode()
_START_SECONDS = 240
"""Azurite loads thousands of files before it listens: seconds, and minutes on a machine that has other work."""
AZURITE_VARIABLE = "RETUNE_AZURITE"
"""Environment variable with the folder that Azurite is installed in; else that of `make test-neighbours-azure`."""
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

    def at(self, port: int) -> dict[str, str]:
        """Return what the Secret has to hold where the server is asked at another port, as through a proxy."""
        return {name: value.replace(f":{self.port}", f":{port}") for name, value in self.environment.items()}


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
    with _running(_built("versitygw"), arguments, port=port, log=folder / "log"):
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
    with _running(_built("fake-gcs-server"), arguments, port=port, log=folder / "log"):
        server = f"http://127.0.0.1:{port}"
        yield Store(port, lambda name, content: _upload(server, name, content), {"STORAGE_EMULATOR_HOST": server})


def azurite() -> Path | None:
    """Return the script of Microsoft's emulator, or None where it is not installed."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    usual = Path(os.environ.get("RETUNE_CACHE") or f"{cache}/retune") / "downloads" / "azurite"
    script = Path(os.environ.get(AZURITE_VARIABLE) or usual) / "node_modules" / ".bin" / "azurite-blob"
    return script if script.exists() else None


@contextmanager
def azure(folder: Path, script: Path) -> Iterator[Store]:
    """Serve a container over Azure's protocol, with a key and a certificate of an authority of its own.

    It takes tokens of Entra too, of which it checks everything but the signature.
    """
    from azure.storage.blob import BlobServiceClient

    pki, (port,) = folder / "pki", free_ports(1)
    ensure(pki, [Identity("server", "localhost", names=LOOPBACK)])
    arguments = (
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        port,
        "--location",
        folder / "root",
        "--cert",
        pki / "server.crt",
        "--key",
        pki / "server.key",
        "--oauth",
        "basic",
        "--disableTelemetry",
        "--silent",
    )
    endpoint = f"https://localhost:{port}/{ACCOUNT}"
    environment = {
        "AZURE_STORAGE_ACCOUNT": ACCOUNT,
        "AZURE_STORAGE_KEY": ACCOUNT_KEY,
        "AZURE_STORAGE_SERVICE_ENDPOINT": endpoint,
        "CA_CERTIFICATES": (pki / "ca.crt").read_text(),
    }
    accounts = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    with (
        _running(script, arguments, port=port, log=folder / "log", environment=accounts),
        BlobServiceClient(
            endpoint,
            {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY},
            connection_verify=str(pki / "ca.crt"),
            api_version="2023-11-03",
        ) as service,
    ):
        container = service.create_container(BUCKET)
        yield Store(port, lambda name, content: container.upload_blob(name, content, overwrite=True), environment, pki)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _upload(server: str, name: str, content: bytes) -> None:
    query = urlencode({"uploadType": "media", "name": name})
    address = f"{server}/upload/storage/v1/b/{BUCKET}/o?{query}"
    with urlopen(Request(address, data=content, method="POST"), timeout=30):  # noqa: S310 - this machine's
        return


def _built(name: str) -> Path:
    return Path(binaries.ensure(load(), ("storage",))[name])


@contextmanager
def _running(
    path: Path, arguments: Sequence[object], *, port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    name = path.name
    with log.open("wb") as output:
        process = subprocess.Popen(
            [path, *map(str, arguments)], stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    try:
        wait_for(lambda: process.poll() is not None or listens(port), what=f"{name} listening", seconds=_START_SECONDS)
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
