"""The judge as a command on a newly delivered model beside the champion: no search has run, and none is needed."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import open_bundle
from retune.contract.requests import BaselineRequest, BundleRef, JudgeRequest
from retune.contract.results import JudgeResult, Reason, Verdict
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs.conftest import Claims

SHORT = Effort(min_rounds=4, max_rounds=8, max_seconds=30, calls_per_block=10)
STORE = "pvc://retune-artifacts/digits"
SHARED = {
    "resource": "demo/digits",
    "spec_hash": "hash",
    "data": {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")},
    "store": STORE,
    "threads": 1,
}
FASTER = {"metric": "latency_p95_ms", "tolerance": "0.05"}


def deliver(name: str) -> BundleRef:
    """Return the bundle of a delivered file."""
    model = {"uri": f"pvc://digits/{name}.onnx"}
    return baseline.run(BaselineRequest.model_validate({**SHARED, "model": model})).bundle


def retrain(folder: Path, name: str) -> None:
    """Write the network with its last layer multiplied by 1.01, so that it answers nearly alike."""
    proto = onnx.load(folder / "mlp.onnx")
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == "w2")
    weights.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(weights), "w2"))
    onnx.save(proto, folder / f"{name}.onnx")


def judged(champion: BundleRef, delivered: BundleRef, **changes: Any) -> JudgeResult:
    """Return the verdict on the delivered model."""
    asked: dict[str, Any] = {
        "run": "digits-2",
        "objectives": [FASTER],
        "selection": {},
        "techniques": None,
        "search": {},
    }
    asked |= {"champion": champion, "original": delivered, "trigger": "SpecChange", "delivered": True}
    return command.run(JudgeRequest.model_validate({**SHARED, **asked, **changes}), effort=SHORT)


def test_a_retrained_model_is_promoted_by_its_own_bundle(claims: Claims) -> None:
    """It gains nothing and loses nothing: the verdict names the bundle that the baseline made, with report and rows."""
    retrain(claims.root / "digits", "retrained")
    champion, delivered = deliver("mlp"), deliver("retrained")
    result = judged(champion, delivered)
    assert (result.verdict, result.reason) == (Verdict.PROMOTE, "NotWorse")
    assert result.candidate is not None
    assert result.candidate.bundle == delivered
    assert result.candidate.reference is not None
    assert open_bundle(delivered.uri, digest=delivered.digest).digest == delivered.digest
    page = resolve(result.report or "").local.read_text()
    assert "The delivered model keeps every limit" in page
    assert judged(champion, delivered) == result, "a judge that is started again repeats its verdict"


def test_a_worse_model_stays_off_and_one_of_another_kind_is_not_compared(claims: Claims) -> None:
    """The first is measured and refused, though the spec sets no limit; the second is refused before."""
    models.save_mlp(claims.root / "digits/narrow.onnx", models.fit_mlp(hidden=5))
    champion = deliver("mlp")
    result = judged(champion, deliver("narrow"))
    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, "AccuracyBelowMargin")
    assert result.message.startswith("The delivered model is ")
    with pytest.raises(JobError, match="cannot be compared with the champion: its inputs are") as refused:
        judged(champion, deliver("sklearn"), run="digits-3")
    assert refused.value.reason is Reason.MODELS_DIFFER
