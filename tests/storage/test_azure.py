"""What is Azure's own: tokens instead of keys, accounts that are refused, redirects, and links to reports."""

import base64
import datetime as dt
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs
from urllib.request import urlopen
from uuid import uuid4

import pytest

from optimizer_jobs.stores.base import Kind, StoreError, probe
from optimizer_jobs.stores.opening import open_store
from retune.cli import buckets
from retune.cli.access import AccessError
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.storage import servers
from tests.storage.servers import Store

azure = pytest.importorskip("azure.storage.blob")

PAGE, PATH = b"<html><p>Promote</p></html>", "retune/ml/digits/report.html"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "99999999-8888-7777-6666-555555555555"


@pytest.fixture
def az(server_of: Callable[[str], Store]) -> Store:
    """The emulator as a Job meets it whose Secret is right."""
    return server_of("az")


@pytest.fixture
def uri(az: Store) -> str:
    """Address of an empty store."""
    assert az.port
    return f"az://{servers.BUCKET}/{uuid4().hex}"


def refused(call: Callable[[], object], kind: Kind) -> StoreError:
    """Call what must be refused so, and return why."""
    with pytest.raises(StoreError) as caught:
        call()
    assert caught.value.kind is kind, caught.value
    return caught.value


def sas(permissions: str, *, hours: int = 1) -> str:
    """Return a token for the container with these permissions."""
    return str(
        azure.generate_container_sas(
            servers.ACCOUNT,
            servers.BUCKET,
            account_key=servers.ACCOUNT_KEY,
            permission=permissions,
            expiry=dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours),
        )
    )


def test_a_token_for_the_container_is_enough(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the documentation asks for, and no key of the account."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas("racwdl"))
    store = open_store(uri)
    assert probe(store).honoured
    assert store.create("a/one", b"one")
    assert [stat.key for stat in store.stats("")] == ["a/one"]


def test_a_token_that_only_reads_is_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server itself; nothing of the token is in the sentence."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas("rl"))
    error = refused(lambda: open_store(uri).create("one", b""), Kind.READ_ONLY)
    assert "sig=" not in str(error)


def test_a_token_that_has_ended_is_forbidden(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the token, and not the container, that is wrong."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas("racwdl", hours=-1))
    error = refused(lambda: open_store(uri).read("one", limit=1), Kind.FORBIDDEN)
    assert "AZURE_STORAGE_SAS_TOKEN" in error.next_step


def test_without_credentials_the_secret_is_named(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private container is asked for as the public does."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    error = refused(lambda: open_store(uri).read("one", limit=1), Kind.FORBIDDEN)
    assert "no credentials" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("AZURE_STORAGE_ACCOUNT", ""), ("AZURE_STORAGE_ACCOUNT", "evil.example/x"), ("AZURE_STORAGE_KEY", "s3cret?")],
)
def test_what_cannot_be_is_named(uri: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Before anything is asked, and without what is secret."""
    monkeypatch.setenv(name, value)
    error = refused(lambda: open_store(uri), Kind.FORBIDDEN)
    assert name in error.message
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0xa9fea9fe", "168.63.129.16"])
def test_the_machines_own_network_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Azure's metadata service and its host's among them."""
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", f"http://{host}/{servers.ACCOUNT}")
    refused(lambda: open_store(uri), Kind.FORBIDDEN)


def test_a_server_that_moves_to_a_private_address_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is connected to is checked, not only the one that the name had before."""
    monkeypatch.setattr("optimizer_jobs.data.remote.check_endpoint", lambda variable: None)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Refuse")
    error = refused(lambda: open_store(uri).read("one", limit=1), Kind.FORBIDDEN)
    assert "private address" in error.message


class Played(ThreadingHTTPServer):
    """A server that answers every request in the same way, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str], tuple[int, dict[str, str], bytes]]) -> None:
        """Start on a port of this machine; `answer` is given the request's body."""
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _handler(answer, self.asked))


def _handler(answer: Callable[[str], tuple[int, dict[str, str], bytes]], asked: list[str]) -> type:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            asked.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            status, headers, body = answer(asked[-1])
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = do_PUT = _do  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def played(answer: Callable[[str], tuple[int, dict[str, str], bytes]], pki: Path | None = None) -> Iterator[Played]:
    """Serve such a server."""
    server = Played(answer)
    if pki is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.crt", pki / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


def test_no_redirect_is_followed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server cannot have a Job connect to another one, nor show it the key's signature."""
    with (
        played(lambda body: (200, {}, b"")) as other,
        played(lambda body: (307, {"Location": f"http://127.0.0.1:{other.server_port}/x"}, b"")) as server,
    ):
        endpoint = f"http://127.0.0.1:{server.server_port}/{servers.ACCOUNT}"
        monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", endpoint)
        refused(lambda: open_store(uri).read("one", limit=1), Kind.NETWORK)
        assert (bool(server.asked), other.asked) == (True, [])


def test_an_account_with_folders_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it tells: its listings have folders in them, in another order."""
    with played(lambda body: (200, {"x-ms-is-hns-enabled": "true"}, b"")) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}/{servers.ACCOUNT}"
        monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", endpoint)
        error = refused(lambda: list(open_store(uri).stats("")), Kind.FORBIDDEN)
    assert "hierarchical namespace" in error.message


def token(tenant: str = TENANT) -> str:
    """Return what Entra would give, but for its signature, at which the emulator does not look."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": now - 10,
        "nbf": now - 10,
        "exp": now + 3600,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"signature"))


@pytest.fixture
def identity(az: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Microsoft's webhook gives to a pod; the file with the service account's token."""
    assert az.port
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    (tmp_path / "token").write_text("of-the-service-account\n")
    return tmp_path / "token"


@pytest.mark.usefixtures("identity")
def test_a_service_account_is_known_by_its_token(uri: str, az: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entra is shown the file's token once, and the container what Entra gave for it."""
    given = json.dumps({"access_token": token(), "expires_in": 3600}).encode()
    with played(lambda body: (200, {"Content-Type": "application/json"}, given), az.pki) as entra:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://localhost:{entra.server_port}/")
        store = open_store(uri)
        assert store.create("one", b"one")
        assert store.read("one", limit=3) == b"one"
    (form,) = map(parse_qs, entra.asked)
    assert (form["client_id"], form["client_assertion"]) == ([CLIENT], ["of-the-service-account"])
    assert form["scope"] == ["https://storage.azure.com/.default"]


@pytest.mark.usefixtures("identity")
def test_a_service_account_that_entra_does_not_know_is_told(
    uri: str, az: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to look at, and without the token."""
    said = json.dumps({"error": "invalid_client"}).encode()
    with played(lambda body: (401, {"Content-Type": "application/json"}, said), az.pki) as entra:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://localhost:{entra.server_port}/")
        error = refused(lambda: open_store(uri).read("one", limit=3), Kind.FORBIDDEN)
    assert "invalid_client" in error.message
    assert "of-the-service-account" not in str(error)


def test_an_identity_with_a_part_missing_is_told(uri: str, identity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, or the file."""
    identity.unlink()
    assert "AZURE_FEDERATED_TOKEN_FILE" in refused(lambda: open_store(uri).read("one", limit=3), Kind.FORBIDDEN).message
    monkeypatch.delenv("AZURE_TENANT_ID")
    assert "AZURE_TENANT_ID" in refused(lambda: open_store(uri), Kind.FORBIDDEN).message


@pytest.fixture
def report(az: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """A report in the container, and a person who trusts the server's authority."""
    az.put(PATH, PAGE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(az.pki and az.pki / "ca.crt"))
    return f"az://{servers.BUCKET}/{PATH}"


def test_a_report_is_read_and_linked_to(report: str, az: Store) -> None:
    """The link opens this one page without credentials, and names no key."""
    assert az.pki is not None
    assert buckets.read(report) == PAGE
    link = buckets.link(report)
    assert servers.ACCOUNT_KEY not in link
    trusted = ssl.create_default_context(cafile=str(az.pki / "ca.crt"))
    with urlopen(link, timeout=30, context=trusted) as answer:  # noqa: S310 - this machine's
        assert (answer.read(), answer.headers.get_content_type()) == (PAGE, "text/html")
    with pytest.raises(AccessError, match="is not there"):
        buckets.link(f"{report}.bak")


def test_a_token_reads_reports_and_is_not_handed_on(report: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may allow more than one page; and whoever has neither is told what to set."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas("rl"))
    assert buckets.read(report) == PAGE
    with pytest.raises(AccessError, match="a link is signed with AZURE_STORAGE_KEY"):
        buckets.link(report)
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    with pytest.raises(AccessError, match=r"AZURE_STORAGE_SAS_TOKEN is not set.*as for `az storage`"):
        buckets.read(report)
