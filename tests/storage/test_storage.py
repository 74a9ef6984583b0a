"""Files in buckets arrive as those on volumes do, from servers that speak the real protocols."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer_jobs.data import remote
from optimizer_jobs.data.fetch import Fetched, fetch
from optimizer_jobs.data.hugging_face import digest_of_folder, fetch_folder
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.production.labels import join
from optimizer_jobs.production.layout import folder_of
from optimizer_jobs.production.windows import Selection, read_window
from retune.api.production import Labels, Production
from retune.contract.exits import Exit
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from retune.contract.results import Reason
from tests.storage import servers
from tests.storage.servers import Store
from tests.unit.jobs.captured_for_tests import HOUR, NOW, REQUEST_ROWS, Shop
from tests.unit.jobs.conftest import claims, delivered, shop

pytest.importorskip("s3fs")
pytest.importorskip("gcsfs")

__all__ = ["claims", "delivered", "shop"]

LIMIT = 64 << 20
NAME = "digits/model.onnx"
CONTENT = random.Random(0).randbytes(20 << 20)
"""More than the libraries read at once."""


@pytest.fixture(scope="module", autouse=True)
def _one_file(s3_server: Store, gcs_server: Store) -> None:
    """Each server has one file."""
    s3_server.put(NAME, CONTENT)
    gcs_server.put(NAME, CONTENT)


@pytest.fixture
def server(bucket: str, server_of: Callable[[str], Store]) -> Store:
    """The server of the bucket."""
    return server_of(bucket.partition("://")[0])


@pytest.fixture(autouse=True)
def _one_file_on_azure(request: pytest.FixtureRequest) -> None:
    """So has Azure's, where a test asks for it."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("bucket") == "az":
        request.getfixturevalue("az_server").put(NAME, CONTENT)


def get(uri: str, into: Path, *, limit: int = LIMIT, digest: str | None = None) -> Fetched:
    """Fetch a model."""
    return fetch(uri, limit_bytes=limit, into=into / "in", what="Model", digest=digest)


def refused(uri: str, into: Path, *, limit: int = LIMIT, digest: str | None = None) -> JobError:
    """Fetch what must be refused, and return why; nothing may stay behind."""
    with pytest.raises(JobError) as caught:
        get(uri, into, limit=limit, digest=digest)
    assert not list((into / "in").iterdir())
    assert caught.value.object == uri
    return caught.value


def test_a_file_arrives_whole(bucket: str, tmp_path: Path) -> None:
    """The copy has the bytes in the bucket, and its digest is held to the spec's."""
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    fetched = get(f"{bucket}/{NAME}", tmp_path, digest=digest)
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.path.name, fetched.digest, fetched.size) == ("model.onnx", digest, len(CONTENT))


def test_another_digest_is_refused(bucket: str, tmp_path: Path) -> None:
    """A file that is not the promised one does not stay."""
    assert refused(f"{bucket}/{NAME}", tmp_path, digest=f"sha256:{'0' * 64}").reason is Reason.DIGEST_MISMATCH


@pytest.mark.parametrize("path", ["models/none.onnx", "elsewhere/model.onnx"])
def test_an_absent_file_or_bucket_is_bad_input(bucket: str, tmp_path: Path, path: str) -> None:
    """Trying again cannot help."""
    error = refused(f"{bucket.partition('://')[0]}://{path}", tmp_path)
    assert (error.reason, error.exit) == (Reason.MODEL_NOT_FOUND, Exit.BAD_INPUT)


def test_a_folder_is_no_file(bucket: str, tmp_path: Path) -> None:
    """What has files below it is not read."""
    assert refused(f"{bucket}/digits", tmp_path).reason is Reason.MODEL_NOT_FOUND


def test_a_folder_of_hugging_face_arrives_as_from_a_volume(bucket: str, server: Store, tmp_path: Path) -> None:
    """Its digest is that of the same files on a volume, and what is not its model is not read."""
    files = {"config.json": b"{}", "model.safetensors": CONTENT[:5000], "tokenizer.json": b"{}"}
    (tmp_path / "net").mkdir()
    for name, content in files.items():
        server.put(f"net/{name}", content)
        (tmp_path / "net" / name).write_bytes(content)
    fetched = fetch_folder(f"{bucket}/net/", into=tmp_path / "in")
    assert {path.name for path in fetched.path.iterdir()} == {"config.json", "model.safetensors"}
    assert fetched.digest == digest_of_folder(f"file://{tmp_path}/net", scratch=tmp_path / "looked")
    assert digest_of_folder(f"{bucket}/net", scratch=tmp_path / "again") == fetched.digest


def test_a_file_that_is_too_large_is_not_begun(bucket: str, tmp_path: Path) -> None:
    """The size that the server tells is enough."""
    assert refused(f"{bucket}/{NAME}", tmp_path, limit=1 << 20).reason is Reason.MODEL_TOO_LARGE


def test_without_credentials_the_next_step_names_the_secret(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private bucket is asked for as the public does, and says what it needs."""
    assert s3.port
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    error = refused(f"s3://{servers.BUCKET}/{NAME}", tmp_path)
    assert (error.reason, error.exit) == (Reason.MODEL_FORBIDDEN, Exit.BAD_INPUT)
    assert "no credentials" in error.message
    assert "spec.execution.credentials.secretName" in error.next_step
    assert "AWS_ACCESS_KEY_ID" in error.next_step


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_told_from_none(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The Secret is there, and what it holds is wrong; none of it is in the message."""
    monkeypatch.setenv(name, "wrong-value")
    error = refused(f"s3://{servers.BUCKET}/{NAME}", tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert error.next_step.startswith("Correct the Secret")
    assert not any(value in str(error) for value in (s3.environment["AWS_SECRET_ACCESS_KEY"], "wrong-value"))


def test_an_unknown_authority_is_refused(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the authority's certificate no key is shown to the server."""
    assert s3.port
    monkeypatch.delenv("CA_CERTIFICATES")
    error = refused(f"s3://{servers.BUCKET}/{NAME}", tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "CA_CERTIFICATES" in error.next_step


def test_a_key_that_is_none_is_named(gcs_server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret with something else in it is the user's to correct, and is not shown."""
    for name, value in gcs_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOOGLE_CREDENTIALS", '{"type": "other-s3cret"}')
    with pytest.raises(JobError) as caught:
        get(f"gs://{servers.BUCKET}/{NAME}", tmp_path)
    assert caught.value.reason is Reason.MODEL_FORBIDDEN
    assert "GOOGLE_CREDENTIALS" in caught.value.message
    assert "s3cret" not in str(caught.value)


def test_a_server_that_is_gone_is_tried_again(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is no fault of the spec's."""
    assert s3.port
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://localhost:1")
    error = refused(f"s3://{servers.BUCKET}/{NAME}", tmp_path)
    assert (error.reason, error.exit) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)


def test_a_private_server_is_refused_unless_the_installation_allows_it(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever server the Secret names is held to the same rules as that of an https:// URI."""
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Refuse")
    error = _not_opened(f"{bucket}/{NAME}", tmp_path)
    assert (error.reason, error.exit) == (Reason.MODEL_FORBIDDEN, Exit.BAD_INPUT)
    assert "private address" in error.message


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0xa9fea9fe", "100.100.100.200"])
def test_the_machines_own_network_is_refused_always(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Metadata services hand out the machine's credentials, and no server stands there."""
    assert s3.port
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}/latest")
    assert _not_opened(f"s3://{servers.BUCKET}/{NAME}", tmp_path).reason is Reason.MODEL_FORBIDDEN


def test_a_server_that_moves_to_a_private_address_is_refused(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that is connected to is checked, not only the one that the name had before."""
    assert s3.port
    monkeypatch.setattr(remote, "check_endpoint", lambda variable: None)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Refuse")
    error = refused(f"s3://{servers.BUCKET}/{NAME}", tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "private address" in error.message


def _not_opened(uri: str, into: Path) -> JobError:
    with pytest.raises(JobError) as caught:
        get(uri, into)
    assert caught.value.object == uri
    return caught.value


def test_captured_requests_in_a_bucket_are_read(bucket: str, server: Store, shop: Shop, tmp_path: Path) -> None:
    """A window and its labels come from a bucket as they do from a volume, and no copy stays behind."""
    shop.serve(range(10), since=NOW)
    shop.label(range(10))
    for path in shop.root.rglob("*.parquet"):
        server.put(f"shop/{path.relative_to(shop.root)}", path.read_bytes())
    server.put(f"shop/captured/{folder_of(NOW)}/cut.parquet", b"PAR1")
    found = read_window(
        Production(uri=f"{bucket}/shop/captured"),
        shop.signature,
        Selection(start=NOW, end=NOW + HOUR, now=NOW + HOUR),
        max_rows=1000,
        into=tmp_path / "scratch",
        seed=0,
    )
    rows, truth, _ = join(found, Labels(uri=f"{bucket}/shop/labels"), into=tmp_path / "scratch", limit=1000)
    assert found.set_aside == {"files that cannot be read": 1}
    assert len(rows) == len(found) == 10 * REQUEST_ROWS
    assert truth.labels.tolist() == shop.digits[: 10 * REQUEST_ROWS].tolist()
    assert not list((tmp_path / "scratch").rglob("*"))
