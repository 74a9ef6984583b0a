"""The quickstarts of examples/servers, each a real server with a real bundle: they prove it, or never get ready."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from optimizer_jobs.commands.verify import command as verify
from optimizer_jobs.models.bundle import publish
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, VerifyRequest
from tests.neighbours.servers.serving import Quickstart, Running, running
from tests.unit.jobs.lookup_for_tests import ANSWER, ASKED, lookup_bundle, save_lookup

QUICKSTARTS = [
    Quickstart("fastapi", "uvicorn server:app --host 127.0.0.1 --port {ports[0]}"),
    Quickstart("kserve", "python server.py --http_port {ports[0]} --grpc_port {ports[1]}", unreadable=422, ports=2),
    Quickstart(
        "bentoml",
        "bentoml serve service:Served --host 127.0.0.1 --port {ports[0]}",
        ready="/readyz",
        ends=False,
        variables=(("BENTOML_DO_NOT_TRACK", "true"),),
    ),
    Quickstart("ray_serve", "python server.py", variables=(("RAY_USAGE_STATS_ENABLED", "0"),)),
    Quickstart(
        "mlserver",
        "mlserver start .",
        model="model",
        unreadable=422,
        ports=3,
        variables=(
            ("MLSERVER_HTTP_PORT", "{ports[0]}"),
            ("MLSERVER_GRPC_PORT", "{ports[1]}"),
            ("MLSERVER_METRICS_PORT", "{ports[2]}"),
        ),
    ),
]
pytestmark = pytest.mark.timeout(300)  # Ray alone starts two dozen processes, twice
every_server = pytest.mark.parametrize("quickstart", QUICKSTARTS, ids=lambda quickstart: quickstart.name)


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of claims, with one that is empty."""
    root = tmp_path / "claims"
    (root / "store").mkdir(parents=True)
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(root))
    return root


@pytest.fixture
def reference(tmp_path: Path, claims: Path) -> BundleRef:
    """A published bundle."""
    assert claims.is_dir()
    return publish(lookup_bundle(tmp_path / "made"), uri=bundles("pvc://store/lookup"))


def body(**changes: Any) -> dict[str, Any]:
    """A request of a user, with the data of some inputs replaced."""
    kinds = {"x": "FP32", "index": "INT64"}
    tensors = [
        {"name": name, "shape": list(values.shape), "datatype": kinds[name], "data": values.ravel().tolist()}
        | ({"data": changes[name]} if name in changes else {})
        for name, values in ASKED.items()
    ]
    return {"id": "user-1", "inputs": tensors}


@every_server
def test_a_quickstart_serves_what_it_can_prove(
    quickstart: Quickstart, reference: BundleRef, claims: Path, tmp_path: Path
) -> None:
    """Ready after its golden requests; every answer names the bundle; whose fault an error is, its status says."""
    variables = {"MODEL_URI": reference.uri, "CAPTURE_URI": "pvc://store/captured"}
    with running(quickstart, tmp_path / "server", variables) as server:
        get_ready(server)
        asked = verify.run(
            VerifyRequest(resource="ml/lookup", bundle=reference, endpoints=(server.url,), model_name=quickstart.model)
        )
        assert (asked.requests, asked.shown_by) == (1, "Digest")
        status, answer = answered_by(server)
        assert (status, answer["id"], answer["outputs"][0]["data"]) == (200, "user-1", ANSWER.ravel().tolist())
        wrong = [body(x=[1.0]), body(index=[0.5, 1.5]), {"id": "user-2", "inputs": []}]
        assert [server.status(request) for request in wrong] == [400, 400, 400]
        assert [server.status(request) for request in (b"no JSON", b"[]")] == [quickstart.unreadable] * 2
        assert server.status(body(index=[7, 0])) == 500
        assert server.status(body()) == 200, "one failure ends nothing"
    assert captured(claims / "store" / "captured") == [("user-1", reference.digest)] * 4, server.said()


def get_ready(server: Running) -> None:
    """Wait until a server is ready; fails where it ends instead."""
    server.until(lambda: server.is_ready() or ended(server), what="ready server")
    assert not ended(server), server.said()


def answered_by(server: Running) -> tuple[int, Any]:
    """Return status and content of the answer to a user's request."""
    answer = server.infer(body())
    assert answer is not None, server.said()
    return answer


def ended(server: Running) -> bool:
    """Return whether a server has ended by itself."""
    return server.process.poll() is not None


def captured(folder: Path) -> list[tuple[str, str]]:
    """Return id and model of every captured row."""
    tables = [parquet.read_table(file, partitioning=None) for file in sorted(folder.rglob("*.parquet"))]
    return [(row["request_id"], row["model"]) for table in tables for row in table.to_pylist()]


@every_server
def test_a_quickstart_never_gets_ready_with_a_damaged_bundle(
    quickstart: Quickstart, reference: BundleRef, claims: Path, tmp_path: Path
) -> None:
    """It says why, and answers nobody."""
    model = claims / reference.uri.removeprefix("pvc://") / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with running(quickstart, tmp_path / "server", {"MODEL_URI": reference.uri}) as server:
        seen: list[bool] = []

        def has_said_why() -> bool:
            seen.append(server.is_ready())
            return "model.onnx has digest" in server.said()

        server.until(has_said_why, what="reason in the log")
        assert not any([*seen, server.is_ready()])
        answer = server.infer(body(), seconds=5.0)
        assert answer is None or answer[0] in {404, 500, 503}, answer
        if quickstart.ends:
            server.until(lambda: ended(server), what="end")


@pytest.mark.parametrize("quickstart", [QUICKSTARTS[0], QUICKSTARTS[-1]], ids=lambda quickstart: quickstart.name)
def test_a_quickstart_serves_a_file_until_retune_names_a_bundle(quickstart: Quickstart, tmp_path: Path) -> None:
    """The first start, before anything was optimized: the file as delivered, and no bundle in the answer."""
    (tmp_path / "server").mkdir()
    save_lookup(tmp_path / "server" / "model.onnx")
    with running(quickstart, tmp_path / "server", {}) as server:
        get_ready(server)
        status, answer = answered_by(server)
        described = server.ask(f"/v2/models/{quickstart.model}")
    assert (status, answer["outputs"][0]["data"]) == (200, ANSWER.ravel().tolist())
    assert "bundle_digest" not in (answer.get("parameters") or {})
    assert described is not None
    assert described[1]["versions"] == [answer["model_version"]]
    assert {tensor["name"] for tensor in described[1]["inputs"]} == ASKED.keys()
