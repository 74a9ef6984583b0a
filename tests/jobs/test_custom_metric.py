"""A detector is optimized by code of its owner: boxes and labels of any shape, from the file to the verdict."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command as judge
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure.latency import Effort
from retune.contract.requests import BaselineRequest, JudgeRequest, SearchRequest
from retune.contract.results import JudgeResult, Reason, Verdict
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs.metric_code_for_tests import SOURCE

SHORT = Effort(min_rounds=4, max_rounds=8, max_seconds=30, calls_per_block=10)
ROWS, SIDE = 300, 8
SPLITS = ("training", "validation", "test")
DATA = {split: {"uri": f"pvc://c/{split}.npz"} for split in SPLITS}
STORE = "pvc://c/store"
INT8 = {"name": "int8", "type": "Quantization", "quantization": {"schemes": ["Dynamic"]}}


def pictures(seed: int, rows: int = ROWS) -> tuple[models.Floats, np.ndarray]:
    """Return pictures (N, 64) with a bright rectangle each, and where it lies (N, 1, 4): x, y, width, height."""
    generator = np.random.default_rng(seed)
    places = np.concatenate([generator.integers(0, 4, (rows, 2)), generator.integers(2, 5, (rows, 2))], axis=1)
    lines = np.arange(SIDE)
    across, down = (
        (lines >= places[:, axis, None]) & (lines < places[:, axis, None] + places[:, axis + 2, None])
        for axis in (0, 1)
    )
    bright = (down[:, :, None] & across[:, None, :]).reshape(rows, -1).astype(np.float32)
    noise = generator.normal(0, 0.05, bright.shape).astype(np.float32)
    return bright + noise, places[:, np.newaxis].astype(np.float32)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of one box a picture as ONNX, its three splits, and its owner's code."""
    folder = tmp_path_factory.mktemp("detector")
    for seed, split in enumerate(SPLITS):
        x, boxes = pictures(seed)
        np.savez(folder / f"{split}.npz", x=x, label=boxes)
    network = MLPRegressor(hidden_layer_sizes=(256,), max_iter=60, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        x, boxes = pictures(7, rows=3000)
        network.fit(x, boxes.reshape(-1, 4))
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["boxes"], name="head"),
    ]
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    weights: dict[str, Any] = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
    models.save_graph(folder / "detector.onnx", nodes, weights, output="boxes", width=4)
    (folder / "src").mkdir()
    (folder / "src" / "shopquality.py").write_text(SOURCE)
    return folder


@pytest.fixture
def asked(delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What all Jobs of the detector are asked."""
    shutil.copytree(delivered, tmp_path / "c")
    for name, value in (("CLAIM_ROOT", str(tmp_path)), ("METRICS_PORT", "0"), ("CODE", str(delivered / "src"))):
        monkeypatch.setenv(f"RETUNE_{name}", value)
    return {"resource": "ml/c", "spec_hash": "abc", "data": DATA, "store": STORE, "threads": 1}


def model(metric: str) -> dict[str, Any]:
    """Return the detector as a spec names it."""
    return {
        "uri": "pvc://c/detector.onnx",
        "task": "Embedding",
        "customMetric": {"entryPoint": f"shopquality:{metric}"},
    }


def judged(asked: dict[str, Any]) -> JudgeResult:
    """Run all three Jobs with a limit on the overlap of boxes, and size to be optimized."""
    spec = model("iou")
    original = baseline.run(BaselineRequest.model_validate(asked | {"model": spec})).bundle.model_dump()
    limit = {"metric": "custom", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}}
    request = asked | {
        "run": "c-r1",
        "objectives": [limit, {"metric": "size_bytes"}],
        "selection": {},
        "techniques": [INT8],
        "search": {"max_trials": 2, "finalists": 1},
        "customMetric": spec["customMetric"],
        "champion": original,
        "original": original,
    }
    search.run(SearchRequest.model_validate(request))
    return judge.run(JudgeRequest.model_validate(request | {"trigger": "test"}), effort=SHORT)


@pytest.mark.slow
def test_a_detector_is_judged_by_the_overlap_of_its_boxes(asked: dict[str, Any], tmp_path: Path) -> None:
    """A smaller detector is promoted while intersection over union stays; the report and the comparison have it."""
    verdict = judged(asked)
    overlap = next(each for each in verdict.comparisons if each.name == "custom")
    report = Report.model_validate_json((tmp_path / "c/store/runs/c-r1/report.json").read_text())

    assert verdict.verdict is Verdict.PROMOTE, verdict.message
    assert 0.5 < float(overlap.champion.low or 0) < float(overlap.champion.value) < 1
    assert overlap.change is not None
    assert float(overlap.change.low or 0) > -0.05
    assert "custom" in verdict.message
    assert report.main == "custom"


def test_code_that_fails_is_told_before_a_run_is_spent(asked: dict[str, Any]) -> None:
    """The baseline names the code, what it raises, and what to do."""
    with pytest.raises(JobError, match="computing it raises KeyError") as caught:
        baseline.run(BaselineRequest.model_validate(asked | {"model": model("broken")}))

    assert caught.value.reason is Reason.MODEL_INVALID
    assert caught.value.object == "metric shopquality:broken"
