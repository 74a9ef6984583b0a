"""The proxy lets everything through as it is, captures what is an inference, and costs no request whatever happens."""

import asyncio
import gzip
import io
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY
from yarl import URL

from optimizer_jobs.models.golden import GOLDEN_ID
from optimizer_jobs.production import calls, proxy
from optimizer_jobs.production.calls import Call, Capture, Named
from optimizer_jobs.production.protocol import BODY_BYTES
from optimizer_jobs.production.proxy import Proxy, application, with_metrics
from optimizer_jobs.production.windows import Captured, Selection, read_window
from optimizer_jobs.production.writer import CaptureWriter
from retune.api.production import Production
from tests.unit.jobs.captured_for_tests import DIGEST, Shop
from tools.localcluster.controlplane import free_ports

INFER = "/v2/models/digits/infer"
SERVED = "sha256:" + "cd" * 32


def count(outcome: str) -> float:
    """Return how many calls ended so."""
    return REGISTRY.get_sample_value("retune_proxy_calls_total", {"outcome": outcome}) or 0.0


class Upstream:
    """A model server that remembers what it was asked."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.first = asyncio.Event()
        self.config: Any = {}

    def app(self) -> web.Application:
        """Return the server."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/v2/models/digits/config", self.described)
        app.router.add_get("/broken", self.broken)
        app.router.add_get("/slowly", self.slowly)
        app.router.add_route("*", "/{path:.*}", self.answered)
        return app

    async def described(self, _request: web.Request) -> web.Response:
        """Say what Triton says of a model."""
        return web.json_response(self.config)

    async def broken(self, request: web.Request) -> web.StreamResponse:
        """Begin an answer, and end it too early."""
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    async def slowly(self, request: web.Request) -> web.StreamResponse:
        """Answer in two parts; the second is sent once the first was received."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await self.first.wait()
        await response.write(b"second")
        return response

    async def answered(self, request: web.Request) -> web.Response:
        """Answer an inference, and everything else with its length."""
        body = await request.read()
        self.seen.append((request.method, request.raw_path, dict(request.headers), body))
        if not request.path.endswith("/infer"):
            return web.Response(status=207, text=str(len(body)), headers={"X-Server": "mine", "Set-Cookie": "a=b"})
        plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        asked = json.loads(plain)["inputs"][0]
        pixels = np.asarray(asked["data"], np.float32).reshape(asked["shape"])
        scores = self.shop.session.run({"x": pixels})["scores"]
        data = {"name": "scores", "shape": list(scores.shape), "datatype": "FP32", "data": scores.ravel().tolist()}
        return web.json_response({"outputs": [data]})


def question(shop: Shop, number: int, **more: Any) -> bytes:
    """A request for four digits."""
    pixels = shop.pixels[shop.places(number)]
    tensor = {"name": "x", "shape": [4, 64], "datatype": "FP32", "data": pixels.ravel().tolist()}
    return json.dumps({"inputs": [tensor], **more}).encode()


class Pair:
    """The proxy before the server."""

    def __init__(self, upstream: Upstream, address: str, capture: Capture) -> None:
        self.upstream, self.address, self.capture = upstream, address, capture

    async def post(self, body: bytes, path: str = INFER, **headers: str) -> tuple[int, bytes]:
        """Ask through the proxy."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as client,
            client.post(f"{self.address}{path}", data=io.BytesIO(body), headers=named) as answer,
        ):
            return answer.status, await answer.read()


@asynccontextmanager
async def running(shop: Shop, *, only: str | None = None) -> AsyncIterator[Pair]:
    """Run both; all is written when they end."""
    upstream = Upstream(shop)
    behind = TestServer(upstream.app())
    await behind.start_server(auto_decompress=False)
    address = str(behind.make_url("")).rstrip("/")
    capture = Capture(shop.signature, CaptureWriter(shop.captured, shop.signature), DIGEST, Named(address))
    front = TestServer(application(Proxy(address, capture, only)))
    await front.start_server(auto_decompress=False)
    try:
        yield Pair(upstream, str(front.make_url("")).rstrip("/"), capture)
    finally:
        await front.close()
        await behind.close()


def found(shop: Shop, into: Path) -> Captured:
    """Return all that was captured in the last hour."""
    now = int(time.time()) + 5
    wanted = Selection(start=now - 3600, end=now, now=now)
    return read_window(Production(uri="pvc://shop/captured"), shop.signature, wanted, max_rows=1000, into=into, seed=0)


async def test_what_is_no_inference_passes_as_it_is(shop: Shop, tmp_path: Path) -> None:
    """Method, path, query, headers, body and status, both ways; nothing is captured."""
    async with running(shop) as pair, aiohttp.ClientSession() as client:
        url = f"{pair.address}/v2/models/a%2Fb/other?x=%20y&z"
        async with client.put(URL(url, encoded=True), data=b"body", headers={"X-Mine": "1"}) as answer:
            assert (answer.status, await answer.text(), answer.headers["X-Server"]) == (207, "4", "mine")
        method, path, headers, body = pair.upstream.seen[0]
        assert (method, path, body) == ("PUT", "/v2/models/a%2Fb/other?x=%20y&z", b"body")
        assert (headers["X-Mine"], headers["Content-Length"]) == ("1", "4")
        assert headers["Host"] == pair.address.removeprefix("http://")
    assert len(found(shop, tmp_path)) == 0


@pytest.mark.parametrize("packed", [False, True])
async def test_an_inference_is_captured(shop: Shop, tmp_path: Path, *, packed: bool) -> None:
    """Packed by gzip or not; the id is the body's, else the header's, else one of our own."""
    async with running(shop) as pair:
        for number, more in enumerate(({"id": "mine"}, {}, {})):
            plain = question(shop, number, **more)
            body = gzip.compress(plain) if packed else plain
            headers = {"X_Request_Id": f"h{number}"} if number < 2 else {}
            headers |= {"Content_Encoding": "gzip"} if packed else {}
            status, _ = await pair.post(body, **headers)
            assert status == 200
            assert pair.upstream.seen[-1][3] == body
    captured = found(shop, tmp_path)
    ids = list(dict.fromkeys(captured.request_ids))
    assert ids[:2] == ["mine", "h1"]
    assert len(ids) == 3
    np.testing.assert_array_equal(captured.inputs["x"], shop.pixels[:12])
    assert set(captured.models) == {DIGEST}


async def test_a_server_of_a_rendered_repository_names_the_bundle(shop: Shop, tmp_path: Path) -> None:
    """As Triton does in its configuration; a server that says something else is not believed."""
    async with running(shop) as pair:
        pair.upstream.config = {"parameters": {"retune_bundle_digest": {"string_value": SERVED}}}
        await pair.post(question(shop, 0))
    assert set(found(shop, tmp_path).models) == {SERVED}
    odds: list[Any] = [[], {"parameters": 1}, {"parameters": {"retune_bundle_digest": {"string_value": "sha256:x"}}}]
    assert [calls._digest(odd) for odd in odds] == [None] * 3


async def test_only_what_users_ask_of_the_model_is_captured(shop: Shop, tmp_path: Path) -> None:
    """Golden requests, other models and answers other than 200 are not; what does not fit is counted."""
    unfit = count("unfit")
    async with running(shop, only="digits") as pair:
        await pair.post(question(shop, 0, id=GOLDEN_ID))
        await pair.post(question(shop, 1), "/v2/models/other/infer")
        await pair.post(question(shop, 2), "/v1/models/digits:predict")
        await pair.post(json.dumps({"inputs": [{"data": [0] * 64, "shape": [1, 64]}]}).encode())
        await pair.post(question(shop, 3, id="asked"), "/v2/models/digits/versions/7/infer")
    assert set(found(shop, tmp_path).request_ids) == {"asked"}
    assert count("unfit") == unfit + 1


async def test_a_server_that_does_not_answer_is_a_bad_gateway(shop: Shop) -> None:
    """In JSON, as the protocol's errors are."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    capture = Capture(shop.signature, CaptureWriter(shop.captured, shop.signature), DIGEST, Named(address))
    async with (
        TestServer(application(Proxy(address, capture))) as front,
        aiohttp.ClientSession() as client,
        client.post(front.make_url(INFER), data=b"{}") as answer,
    ):
        assert answer.status == 502
        assert "does not answer" in (await answer.json())["error"]


async def test_an_answer_that_breaks_off_breaks_off(shop: Shop) -> None:
    """The client is not told that it has all."""
    async with running(shop) as pair, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get(f"{pair.address}/broken") as answer:
                await answer.read()


async def test_parts_of_an_answer_pass_as_they_come(shop: Shop) -> None:
    """Nobody waits for the end of a stream."""
    async with (
        running(shop) as pair,
        aiohttp.ClientSession() as client,
        client.get(f"{pair.address}/slowly") as answer,
    ):
        assert await answer.content.readany() == b"first"
        pair.upstream.first.set()
        assert await answer.content.read() == b"second"


async def test_a_body_too_large_to_capture_passes(shop: Shop) -> None:
    """It is counted, and no copy of it is kept."""
    large = count("too large")
    async with running(shop) as pair:
        body = question(shop, 0, padding="x" * BODY_BYTES)
        status, _ = await pair.post(body)
        assert status == 200
        assert pair.upstream.seen[-1][3] == body
    assert count("too large") == large + 1


async def test_what_waits_to_be_read_is_bounded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are answered though nothing is captured any more."""
    dropped, go_on = count("dropped"), threading.Event()
    monkeypatch.setattr(calls, "PENDING_BYTES", 20_000)
    async with running(shop) as pair:
        monkeypatch.setattr(pair.capture.named, "digest", lambda _model: go_on.wait(30) and None)
        for number in range(12):
            assert (await pair.post(question(shop, number)))[0] == 200
        assert count("dropped") > dropped
        go_on.set()


def test_a_capture_that_fails_is_counted_and_the_next_is_read(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason."""
    failed = count("failed")
    capture = Capture(shop.signature, CaptureWriter(shop.captured, shop.signature), DIGEST, Named("http://127.0.0.1:9"))
    outcomes = iter([RuntimeError("of a bug")])

    def digest(_model: str) -> None:
        for error in outcomes:
            raise error

    monkeypatch.setattr(capture.named, "digest", digest)
    scores = shop.session.run({"x": shop.pixels[:4]})["scores"]
    data = {"name": "scores", "shape": [4, 10], "datatype": "FP32", "data": scores.ravel().tolist()}
    for identity in ("a", "b"):
        now = time.time()
        answer = json.dumps({"outputs": [data]}).encode()
        capture.offer(Call("digits", now, question(shop, 0, id=identity), answer))
    capture.close()
    assert count("failed") == failed + 1
    assert set(found(shop, tmp_path).request_ids) == {"b"}


async def test_metrics_have_a_port_of_their_own(shop: Shop) -> None:
    """All paths of the other one are the model server's."""
    (port,) = free_ports(1)
    capture = Capture(shop.signature, CaptureWriter(shop.captured, shop.signature), DIGEST, Named("http://127.0.0.1:9"))
    server = with_metrics(application(Proxy("http://127.0.0.1:9", capture)), port)
    async with TestServer(server), aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert "retune_proxy_calls_total" in await answer.text()
        async with client.get(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200


def test_settings_may_be_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """MODEL_URI and CAPTURE_URI, as every server has them; without both it says what is missing."""
    parser = proxy._parser({"MODEL_URI": "pvc://a/b", "CAPTURE_URI": "pvc://a/c"})
    options = parser.parse_args(["--upstream", "http://127.0.0.1:8000"])
    assert (options.model, options.folder, options.port) == ("pvc://a/b", "pvc://a/c", 8080)
    with pytest.raises(SystemExit):
        proxy._parser({}).parse_args(["--upstream", "http://127.0.0.1:8000"])
    assert "--model, --folder" in capsys.readouterr().err
