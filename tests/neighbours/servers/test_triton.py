"""A real Triton serves what is rendered for it: configuration, warm-up, and the golden requests of every kind."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import GoldenRequest, check, record
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.serving.render import render
from retune.contract.requests import Server
from tests.neighbours.triton import HEAD, Triton, serving, started
from tests.unit.jobs.served_for_tests import KINDS, bundle_of
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(180)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def bundles(make: Callable[..., Bundle], delivered: Path, splits: dict[str, Rows], tmp_path: Path) -> dict[str, Bundle]:
    """A bundle of each kind, and one of a network with requests of one row and of four."""
    engine = EngineOptions(threads=2, graph_level="extended")
    golden = record(open_model(delivered / "mlp.onnx", engine), splits["validation"], sizes=(1, 4))
    return {kind: bundle_of(kind, tmp_path / kind) for kind in KINDS} | {"mlp": make(engine=engine, golden=golden)}


@pytest.fixture
def repository(bundles: Mapping[str, Bundle], tmp_path: Path) -> Path:
    """All of them in one repository, where each is a folder of its own."""
    folder = tmp_path / "serve"
    folder.mkdir()
    for name, bundle in bundles.items():
        render(bundle, Server.TRITON, name=name, into=tmp_path / "rendered" / name)
        (tmp_path / "rendered" / name / name).rename(folder / name)
    return folder


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Triton]:
    """Triton, with every model ready."""
    (tmp_path / "server").mkdir()
    with serving(repository, tmp_path / "server") as running:
        yield running


def test_every_kind_is_warmed_up_described_and_answered(
    server: Triton, bundles: Mapping[str, Bundle], repository: Path
) -> None:
    """Before anybody asks, the golden requests were asked; then their answers are as recorded."""
    for name, bundle in bundles.items():
        assert warmed(server, name) == len(bundle.golden.requests)
        assert described(server, name) == declared(bundle)
        config = server.get(f"/v2/models/{name}/config")
        assert config["parameters"]["retune_bundle_digest"]["string_value"] == bundle.digest
        for number, request in enumerate(bundle.golden.requests, start=1):
            answer = server.infer(name, *as_bytes(request, repository / name / "warmup", number))
            assert check(answer, request, golden=bundle.golden) is None


def test_golden_requests_in_json_are_answered(server: Triton, bundles: Mapping[str, Bundle]) -> None:
    """As a Job asks them: all but what the sentences say that Triton does not take so."""
    for request in bundles["mlp"].golden.requests:
        answer = server.infer("mlp", json.dumps(request.body()).encode(), JSON)
        assert check(answer, request, golden=bundles["mlp"].golden) is None
    refusals = {"typed": "FP16 data via JSON", "fixed": "Unable to parse 'data'", "recurrent": "unexpected shape"}
    for name, words in refusals.items():
        with pytest.raises(HTTPError) as caught:
            server.infer(name, json.dumps(bundles[name].golden.requests[0].body()).encode(), JSON)
        with caught.value as refusal:
            assert words in refusal.read().decode()


def test_a_field_that_triton_does_not_know_is_no_configuration(repository: Path, tmp_path: Path) -> None:
    """The server is strict, so that what it has loaded says something."""
    config = repository / "mlp" / "config.pbtxt"
    config.write_text(f"{config.read_text()}spinning: false\n")
    (tmp_path / "strict").mkdir()
    with started(repository, tmp_path / "strict") as running:
        wait_for(running.has_ended, what="the end of Triton", seconds=60, hint=running.log.read_text)
    assert 'has no field named "spinning"' in running.log.read_text()


def warmed(server: Triton, model: str) -> int:
    """Return how often a model was asked so far."""
    (statistics,) = server.get(f"/v2/models/{model}/stats")["model_stats"]
    return int(statistics["inference_count"])


def described(server: Triton, model: str) -> list[tuple[str, list[int]]]:
    """Return names and shapes of inputs and outputs, as the server tells its clients."""
    metadata = server.get(f"/v2/models/{model}")
    return [(tensor["name"], tensor["shape"]) for side in ("inputs", "outputs") for tensor in metadata[side]]


def declared(bundle: Bundle) -> list[tuple[str, list[int]]]:
    """Return the same from the bundle."""
    signature = bundle.manifest.signature
    return [(spec.name, list(spec.shape or (1,))) for spec in (*signature.inputs, *signature.outputs)]


def as_bytes(request: GoldenRequest, folder: Path, number: int) -> tuple[bytes, dict[str, str]]:
    """Return a request whose tensors are the files of the warm-up, and its headers."""
    contents = [(folder / f"golden-{number}-{place}").read_bytes() for place in range(1, len(request.inputs) + 1)]
    inputs: list[dict[str, Any]] = [
        {
            "name": tensor.name,
            "shape": tensor.shape or (1,),
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(content)},
        }
        for tensor, content in zip(request.inputs, contents, strict=True)
    ]
    outputs = [{"name": tensor.name, "parameters": {"binary_data": True}} for tensor in request.outputs]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    return b"".join([head, *contents]), {HEAD: str(len(head))}
