"""The verify Job: every pod answers as recorded, or the answer that does not is named."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.commands.verify.asking import ANSWER_LIMIT_BYTES, Patience
from optimizer_jobs.commands.verify.command import run
from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.models.version_numbers import number_of
from retune.contract.exits import Exit
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, VerifyRequest
from retune.contract.results import Reason
from tests.unit.jobs.http_for_tests import served

SHORT = Patience(call_seconds=2.0, total_seconds=1.0)

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@contextmanager
def serving(reply: Reply) -> Iterator[str]:
    """Serve over HTTP, each request answered by `reply`; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply(self, body)

        def log_message(self, *_: object) -> None:
            """Keep test output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with served(server):
        yield f"http://127.0.0.1:{server.server_port}"


def send(handler: BaseHTTPRequestHandler, payload: bytes, *, status: int = 200, **headers: str) -> None:
    """Send one answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


def model_server(bundle: Bundle, **extra: object) -> Reply:
    """Return replies of a real model: the bundle's session, asked by the protocol."""
    session = open_session(bundle)

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path != "/v2/models/digits/infer":
            send(handler, b'{"error": "no such model"}', status=404)
            return
        given = {item["name"]: np.array(item["data"], np.float32).reshape(item["shape"]) for item in body["inputs"]}
        outputs = [
            {"name": name, "shape": values.shape, "datatype": "FP32", "data": values.ravel().tolist()}
            for name, values in session.run(given).items()
        ]
        send(handler, json.dumps({"model_name": "digits", "outputs": outputs, **extra}).encode())

    return reply


@pytest.fixture
def reference(make: Callable[..., Bundle], store: str) -> BundleRef:
    """A published bundle."""
    return publish(make(), uri=bundles(store))


def ask(
    reference: BundleRef, *endpoints: str, model: str = "digits", champion: BundleRef | None = None
) -> VerifyRequest:
    """Return a verify request."""
    return VerifyRequest(
        resource="ml/digits", bundle=reference, champion=champion, endpoints=endpoints, model_name=model
    )


def failure(request: VerifyRequest) -> JobError:
    """Run a request that must fail, and return why."""
    with pytest.raises(JobError) as caught:
        run(request, patience=SHORT)
    return caught.value


def test_servers_of_the_bundle_pass(reference: BundleRef, make: Callable[..., Bundle]) -> None:
    """Every pod is asked every golden request."""
    bundle = make("served")
    with serving(model_server(bundle)) as one, serving(model_server(bundle)) as two:
        result = run(ask(reference, one, f"{two}/"))
    assert (result.pods, result.requests, result.bundle_digest) == (2, 8, reference.digest)


def test_one_server_of_another_model_is_named(
    reference: BundleRef, make: Callable[..., Bundle], delivered: Any
) -> None:
    """A pod that still serves the old model is found among good ones, and its wrong value is in the sentence."""
    other = make("other", model=delivered / "conv.onnx")
    with serving(model_server(make("served"))) as good, serving(model_server(other)) as bad:
        error = failure(ask(reference, good, bad))
    assert (error.reason, error.exit) == (Reason.GOLDEN_MISMATCH, Exit.INFEASIBLE)
    assert error.object == f"{bad} model digits"
    assert "output 'scores'" in error.message


def test_a_server_that_names_another_bundle_is_refused(reference: BundleRef, make: Callable[..., Bundle]) -> None:
    """Where a server says which bundle it runs, equal numbers are not enough, and the version is not to blame."""
    with serving(model_server(make("served"), parameters={"bundle_digest": "sha256:old"})) as endpoint:
        error = failure(ask(reference, endpoint))
    assert (error.reason, error.exit) == (Reason.VARIABLE_IGNORED, Exit.INFEASIBLE)
    assert "sha256:old" in error.message
    with serving(model_server(make("again"), parameters={"bundle_digest": reference.digest})) as endpoint:
        assert run(ask(reference, endpoint)).shown_by == "Digest"


def test_a_server_with_numbers_for_versions_names_the_bundle(reference: BundleRef, make: Callable[..., Bundle]) -> None:
    """Triton and OpenVINO Model Server: the number is the digest's, that of another bundle, or says nothing."""
    number = number_of(reference.digest)
    served = make("served")
    for version, shown in ((str(number), "Digest"), (number, "Digest"), ("1", None), ("", None), (None, None)):
        with serving(model_server(served, model_version=version)) as endpoint:
            assert run(ask(reference, endpoint)).shown_by == shown
    with serving(model_server(served, model_version=str(number ^ 1))) as endpoint:
        error = failure(ask(reference, endpoint))
    assert (error.reason, error.exit) == (Reason.VARIABLE_IGNORED, Exit.INFEASIBLE)
    assert f"serves version {number ^ 1}, which is bundle {f'{number ^ 1:x}'[1:]}..." in error.message


def test_a_digest_counts_for_more_than_a_number(reference: BundleRef, make: Callable[..., Bundle]) -> None:
    """A server on Retune's runtime may have numbers of its own, which a digest leaves nothing to."""
    named = {"parameters": {"bundle_digest": reference.digest}, "model_version": str(number_of(reference.digest) ^ 1)}
    with serving(model_server(make("served"), **named)) as endpoint:
        assert run(ask(reference, endpoint)).shown_by == "Digest"


def test_what_the_version_before_answers_too_shows_nothing(
    reference: BundleRef, make: Callable[..., Bundle], delivered: Any, store: str
) -> None:
    """A right answer shows the version only where the one before is known to answer otherwise."""
    other = publish(make("other", model=delivered / "conv.onnx"), uri=bundles(store))
    with serving(model_server(make("served"))) as endpoint:
        assert run(ask(reference, endpoint)).shown_by is None
        assert run(ask(reference, endpoint, champion=reference)).shown_by is None
        assert run(ask(reference, endpoint, champion=other)).shown_by == "Answers"


def test_a_server_that_ignores_the_variable_is_told_from_a_wrong_version(
    reference: BundleRef, make: Callable[..., Bundle], delivered: Any, store: str
) -> None:
    """It answers as the version before does, which the new one has no part in."""
    other = make("other", model=delivered / "conv.onnx")
    before = publish(make("before", model=delivered / "conv.onnx"), uri=bundles(store))
    with serving(model_server(other)) as endpoint:
        assert failure(ask(reference, endpoint, champion=before)).reason is Reason.VARIABLE_IGNORED
        assert failure(ask(reference, endpoint)).reason is Reason.GOLDEN_MISMATCH


def test_a_version_before_whose_bundle_is_lost_is_no_obstacle(
    reference: BundleRef, make: Callable[..., Bundle]
) -> None:
    """It is compared with where it can be."""
    lost = reference.model_copy(update={"uri": f"{reference.uri[:-1]}0"})
    with serving(model_server(make("served"))) as endpoint:
        result = run(ask(reference, endpoint, champion=lost))
    assert (result.pods, result.shown_by) == (1, None)


def test_a_server_that_is_not_there_is_unreachable(reference: BundleRef) -> None:
    """A closed port is ServerUnreachable, which the Job's policy may retry."""
    with serving(lambda *_: None) as endpoint:
        pass
    error = failure(ask(reference, endpoint))
    assert (error.reason, error.exit, error.object) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT, endpoint)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_server_that_is_not_ready_is_waited_for(
    reference: BundleRef, make: Callable[..., Bundle], status: int
) -> None:
    """A server that is still loading gets patience; its first real answer counts."""
    ready = model_server(make("served"))
    refusals: list[int] = []

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if len(refusals) < 2:
            refusals.append(status)
            send(handler, b"loading", status=status)
        else:
            ready(handler, body)

    with serving(reply) as endpoint:
        assert run(ask(reference, endpoint)).pods == 1
    assert len(refusals) == 2


def test_a_model_that_never_appears_is_unreachable(reference: BundleRef, make: Callable[..., Bundle]) -> None:
    """A wrong model name is said with the server's status."""
    with serving(model_server(make("served"))) as endpoint:
        error = failure(ask(reference, endpoint, model="letters"))
    assert error.reason is Reason.SERVER_UNREACHABLE
    assert "404" in error.message


@pytest.mark.parametrize(
    ("payload", "status"),
    [(b"<html>hello</html>", 200), (b"[1, 2]", 200), (b"[" * 100_000, 200), (b'{"error": "bad"}', 400), (b"", 302)],
)
def test_what_is_no_answer_of_the_protocol_is_refused(reference: BundleRef, payload: bytes, status: int) -> None:
    """Other content, errors and redirects are no answers, and a redirect is not followed."""
    with serving(lambda handler, _: send(handler, payload, status=status, Location="http://127.0.0.1:1/")) as endpoint:
        error = failure(ask(reference, endpoint))
    assert error.reason is Reason.PROTOCOL_MISMATCH
    assert str(status) in error.message


def test_an_endless_answer_is_cut_off(reference: BundleRef) -> None:
    """A server that sends more than any answer needs does not fill the Job's memory."""

    def flood(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _part in range(2 * ANSWER_LIMIT_BYTES >> 20):
                handler.wfile.write(bytes(1 << 20))
        except OSError:
            return

    with serving(flood) as endpoint:
        error = failure(ask(reference, endpoint))
    assert error.reason is Reason.SERVER_UNREACHABLE
    assert "longer than" in error.message


def test_a_dripping_answer_is_cut_off(reference: BundleRef) -> None:
    """A server that sends a byte now and then, each in time, does not hold the Job for ever."""
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not stop.wait(0.05):
                handler.wfile.write(b" ")
        except OSError:
            return

    began = time.monotonic()
    with serving(drip) as endpoint:
        error = failure(ask(reference, endpoint))
        stop.set()
    assert error.reason is Reason.SERVER_UNREACHABLE
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "endpoint", ["ftp://127.0.0.1", "127.0.0.1:8080", "http://", "http://[", "http://a:99999", "file:///etc/passwd"]
)
def test_an_endpoint_that_is_no_http_address_is_refused(reference: BundleRef, endpoint: str) -> None:
    """Only HTTP and HTTPS addresses are asked."""
    assert failure(ask(reference, endpoint)).reason is Reason.REQUEST_INVALID


def test_nothing_to_ask_is_no_success(reference: BundleRef) -> None:
    """A rollout without pods has not been verified."""
    assert failure(ask(reference)).reason is Reason.REQUEST_INVALID


def test_a_bundle_that_is_only_looked_at_needs_no_server(reference: BundleRef) -> None:
    """It is there and whole, which says nothing of any pod."""
    result = run(ask(reference).model_copy(update={"bundle_alone": True}))
    assert (result.pods, result.requests, result.shown_by) == (0, 0, None)


def test_a_bundle_that_is_only_looked_at_and_is_gone_is_missed(reference: BundleRef) -> None:
    """The reason is the one by which a rollback is given up."""
    gone = BundleRef(uri=reference.uri[:-4] + "beef", digest=reference.digest[:-4] + "beef")
    assert failure(ask(gone).model_copy(update={"bundle_alone": True})).reason is Reason.BUNDLE_NOT_FOUND
