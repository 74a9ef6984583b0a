"""The servers of the tests, one of each kind for all of them."""

from collections.abc import Callable, Iterator

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


@pytest.fixture(scope="session")
def az_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Microsoft's emulator of Azure Blob Storage."""
    script = servers.azurite()
    if script is None:
        pytest.skip("Azurite is not installed: make test-neighbours-azure")
    pytest.importorskip("azure.storage.blob")
    with servers.azure(tmp_path_factory.mktemp("az"), script) as store:
        yield store


@pytest.fixture
def server_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Store]:
    """Return the server of a scheme, as a Job meets it whose Secret is right; one that is not asked for is not started.

    Certificates of the servers' authorities are trusted together, so that one test may use several servers.
    """
    trusted: list[str] = []

    def of(scheme: str) -> Store:
        server: Store = request.getfixturevalue({"s3": "s3_server", "gs": "gcs_server", "az": "az_server"}[scheme])
        variables = dict(server.environment)
        trusted.append(variables.pop("CA_CERTIFICATES", ""))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CA_CERTIFICATES", "\n".join(filter(None, trusted)))
        return server

    return of


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


@pytest.fixture(params=["s3", "gs", "az"])
def bucket(request: pytest.FixtureRequest, server_of: Callable[[str], Store]) -> str:
    """URI of a bucket on each server."""
    server_of(request.param)
    return f"{request.param}://{servers.BUCKET}"


@pytest.fixture
def between(
    request: pytest.FixtureRequest, server_of: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    """A proxy between Job and server: that of the test's parameter `scheme` or `bucket`, else S3's."""
    parameters = getattr(request.node, "callspec", None)
    chosen = {} if parameters is None else parameters.params
    server = server_of(chosen.get("scheme") or chosen.get("bucket") or "s3")
    with proxy.before(server.port, pki=server.pki) as made:
        for name, value in server.at(made.port).items():
            monkeypatch.setenv(name, value)
        yield made
