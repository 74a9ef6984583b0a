"""Whole loops for the server that serves: what is searched and judged is what Triton can be told, and nothing is lost.

Which candidate wins does not matter here: any that is smaller does, and 8-bit ones are.
"""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.commands.search.command import run as search
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import unavailable
from optimizer_jobs.serving.render import render
from optimizer_jobs.study.trials import open_study, trials_table
from retune.contract.requests import BaselineRequest, BundleRef, JudgeRequest, SearchRequest, Server
from retune.contract.results import BaselineResult, JudgeResult, Reason, Verdict
from tests.unit.jobs.conftest import Claims

SHORT = Effort(min_rounds=20, max_rounds=60, max_seconds=30, calls_per_block=10)
STORE, RUN = "pvc://retune-artifacts/digits", "digits-1"
SHARED = {
    "resource": "demo/digits",
    "spec_hash": "hash",
    "data": {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")},
    "store": STORE,
    "threads": 2,
}
SMALLER = [{"metric": "size_bytes"}]
QUANTIZED = [{"name": "int8", "type": "Quantization"}]


def deliver(serving: dict[str, Any], name: str = "mlp") -> BaselineResult:
    """Return what the baseline says of a delivered file."""
    model = {"uri": f"pvc://digits/{name}.onnx"}
    return baseline.run(BaselineRequest.model_validate({**SHARED, "model": model, "serving": serving}))


def asked(champion: BundleRef, serving: dict[str, Any], *, trials: int = 8) -> dict[str, Any]:
    """Return the parts of a request that search and judge share."""
    return {
        **SHARED,
        "run": RUN,
        "serving": serving,
        "objectives": SMALLER,
        "selection": {},
        "techniques": QUANTIZED,
        "search": {"maxTrials": trials, "finalists": 1},
        "champion": champion,
        "original": champion,
    }


def searched(champion: BundleRef, serving: dict[str, Any], **more: Any) -> JudgeResult:
    """Return the verdict on what a search for the server found."""
    request = asked(champion, serving, **more)
    search(SearchRequest.model_validate(request))
    return command.run(JudgeRequest.model_validate(request | {"trigger": "Initial"}), effort=SHORT)


@pytest.fixture(autouse=True)
def _no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")


@pytest.mark.usefixtures("claims")
def test_what_wins_for_triton_is_rendered_for_it_with_nothing_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No trial asks for what Triton has no setting for, and the report says what that is and what it costs."""
    serving = {"runtime": "Triton", "engineVersion": "1.20"}
    result = searched(deliver(serving).bundle, serving)
    assert result.verdict is Verdict.PROMOTE, result.message
    engines = [EngineOptions.model_validate(row.result.engine) for row in trials_table(open_study(STORE, RUN))]
    assert len(engines) == 8
    assert all(engine.spinning and engine.rows is None for engine in engines)
    assert result.candidate is not None
    winner = open_bundle(result.candidate.bundle.uri, digest=result.candidate.bundle.digest)
    made = render(winner, Server.TRITON, name="digits", into=tmp_path / "serve")
    assert made.lost == ()
    assert "Triton has no setting for idle threads that do not spin" in capsys.readouterr().out
    report = Report.model_validate_json(resolve(f"{STORE}/runs/{RUN}/report.json").local.read_bytes())
    limits, version, cost = report.lost
    assert "idle threads that do not spin, a fixed number of rows or bfloat16 on Arm processors" in limits
    assert version.endswith("and the server has ONNX Runtime 1.20.")
    assert any(words in cost for words in ("Triton cannot express", "not proven", "cannot be judged"))
    assert ("Triton cannot express" in cost) == (cost in result.message)
    assert cost.replace("'", "&#39;") in resolve(f"{STORE}/runs/{RUN}/report.html").local.read_text()


def test_a_champion_that_does_not_spin_is_measured_as_triton_runs_it(claims: Claims) -> None:
    """It came from a search for Retune's runtime; the judge does not time what Triton does not do."""
    free = deliver({})
    bundle = open_bundle(free.bundle.uri, digest=free.bundle.digest)
    manifest = bundle.folder / "bundle.json"
    content = json.loads(manifest.read_bytes())
    content["engine"] |= {"spinning": False, "rows": 4}
    quiet = claims.path(STORE) / "quiet"
    quiet.mkdir()
    for name in (*bundle.manifest.files, "bundle.json"):
        (quiet / name).write_bytes((bundle.folder / name).read_bytes())
    (quiet / "bundle.json").write_text(json.dumps(content))
    made = open_bundle(f"{STORE}/quiet")
    assert not made.manifest.engine.spinning
    champion = BundleRef(uri=f"{STORE}/quiet", digest=made.digest)
    result = searched(champion, {"runtime": "Triton"}, trials=3)
    report = Report.model_validate_json(resolve(f"{STORE}/runs/{RUN}/report.json").local.read_bytes())
    assert result.champion_digest == champion.digest
    assert report.champion.engine == "all graph, 2 threads"


def test_a_model_that_is_too_new_for_the_server_is_refused_at_the_door(claims: Claims) -> None:
    """The sentence names the part, the version and what to do; without the version it is measured."""
    model = onnx.load(claims.root / "digits/mlp.onnx")
    model.opset_import[0].version = 21
    model.graph.node.append(helper.make_node("Identity", ["scores"], ["same"], name="same"))
    onnx.save(model, claims.root / "digits/modern.onnx")
    assert deliver({"runtime": "Triton"}, "modern").metrics
    with pytest.raises(JobError) as refused:
        deliver({"runtime": "Triton", "engineVersion": "1.16"}, "modern")
    assert refused.value.reason is Reason.MODEL_INVALID
    assert "ONNX Runtime 1.16" in str(refused.value)
    assert "it is of operator set ai.onnx 21, and this version has up to 19" in str(refused.value)
    assert "correct spec.serving.engineVersion" in str(refused.value)
    assert deliver({"runtime": "Triton", "engineVersion": "1.18"}, "modern").metrics


@pytest.mark.usefixtures("claims")
def test_for_openvino_model_server_everything_is_measured_in_openvino() -> None:
    """Version 1 names OpenVINO; where that is not installed, the baseline says so and no other engine is timed."""
    serving = {"runtime": "OVMS", "engines": ["OpenVINO"]}
    if unavailable("openvino") is None:
        made = deliver(serving).bundle
        assert open_bundle(made.uri, digest=made.digest).manifest.engine.engine == "openvino"
        return
    with pytest.raises(JobError) as refused:
        deliver(serving)
    assert refused.value.reason is Reason.ENGINE_UNAVAILABLE
    assert "OpenVINO Model Server computes in OpenVINO" in str(refused.value)
