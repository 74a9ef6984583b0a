"""A file on a web server arrives as one on a volume does, and no server leads a Job anywhere else."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimizer_jobs.data.addresses import RefusedError, check_address, check_endpoint
from optimizer_jobs.data.fetch import Fetched, fetch
from optimizer_jobs.data.hugging_face import fetch_folder
from optimizer_jobs.errors import RETRY_EXIT, JobError
from retune.contract.exits import Exit
from retune.contract.paths import CREDENTIALS_VARIABLE, PRIVATE_ADDRESSES_VARIABLE, PROXIES_VARIABLE
from retune.contract.results import Reason
from tests.unit.jobs.web_for_tests import Site, serving

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server, with one file."""
    with serving(tmp_path_factory.mktemp("web")) as site:
        site.files["/models/model.onnx"] = os.urandom(300_000)
        yield site


@pytest.fixture
def site(server: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The server as a Job meets it whose Secret names the server's authority, where private addresses are allowed."""
    monkeypatch.setenv("CA_CERTIFICATES", server.authority)
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    server.asked.clear()
    return server


def get(uri: str, into: Path, *, limit_seconds: float = 60.0) -> Fetched:
    """Fetch a model."""
    return fetch(uri, limit_bytes=LIMIT, into=into / "in", what="Model", limit_seconds=limit_seconds)


def refused(uri: str, into: Path, *, limit_seconds: float = 60.0) -> JobError:
    """Fetch what must be refused, and return why; nothing may stay behind."""
    with pytest.raises(JobError) as caught:
        get(uri, into, limit_seconds=limit_seconds)
    assert not list(into.rglob("*.onnx"))
    assert caught.value.object == uri
    return caught.value


def test_a_file_arrives_whole(site: Site, tmp_path: Path) -> None:
    """The copy has the server's bytes, under the name in the URI."""
    fetched = get(site.uri("/models/model.onnx"), tmp_path)
    assert fetched.path.read_bytes() == site.files["/models/model.onnx"]
    assert fetched.path.name == "model.onnx"


def test_a_folder_arrives_file_by_file(site: Site, tmp_path: Path) -> None:
    """No list of a folder is needed: its own files name the others, and what is absent is asked for and left out."""
    files = {"config.json": b"{}", "model-1.safetensors": os.urandom(3000)}
    index = b'{"weight_map": {"a": "model-1.safetensors"}}'
    files |= {"model.safetensors.index.json": index, "tokenizer.json": b"{}"}
    site.files.update({f"/models/net/{name}": content for name, content in files.items()})
    fetched = fetch_folder(site.uri("/models/net/"), into=tmp_path / "in")
    copied = {path.name: path.read_bytes() for path in fetched.path.iterdir()}
    assert copied == {name: content for name, content in files.items() if name != "tokenizer.json"}
    with pytest.raises(JobError, match=r"there is no folder with config\.json there") as caught:
        fetch_folder(site.uri("/models/none"), into=tmp_path / "none")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_redirect_on_the_same_host_is_followed(site: Site, tmp_path: Path) -> None:
    """A server may move its own files about."""
    site.redirects["/latest/model.onnx"] = "/models/model.onnx"
    assert get(site.uri("/latest/model.onnx"), tmp_path).size == 300_000


@pytest.mark.parametrize(
    "target",
    [
        "https://169.254.169.254/latest/meta-data",
        "http://localhost/model.onnx",
        "https://localhost:1/model.onnx",
        "https://example.org/model.onnx",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_elsewhere_is_refused(site: Site, tmp_path: Path, target: str) -> None:
    """Another host, port or scheme is never asked."""
    site.redirects["/moved/model.onnx"] = target
    error = refused(site.uri("/moved/model.onnx"), tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "redirect" in error.message


def test_a_redirect_without_end_is_no_endless_loop(site: Site, tmp_path: Path) -> None:
    """The number of redirects is bounded."""
    site.redirects["/loop/model.onnx"] = "/loop/model.onnx"
    assert refused(site.uri("/loop/model.onnx"), tmp_path).reason is Reason.SOURCE_UNREACHABLE
    assert len(site.asked) < 50


def test_an_absent_file_is_named(site: Site, tmp_path: Path) -> None:
    """Status 404 is bad input: trying again cannot help."""
    error = refused(site.uri("/models/none.onnx"), tmp_path)
    assert (error.reason, error.exit) == (Reason.MODEL_NOT_FOUND, Exit.BAD_INPUT)


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_not_public_asks_for_a_secret(site: Site, tmp_path: Path, status: int) -> None:
    """The next step names the field and the keys."""
    site.statuses["/private/model.onnx"] = status
    error = refused(site.uri("/private/model.onnx"), tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "spec.execution.credentials.secretName" in error.next_step
    assert "HTTPS_TOKEN" in error.next_step


def test_a_token_goes_to_its_host_only(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token for one host is not shown to another."""
    monkeypatch.setenv("HTTPS_TOKEN", "s3cret")
    monkeypatch.setenv("HTTPS_HOST", "models.example.org")
    get(site.uri("/models/model.onnx"), tmp_path)
    assert not any("Authorization" in headers for _, _, headers in site.asked)
    monkeypatch.setenv("HTTPS_HOST", f"localhost:{site.port}")
    get(site.uri("/models/model.onnx"), tmp_path)
    assert site.asked[-1][2]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("scheme", ["s3", "gs", "https"])
def test_a_missing_secret_is_named_before_any_server_is_asked(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is the Secret; a host that cannot be resolved or a file that is not public is only what follows."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_REGION", "CA_CERTIFICATES", "HTTPS_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv(CREDENTIALS_VARIABLE, "bucket-keys")
    error = refused(f"{scheme}://models.invalid/digits/model.onnx", tmp_path)
    assert (error.reason, error.exit) == (Reason.MODEL_FORBIDDEN, Exit.BAD_INPUT)
    assert "Secret bucket-keys does not exist" in error.message
    assert "Create" in error.next_step


def test_a_secret_with_one_key_is_there(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is public needs no more than its authority's certificate."""
    monkeypatch.setenv(CREDENTIALS_VARIABLE, "bucket-keys")
    assert get(site.uri("/models/model.onnx"), tmp_path).size == 300_000


def test_a_broken_server_is_tried_again(site: Site, tmp_path: Path) -> None:
    """Status 500 may pass by itself, so the exit code lets the Job try again."""
    site.statuses["/broken/model.onnx"] = 500
    error = refused(site.uri("/broken/model.onnx"), tmp_path)
    assert (error.reason, error.exit) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)
    assert "500" in error.message


def test_a_server_that_is_not_there_is_tried_again(site: Site, tmp_path: Path) -> None:
    """A refused connection is no fault of the spec's."""
    assert site.authority
    error = refused("https://localhost:1/model.onnx", tmp_path)
    assert (error.reason, error.exit) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)


def test_a_stream_without_end_is_cut(site: Site, tmp_path: Path) -> None:
    """A server that promises no size and never stops is cut at the limit."""
    site.endless.add("/endless/model.onnx")
    assert refused(site.uri("/endless/model.onnx"), tmp_path).reason is Reason.MODEL_TOO_LARGE


def test_a_stream_that_drips_is_given_up(site: Site, tmp_path: Path) -> None:
    """One byte now and then keeps no Job waiting beyond its time."""
    site.stalling.add("/slow/model.onnx")
    error = refused(site.uri("/slow/model.onnx"), tmp_path, limit_seconds=0.2)
    assert (error.reason, error.exit) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)
    assert "0.2 s" in error.message


def test_a_file_that_is_said_to_be_too_large_is_not_begun(site: Site, tmp_path: Path) -> None:
    """The size in the header is enough to refuse it."""
    site.files["/large/model.onnx"] = bytes(LIMIT + 1)
    assert refused(site.uri("/large/model.onnx"), tmp_path).reason is Reason.MODEL_TOO_LARGE
    assert [method for method, _, _ in site.asked] == ["HEAD"]


def test_an_unknown_authority_is_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the authority's certificate nothing is read, and the next step says where to put it."""
    monkeypatch.delenv("CA_CERTIFICATES")
    error = refused(site.uri("/models/model.onnx"), tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "CA_CERTIFICATES" in error.next_step
    assert not site.asked


def test_an_authority_that_is_no_certificate_is_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret with something else in it is the user's to correct."""
    monkeypatch.setenv("CA_CERTIFICATES", "none")
    assert "CA_CERTIFICATES" in refused(site.uri("/models/model.onnx"), tmp_path).message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "10.0.0.1", "192.168.0.1", "100.64.0.1"])
def test_private_addresses_are_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A name is judged by the address that it leads to."""
    monkeypatch.delenv(PRIVATE_ADDRESSES_VARIABLE)
    error = refused(f"https://{host}:{site.port}/models/model.onnx", tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "private" in error.message
    assert not site.asked


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "127.0.0.0x1", "0177.0.0.1"])
def test_an_address_in_disguise_is_refused(site: Site, tmp_path: Path, host: str) -> None:
    """Numbers that some libraries read as an address are neither a name nor an address here."""
    error = refused(f"https://{host}:{site.port}/models/model.onnx", tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert not site.asked


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16", "224.0.0.1"])
def test_the_machines_own_addresses_are_always_refused(site: Site, tmp_path: Path, host: str) -> None:
    """What tells a machine who it is never tells a Job, whatever is allowed."""
    assert site.authority
    error = refused(f"https://{host}/latest.onnx", tmp_path)
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "machine" in error.message


@pytest.mark.parametrize(
    "address", ["::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1", "fd00:ec2::254"]
)
def test_no_form_of_ipv6_hides_an_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """An address inside another is found."""
    monkeypatch.delenv(PRIVATE_ADDRESSES_VARIABLE, raising=False)
    with pytest.raises(RefusedError):
        check_address(address, name="name.example.org")


def test_a_public_address_is_fine() -> None:
    """The rule refuses only what it says."""
    check_address("93.184.216.34", name="example.org")
    check_address("2606:2800:220:1:248:1893:25c8:1946", name="example.org")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "169.254.169.254",
        "https://[fd00:ec2::254]:443",
        "https://0xa9fea9fe",
        "https://127.0.0.1:9000",
        "https://localhost:9000",
        "https://[::1",
        "https://",
        f"https://{'a' * 300}.example",
        "https://a..b",
    ],
)
def test_a_server_that_an_environment_names_is_held_to_the_same_rules(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses and names alike; what names no server is refused in words too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(RefusedError):
        check_endpoint("AWS_ENDPOINT_URL")


def test_a_private_server_is_taken_where_the_installation_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage inside the cluster is the usual case; a variable that is not set names none."""
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://localhost:9000")
    check_endpoint("AWS_ENDPOINT_URL")
    check_endpoint("AWS_ENDPOINT_URL_S3")


@pytest.mark.parametrize("trusted", [True, False])
def test_only_the_administrators_proxy_may_be_private(monkeypatch: pytest.MonkeyPatch, *, trusted: bool) -> None:
    """One in a user's Secret would lead around the rules."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal:3128")
    monkeypatch.setenv(PROXIES_VARIABLE, "Trust" if trusted else "Ignore")
    if trusted:
        check_address("10.0.0.7", name="proxy.internal")
    for name in ["elsewhere.internal", *([] if trusted else ["proxy.internal"])]:
        with pytest.raises(RefusedError):
            check_address("10.0.0.7", name=name)
    with pytest.raises(RefusedError):
        check_address("169.254.169.254", name="proxy.internal")
