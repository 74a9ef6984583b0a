"""The asynchronous face of a transport: what its answers and its failures become."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import urllib3
from kubernetes import client as official

from retune.cluster.client import PAGE, Client, Request, Response, official_transport
from retune.cluster.errors import NotFound, Transient
from retune.cluster.kinds import JOBS, MODEL_OPTIMIZATIONS, PODS

GET = Request("GET", JOBS.path("ml", "a"))


@contextmanager
def a_client(send: Callable[[Request], Response], counted: list[tuple[str, str]] | None = None) -> Iterator[Client]:
    """A client over a transport."""
    client = Client(
        send, threads=1, count=lambda verb, code: (counted if counted is not None else []).append((verb, code))
    )
    try:
        yield client
    finally:
        client.close()


async def test_json_comes_back_parsed_and_counted() -> None:
    """Verb and code are what the metrics show."""
    counted: list[tuple[str, str]] = []
    with a_client(lambda _: Response(200, b'{"kind":"Job"}'), counted) as client:
        assert await client.call(GET) == {"kind": "Job"}
    assert counted == [("GET", "200")]


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(), TimeoutError(), urllib3.exceptions.ReadTimeoutError(None, "/", "slow")],  # type: ignore[arg-type]
)
async def test_no_answer_is_trouble_that_passes(error: Exception) -> None:
    """It says nothing of the request, and it is counted as an error."""
    counted: list[tuple[str, str]] = []

    def fail(_: Request) -> Response:
        raise error

    with a_client(fail, counted) as client, pytest.raises(Transient, match="GET /apis/batch/v1/namespaces/ml/jobs/a"):
        await client.call(GET)
    assert counted == [("GET", "error")]


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[str]:
    """The address of a TLS server whose certificate nobody has vouched for."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=stranger", "-days", "1"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=greet)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_server_that_cannot_be_trusted_gives_no_answer(stranger: str) -> None:
    """A wrong certificate is one of the failures that every caller handles, in one line, and nothing is sent."""
    found = official.Configuration(host=stranger, retries=False)
    with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED") as error:
        official_transport(found, threads=1)(GET)
    assert "\n" not in str(error.value)


async def test_retry_after_reaches_the_queue() -> None:
    """A server that asks for time gets it; a date in the header is not guessed at."""
    for value, seconds in (("7", 7.0), ("Wed, 25 Nov 2026 12:00:00 GMT", None)):
        answer = Response(429, b"{}", {"Retry-After": value})
        with a_client(lambda _, answer=answer: answer) as client, pytest.raises(Transient) as error:  # type: ignore[misc]
            await client.call(GET)
        assert error.value.retry_after == seconds


async def test_an_answer_that_is_no_json_is_quoted() -> None:
    """A proxy's page in the way is shown as it is."""
    page = Response(404, b"<html>no such page</html>")
    with a_client(lambda _: page) as client, pytest.raises(NotFound, match="no such page"):
        await client.call(GET)


async def test_collections_are_read_page_by_page_with_the_kinds_own_selector() -> None:
    """Foreign Jobs are never asked for, and no answer is without bound."""
    pages = {None: b'{"items":[1],"metadata":{"continue":"t"}}', "t": b'{"items":[2],"metadata":{}}'}
    asked: list[Request] = []

    def send(request: Request) -> Response:
        asked.append(Request(request.method, request.path, dict(request.query)))
        return Response(200, pages[request.query.get("continue")])

    with a_client(send) as client:
        found = [page["items"] async for page in client.pages(JOBS, "ml")]
    assert found == [[1], [2]]
    assert all(each.query["labelSelector"] == "app.kubernetes.io/managed-by=retune" for each in asked)
    assert all(each.query["limit"] == str(PAGE) for each in asked)


def test_paths_are_those_of_the_api() -> None:
    """Core and named groups, collections, objects, subresources."""
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("ml", "p") == "/api/v1/namespaces/ml/pods/p"
    expected = "/apis/retune.dev/v1alpha1/namespaces/ml/modeloptimizations/a/status"
    assert MODEL_OPTIMIZATIONS.path("ml", "a", subresource="status") == expected
    assert JOBS.path("ml") == "/apis/batch/v1/namespaces/ml/jobs"
