"""The servers of the tests, one of each kind for all of them."""

from collections.abc import Iterator

import pytest

from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.storage import proxy, servers
from tests.storage.proxy import Proxy
from tests.storage.servers import Store


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A server of S3's protocol."""
    with servers.s3(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A server of Google's protocol."""
    with servers.gcs(tmp_path_factory.mktemp("gcs")) as store:
        yield store


@pytest.fixture(autouse=True)
def _private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are this machine's, which an installation has to allow."""
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")


@pytest.fixture
def s3(s3_server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The S3 server as a Job meets it whose Secret is right."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, s3: Store, gcs_server: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a bucket on each server."""
    assert s3.port != gcs_server.port
    for name, value in gcs_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{request.param}://{servers.BUCKET}"


@pytest.fixture
def between(s3: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between Job and S3 server."""
    with proxy.before(s3.port, pki=s3.pki) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{made.port}")
        yield made
