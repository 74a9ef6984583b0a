"""A pod with an identity of its own, and no keys: it has those that AWS's token service gives for its token.

The object store is a real server. The token service is played, because none can be had: it knows one token, and gives
keys without a session, of which that server knows nothing.
"""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.errors import JobError
from optimizer_jobs.stores.base import Kind, StoreError
from optimizer_jobs.stores.opening import open_store
from retune.contract.results import Reason
from tests.storage import servers
from tests.storage.servers import Store
from tests.unit.jobs.http_for_tests import served

pytest.importorskip("s3fs")
ROLE, TOKEN = "arn:aws:iam::123456789012:role/retune", "a token of the cluster's"
GIVEN = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{servers.KEY}</AccessKeyId>
<SecretAccessKey>{servers.SECRET}</SecretAccessKey><SessionToken/>
<Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
REFUSED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error>
</ErrorResponse>"""


class TokenService(BaseHTTPRequestHandler):
    """Gives the keys of the tests' bucket to whoever has the token and asks for the role."""

    def do_POST(self) -> None:
        """Answer AssumeRoleWithWebIdentity."""
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        right = (asked["WebIdentityToken"], asked["RoleArn"]) == ([TOKEN], [ROLE])
        body = (GIVEN if right else REFUSED).encode()
        self.send_response(200 if right else 403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def token(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file with the pod's token, in an environment that has no keys."""
    assert s3.port
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "token"
    file.write_text(TOKEN)
    service = ThreadingHTTPServer(("127.0.0.1", 0), TokenService)
    with served(service):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{service.server_port}")
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
        yield file


def test_a_pod_s_own_identity_opens_the_store(token: Path) -> None:
    """It writes and reads as with keys of a Secret."""
    assert token.exists()
    store = open_store(f"s3://{servers.BUCKET}/identity")
    store.replace("some/object", b"content")
    assert store.read("some/object", limit=100) == b"content"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("another token", f"is not given the role {ROLE} (AccessDenied: Not authorized"),
        (None, "the token of the pod's identity cannot be read (AWS_WEB_IDENTITY_TOKEN_FILE: No such file"),
    ],
    ids=["refused", "no token"],
)
def test_an_identity_that_brings_no_keys_is_not_taken_for_a_missing_bucket(
    token: Path, tmp_path: Path, given: str | None, words: str
) -> None:
    """The sentence names the identity, for the store and for data alike, and nothing says that it may pass."""
    token.write_text(given) if given else token.unlink()
    with pytest.raises(StoreError) as store:
        open_store(f"s3://{servers.BUCKET}/identity").replace("some/object", b"content")
    assert store.value.kind is Kind.FORBIDDEN
    assert words in str(store.value)
    with pytest.raises(JobError) as data:
        fetch(f"s3://{servers.BUCKET}/some/rows.csv", limit_bytes=1000, into=tmp_path / "in", what="Data")
    assert data.value.reason is Reason.DATA_FORBIDDEN
    assert words in str(data.value)


def test_a_session_that_the_store_does_not_know_is_no_passing_trouble(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary keys end, and trying again cannot help."""
    assert s3.port
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another server")
    with pytest.raises(StoreError, match="do not allow writing") as store:
        open_store(f"s3://{servers.BUCKET}/identity").replace("some/object", b"content")
    assert store.value.kind is Kind.FORBIDDEN
    with pytest.raises(JobError, match="do not allow reading") as data:
        fetch(f"s3://{servers.BUCKET}/some/rows.csv", limit_bytes=1000, into=tmp_path / "in", what="Data")
    assert data.value.reason is Reason.DATA_FORBIDDEN
