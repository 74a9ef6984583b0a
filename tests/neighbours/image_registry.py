"""A real registry of images for tests: the reference implementation on loopback, with an authority of its own."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from tests.storage.servers import listens
from tools.localcluster import binaries
from tools.localcluster.certs import LOOPBACK, Identity, ensure
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import wait_for

USER, PASSWORD = "robot", "a-password-for-tests-only"
_HASH = "$2b$05$4.pJhLjgOcjsNneT0d.mvu0kN9F2snc3kqmdlqmsBvEbJHjniv4ia"
"""The password as htpasswd -B keeps it."""
_ISSUER, _SERVICE = "retune-tests", "registry"


@dataclass(frozen=True)
class ImageRegistry:
    """A running registry."""

    port: int
    folder: Path
    """Folder with its files (`root`), log and certificates."""
    plain: bool = False
    """Whether it speaks no TLS."""

    @property
    def host(self) -> str:
        """Its host and port."""
        return f"localhost:{self.port}"

    @property
    def pki(self) -> Path:
        """Folder with its key and certificates."""
        return self.folder / "pki"

    @property
    def trusted(self) -> Path:
        """Folder with nothing but its authority's certificate, as the containers' tools want it."""
        return self.folder / "trusted"

    @property
    def environment(self) -> dict[str, str]:
        """What the Secret of a user has to hold."""
        if self.plain:
            return {"REGISTRY_PLAIN_HTTP": self.host}
        return {".dockerconfigjson": self.docker_config(), "CA_CERTIFICATES": (self.pki / "ca.crt").read_text()}

    def docker_config(self, password: str = PASSWORD) -> str:
        """Return the credentials as `docker login` writes them."""
        return json.dumps({"auths": {self.host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}})

    def blobs(self) -> set[str]:
        """Return the digests of all files that it keeps."""
        folder = self.folder / "root" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return {f"sha256:{path.name}" for path in folder.glob("*/*")}


@contextmanager
def passwords(folder: Path) -> Iterator[ImageRegistry]:
    """Serve to those who know the password, by the Basic scheme."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
    with running(folder, auth={"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}) as found:
        yield found


@contextmanager
def tokens(folder: Path) -> Iterator[ImageRegistry]:
    """Serve to those with a token of its token service, which knows the password; both speak no TLS."""
    folder.mkdir(parents=True, exist_ok=True)
    with _token_service(folder) as realm:
        settings = {"realm": realm, "issuer": _ISSUER, "service": _SERVICE, "jwks": str(folder / "keys.json")}
        with running(folder, plain=True, auth={"token": settings}) as found:
            yield found


@contextmanager
def running(folder: Path, *, plain: bool = False, **settings: Any) -> Iterator[ImageRegistry]:
    """Serve until left.

    Args:
        folder: Where files, certificates and log go.
        plain: Whether it speaks no TLS.
        settings: Sections of its configuration besides those that are set here; `storage` is added to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    found = ImageRegistry(port, folder, plain)
    if not plain:
        ensure(found.pki, [Identity("server", "localhost", names=LOOPBACK)])
        found.trusted.mkdir()
        shutil.copy(found.pki / "ca.crt", found.trusted)
    (folder / "config.yaml").write_text(yaml.safe_dump(_configuration(found, settings)))
    program = binaries.ensure(load(), [binaries.REGISTRY])["registry"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"OTEL_TRACES_EXPORTER": "none"}
    with (folder / "log").open("wb") as log:
        command = [str(program), "serve", str(folder / "config.yaml")]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(lambda: process.poll() is not None or listens(port), what="the registry listening", seconds=60)
            assert process.poll() is None, (folder / "log").read_text()[-1000:]
            yield found
        finally:
            process.terminate()
            process.wait(timeout=30)


def _configuration(registry: ImageRegistry, settings: Mapping[str, Any]) -> dict[str, Any]:
    pair = {"certificate": str(registry.pki / "server.crt"), "key": str(registry.pki / "server.key")}
    tls = {} if registry.plain else {"tls": pair}
    storage = {"filesystem": {"rootdirectory": str(registry.folder / "root")}, **settings.get("storage", {})}
    http = {"addr": f"127.0.0.1:{registry.port}", "secret": "for-tests", **tls}
    return {"version": 0.1, "log": {"level": "info"}, **settings, "storage": storage, "http": http}


@contextmanager
def _token_service(folder: Path) -> Iterator[str]:
    """Hand out tokens for what is asked for until left; yields its address and writes its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    public = {"kty": "EC", "crv": "P-256", "kid": "tests", "alg": "ES256", "use": "sig"}
    public |= {name: _base64(getattr(numbers, name).to_bytes(32, "big")) for name in ("x", "y")}
    (folder / "keys.json").write_text(json.dumps({"keys": [public]}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    server.daemon_threads = True
    server.key = key  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Tokens(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if self.headers.get("Authorization") != wanted:
            self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
            return
        fields = parse_qs(urlsplit(self.path).query)
        self._send(200, {"token": _signed(self.server.key, fields["service"][0], fields["scope"])})  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _signed(key: ec.EllipticCurvePrivateKey, service: str, scopes: list[str]) -> str:
    """Return a JSON Web Token for exactly these scopes."""
    now = int(time.time())
    access = [dict(zip(("type", "name", "actions"), scope.split(":"), strict=True)) for scope in scopes]
    claims = {"iss": _ISSUER, "sub": USER, "aud": service, "exp": now + 300, "nbf": now, "iat": now, "jti": "1"}
    claims |= {"access": [each | {"actions": str(each["actions"]).split(",")} for each in access]}
    head = {"alg": "ES256", "typ": "JWT", "kid": "tests"}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
