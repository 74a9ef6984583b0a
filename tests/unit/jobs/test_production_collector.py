"""What KServe's logger sends becomes captured requests, whichever half comes first and whatever else is sent."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.models.golden import OWN_IDS
from optimizer_jobs.production import collector
from optimizer_jobs.production.collector import Pairing
from optimizer_jobs.production.events import REQUEST_TYPE, RESPONSE_TYPE, parse, tensors
from optimizer_jobs.production.protocol import UnfitEventError
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import Signature, TensorSpec
from tests.unit.jobs.captured_for_tests import DIGEST, HOUR, NOW, REQUEST_ROWS, Shop
from tests.unit.jobs.conftest import Claims

Json = dict[str, Any]


def test_a_bundle_is_held_to_the_digest_that_its_folder_is_named_by(
    claims: Claims, make: Callable[..., Bundle]
) -> None:
    """What others have put under the name of a version is not taken for it."""
    bundle = publish(make(), uri="pvc://retune-artifacts/digits/bundles")
    assert collector.described(bundle.uri)[1] == bundle.digest
    other = f"{bundle.uri.rpartition('/')[0]}/{'0' * 64}"
    claims.path(bundle.uri).rename(claims.path(other))
    with pytest.raises(JobError, match="has digest"):
        collector.described(other)


@dataclass(frozen=True)
class Running:
    """A collector in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int

    def send(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Post an event; return the status."""
        request = Request(f"http://127.0.0.1:{self.port}/", data=body, headers=dict(headers), method="POST")
        try:
            with urlopen(request, timeout=20) as answer:  # noqa: S310 - this machine's
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def get(self, path: str) -> str:
        """Return what it says."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return str(answer.read().decode())

    def stop(self) -> None:
        """Ask it to stop and wait."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@pytest.fixture
def running(claims: Claims) -> Iterator[Running]:
    """The collector as a person starts it, for mlp.onnx."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (
        sys.executable,
        "-m",
        "optimizer_jobs.production.collector",
        "--model",
        "pvc://digits/mlp.onnx",
        "--folder",
        "pvc://shop/captured",
        "--port",
        str(port),
    )
    process = subprocess.Popen(command, env={**os.environ, "RETUNE_CLAIM_ROOT": str(claims.root)})
    found = Running(process, port)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(OSError):
            found.get("/healthz")
            break
        time.sleep(0.05)
    yield found
    process.kill()
    process.wait()


def binary(kind: str, identity: str, *, at: float = NOW) -> Json:
    """The headers of an event whose body is the payload itself, as KServe's logger sends it."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return {
        "Ce-Id": identity,
        "Ce-Type": kind,
        "Ce-Specversion": "1.0",
        "Ce-Source": "http://localhost:9081/",
        "Ce-Time": f"{moment}.123456789Z",
        "Ce-Inferenceservicename": "digits",
        "Content-Type": "application/json",
    }


def bodies(shop: Shop, number: int, **more: Any) -> tuple[bytes, bytes]:
    """Request and response of version 2 of the protocol."""
    pixels = shop.pixels[shop.places(number)]
    scores = shop.session.run({"x": pixels})["scores"]
    asked = {"name": "x", "shape": list(pixels.shape), "datatype": "FP32", "data": pixels.ravel().tolist()}
    answer = {"name": "scores", "shape": list(scores.shape), "datatype": "FP32", "data": scores.ravel().tolist()}
    return json.dumps({"inputs": [asked], **more}).encode(), json.dumps({"outputs": [answer], **more}).encode()


def test_events_over_http_become_captured_requests(running: Running, shop: Shop, tmp_path: Path) -> None:
    """Binary and structured events, versions 2 and 1, responses first or last; the rest of the world is refused."""
    for number in range(6):
        asked, answered = bodies(shop, number)
        halves = [(asked, binary(REQUEST_TYPE, f"e{number}")), (answered, binary(RESPONSE_TYPE, f"e{number}"))]
        for body, headers in reversed(halves) if number % 2 else halves:
            assert running.send(body, headers) == 200
    pixels = shop.pixels[shop.places(6)]
    first = {
        REQUEST_TYPE: {"instances": pixels.tolist()},
        RESPONSE_TYPE: {"predictions": shop.session.run({"x": pixels})["scores"].tolist()},
    }
    for kind, payload in first.items():
        event = {"specversion": "1.0", "id": "e6", "type": kind, "source": "x", "time": "2025-11-24T16:00:09Z"}
        encoded = {"data_base64": base64.b64encode(json.dumps(payload).encode()).decode()}
        part: Json = {"data": payload} if kind == REQUEST_TYPE else encoded
        assert running.send(json.dumps(event | part).encode(), {"Content-Type": "application/cloudevents+json"}) == 200
    assert running.send(b"{}", binary("org.example.other", "e7")) == 400
    assert running.send(b"not json", binary(REQUEST_TYPE, "e8")) == 400
    assert running.send(b"x" * (17 << 20), binary(REQUEST_TYPE, "e9")) == 413
    assert 'retune_collector_events_total{outcome="paired"} 14.0' in running.get("/metrics")
    running.stop()
    found = shop.read(tmp_path)
    np.testing.assert_array_equal(found.inputs["x"], shop.pixels[: 7 * REQUEST_ROWS])
    expected = shop.session.run({"x": shop.pixels[: 7 * REQUEST_ROWS]})["scores"]
    np.testing.assert_allclose(found.outputs["scores"], expected, rtol=1e-5)
    assert list(dict.fromkeys(found.request_ids)) == [f"e{number}" for number in range(7)]
    assert found.violations == ()


@pytest.fixture
def pairing(shop: Shop) -> Iterator[Pairing]:
    """A pairing with a real writer behind it."""
    writer = CaptureWriter(shop.captured, shop.signature)
    yield Pairing(shop.signature, writer, DIGEST)
    writer.close()


def event(body: bytes, kind: str, identity: str) -> Any:
    """An event as it arrives."""
    return parse({name.lower(): value for name, value in binary(kind, identity).items()}, body)


def test_the_requests_own_id_and_the_answering_bundle_are_kept(pairing: Pairing, shop: Shop, tmp_path: Path) -> None:
    """Labels know the protocol's id; a response that names its bundle is believed over the setting."""
    other = "sha256:" + "cd" * 32
    asked, _ = bodies(shop, 0, id="mine")
    _, answered = bodies(shop, 0, id="mine", parameters={"bundle_digest": other})
    pairing.take(event(asked, REQUEST_TYPE, "e0"))
    pairing.take(event(answered, RESPONSE_TYPE, "e0"))
    pairing.writer.close()
    found = shop.read(tmp_path)
    assert set(found.request_ids) == {"mine"}
    assert set(found.models) == {other}
    assert found.times[0].astype("datetime64[s]").astype(int) == NOW


@pytest.mark.parametrize("own", sorted(OWN_IDS))
def test_requests_of_our_own_are_not_captured(own: str, pairing: Pairing, shop: Shop, tmp_path: Path) -> None:
    """No user asked them."""
    for body, kind in zip(bodies(shop, 0, id=own), (REQUEST_TYPE, RESPONSE_TYPE), strict=True):
        pairing.take(event(body, kind, "e0"))
    pairing.writer.close()
    assert len(shop.read(tmp_path)) == 0


def test_halves_without_another_are_forgotten(
    pairing: Pairing, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: the oldest go first, and pairs that come later still meet."""
    monkeypatch.setattr(collector, "PENDING_BYTES", 10_000)
    for number in range(50):
        pairing.take(event(bodies(shop, number)[0], REQUEST_TYPE, f"e{number}"))
    assert pairing._bytes <= 10_000
    assert len(pairing._waiting) == 4
    for number in (0, 49):
        pairing.take(event(bodies(shop, number)[1], RESPONSE_TYPE, f"e{number}"))
    pairing.writer.close()
    assert set(shop.read(tmp_path, end=NOW + HOUR).request_ids) == {"e49"}


def test_an_answer_of_version_one_may_be_labels_alone(shop: Shop) -> None:
    """The scores that such a server does not send are no values."""
    signature = Signature(
        inputs=shop.signature.inputs,
        outputs=(
            TensorSpec(name="label", dtype="int64", shape=(-1,)),
            TensorSpec(name="scores", dtype="float32", shape=(-1, 10)),
        ),
    )
    body = json.dumps({"predictions": shop.digits[:4].tolist()}).encode()
    found = tensors(event(body, RESPONSE_TYPE, "e"), signature)
    np.testing.assert_array_equal(found["label"], shop.digits[:4])
    assert found["scores"].shape == (4, 10)
    assert np.isnan(found["scores"]).all()


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"name": "y", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}]},
        {"inputs": [{"name": "x", "shape": [2, 64], "datatype": "FP32", "data": [0] * 64}]},
        {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}]},
        {"inputs": [{"name": "x", "shape": "all", "datatype": "FP32", "data": ["seven"] * 64}]},
        {"instances": [[0.0] * 63]},
        {"instances": []},
        {"instances": {"x": 1}},
        {},
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_words(shop: Shop, body: Json) -> None:
    """And costs nothing else."""
    with pytest.raises(UnfitEventError, match=r"[a-z].*\.$"):
        tensors(event(json.dumps(body).encode(), REQUEST_TYPE, "e"), shop.signature)
