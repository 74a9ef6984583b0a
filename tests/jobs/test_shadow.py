"""A shadow: what users have asked is asked again, of a new version and of the champion, and harm is named."""

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.commands.verify.command import run
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.production.writer import CaptureWriter
from retune.api.production import Production
from retune.contract.exits import Exit
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, Shadow, VerifyRequest
from retune.contract.results import Reason, Shadowed
from tests.jobs.test_verify import Reply, model_server, send, serving
from tests.unit.jobs.conftest import Claims

REQUESTS = 200
SLOW_SECONDS = 0.05


@pytest.fixture
def bundle(make: Callable[..., Bundle]) -> Bundle:
    """The new version."""
    return make()


@pytest.fixture
def published(bundle: Bundle, store: str) -> BundleRef:
    """The new version in its store."""
    return publish(bundle, uri=bundles(store))


@pytest.fixture
def captured(bundle: Bundle, splits: dict[str, Rows], claims: Claims) -> Production:
    """Requests of the last minutes, as a server has captured them."""
    folder, session = claims.root / "digits" / "captured", open_session(bundle)
    writer, rows = CaptureWriter(folder, bundle.manifest.signature), splits["test"]
    for start in range(0, len(rows), 2):
        asked = rows.take(slice(start, start + 2)).inputs
        writer.offer(f"user-{start}", bundle.digest, asked, session.run(asked), time.time() - 120)
    writer.close()
    return Production(uri="pvc://digits/captured")


Ask = Callable[..., Shadowed]


@pytest.fixture
def ask(published: BundleRef, captured: Production) -> Ask:
    """Shadow a version: a function from the addresses of its pod and of the champion's, with times left out."""

    def asked(pod: str, champion: str, *, since: float = 3600, **margins: float) -> Shadowed:
        now = int(time.time())
        usual = {"error_margin": 0.01, "slow_margin": 1.0, "confidence": 0.99}
        shadow = Shadow(
            production=captured,
            since=now - int(since),
            until=now,
            requests=REQUESTS,
            champion_endpoints=(champion,),
            **(usual | margins),
        )
        request = VerifyRequest(
            resource="ml/digits", bundle=published, endpoints=(pod,), model_name="digits", shadow=shadow
        )
        result = run(request).shadow
        assert result is not None
        return result

    return asked


def sometimes(every: int, fault: Callable[[BaseHTTPRequestHandler], bool], then: Reply) -> Reply:
    """Return replies that have a fault at one in `every` requests; one that returns False is followed by the answer."""
    count = 0

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        if count % every == 0 and fault(handler):
            return
        then(handler, body)

    return reply


def _errs(handler: BaseHTTPRequestHandler) -> bool:
    send(handler, b'{"error": "out of luck"}', status=500)
    return True


def _dawdles(_: BaseHTTPRequestHandler) -> bool:
    time.sleep(SLOW_SECONDS)
    return False


def failure(ask: Ask, pod: str, champion: str, **options: float) -> JobError:
    """Return why a shadow fails."""
    with pytest.raises(JobError) as caught:
        ask(pod, champion, **options)
    return caught.value


def test_a_version_that_answers_as_its_bundle_does_passes(
    ask: Ask, bundle: Bundle, make: Callable[..., Bundle], delivered: Path
) -> None:
    """Every request is asked of both; how often they agree is told. A champion that answers otherwise is no fault."""
    other = make("other", model=delivered / "conv.onnx")
    with serving(model_server(bundle)) as pod, serving(model_server(other)) as champion:
        shown = ask(pod, champion)
    assert (shown.requests, shown.failed, shown.wrong) == (REQUESTS, 0, 0)
    assert float(shown.p95_ms) > 0
    assert float(shown.champion_p95_ms) > 0
    with serving(model_server(bundle)) as pod, serving(model_server(bundle)) as champion:
        assert float(ask(pod, champion).agreement or 0) == 1.0


def test_a_version_that_errs_at_one_in_ten_is_found_before_all_were_asked(ask: Ask, bundle: Bundle) -> None:
    """The champion answers the same requests; the sentence counts both and names the margin."""
    asked: list[object] = []

    def counted(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body)
        model_server_of(handler, body)

    model_server_of = sometimes(10, _errs, model_server(bundle))
    with serving(counted) as pod, serving(model_server(bundle)) as champion:
        error = failure(ask, pod, champion)
    assert (error.reason, error.exit) == (Reason.SHADOW_ERRORS, Exit.INFEASIBLE)
    assert "captured requests that the champion answered, they failed" in error.message
    assert "analysis.errorMargin allows 0.01" in error.message
    assert len(asked) < REQUESTS


def test_a_server_that_answers_as_another_model_is_found(
    ask: Ask, bundle: Bundle, make: Callable[..., Bundle], delivered: Path
) -> None:
    """Its answers are held against those that the bundle itself gives to what users have asked."""
    other = make("other", model=delivered / "conv.onnx")
    with serving(model_server(other)) as pod, serving(model_server(bundle)) as champion:
        error = failure(ask, pod, champion)
    assert error.reason is Reason.SHADOW_ERRORS
    assert "otherwise than its bundle does (output 'scores'" in error.message


def test_a_version_that_is_slow_at_one_in_three_is_found(ask: Ask, bundle: Bundle) -> None:
    """Beside the champion, on the same requests in turns."""
    with serving(sometimes(3, _dawdles, model_server(bundle))) as pod, serving(model_server(bundle)) as champion:
        error = failure(ask, pod, champion, slow_margin=0.1)
    assert (error.reason, error.exit) == (Reason.SHADOW_SLOW, Exit.INFEASIBLE)
    assert "took longer than 95 % of the champion's" in error.message


def test_what_the_champion_cannot_answer_either_proves_nothing(ask: Ask, bundle: Bundle) -> None:
    """Requests that both fail at are no fault of the version; without any other there is nothing to say."""
    with serving(sometimes(1, _errs, model_server(bundle))) as down:
        error = failure(ask, down, down)
    assert error.reason is Reason.SHADOW_LACKING
    assert f"answered 0 requests of {REQUESTS} captured rows" in error.message


def test_too_few_captured_requests_say_nothing(ask: Ask, bundle: Bundle) -> None:
    """The folder is named, and what to do."""
    with serving(model_server(bundle)) as pod, serving(model_server(bundle)) as champion:
        error = failure(ask, pod, champion, since=10)
    assert (error.reason, error.object) == (Reason.SHADOW_LACKING, "pvc://digits/captured")
    assert "See that requests are captured" in error.next_step
