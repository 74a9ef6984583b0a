"""Regressions, several labels a row and embeddings go through baseline, search and judge, by what their task asks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command as judge
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.measure.latency import Effort
from retune.api.model import Data, Model, Task
from retune.api.objectives import Objective, Selection
from retune.api.search import Search
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType
from retune.contract.requests import BaselineRequest, JudgeRequest
from retune.contract.results import BaselineResult, JudgeResult, Verdict
from tests.unit.jobs import models_for_tests as models

QUICK = Effort(max_seconds=2.0, min_rounds=10)
INT8 = Technique(
    name="int8", type=TechniqueType.QUANTIZATION, quantization=Quantization(schemes=(QuantizationScheme.DYNAMIC,))
)


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty claim named `c`."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")
    (tmp_path / "c").mkdir()
    return tmp_path / "c"


def rounded(task: Task, limit: dict[str, Any]) -> tuple[BaselineResult, JudgeResult]:
    """Return baseline and verdict of one run with int8 weights, judged by a quality limit and by size."""
    data = Data.model_validate({split: {"uri": f"pvc://c/{split}.npz"} for split in ("training", "validation", "test")})
    first = baseline.run(
        BaselineRequest(
            resource="ml/c",
            spec_hash="abc",
            model=Model(uri="pvc://c/model.onnx", task=task),
            data=data,
            store="pvc://c/store",
            threads=1,
        )
    )
    constraint = {"metric": limit["metric"], "role": "Constrain", "goal": {k: limit[k] for k in ("type", "value")}}
    request = JudgeRequest(
        resource="ml/c",
        run="c-r1",
        spec_hash="abc",
        data=data,
        selection=Selection(),
        techniques=(INT8,),
        objectives=(Objective.model_validate(constraint), Objective.model_validate({"metric": "size_bytes"})),
        search=Search(max_trials=3),
        champion=first.bundle,
        original=first.bundle,
        store="pvc://c/store",
        threads=1,
        trigger="test",
    )
    search.run(request)
    return first, judge.run(request, effort=QUICK)


def test_a_regression_is_judged_by_its_error(claim: Path) -> None:
    """The error is measured with an interval, and a smaller file is promoted while the error stays within its limit."""
    from skl2onnx import to_onnx

    measures, progress = load_diabetes(return_X_y=True)
    X = (measures * 20).astype(np.float32)
    for split, rows in {"training": slice(0, 200), "validation": slice(200, 300), "test": slice(300, 442)}.items():
        np.savez(claim / f"{split}.npz", x=X[rows], label=progress[rows])
    network = MLPRegressor(hidden_layer_sizes=(256, 256), max_iter=400, early_stopping=True, random_state=0)
    network.fit(X[:200], progress[:200])
    (claim / "model.onnx").write_bytes(to_onnx(network, X[:1], target_opset=17).SerializeToString())
    first, verdict = rounded(Task.REGRESSION, {"metric": "rmse", "type": "PercentMaxDegradation", "value": "20"})
    assert [metric.name for metric in first.metrics][:2] == ["rmse", "mae"]
    assert verdict.verdict is Verdict.PROMOTE
    error = next(each for each in verdict.comparisons if each.name == "rmse")
    assert float(error.champion.low or 0) < float(error.champion.value) < float(error.champion.high or 0)
    assert "RMSE" in verdict.message


def test_several_labels_a_row_are_judged_together(claim: Path) -> None:
    """Rows with any of five labels: F1 over all of them is measured, and a smaller file is promoted within a limit."""
    from skl2onnx import to_onnx

    measures, marks = make_multilabel_classification(1200, 20, n_classes=5, random_state=0)
    X = measures.astype(np.float32)
    for split, rows in {"training": slice(0, 500), "validation": slice(500, 800), "test": slice(800, 1200)}.items():
        np.savez(claim / f"{split}.npz", x=X[rows], label=marks[rows])
    network = MLPClassifier(hidden_layer_sizes=(256, 256), max_iter=400, early_stopping=True, random_state=0)
    network.fit(X[:500], marks[:500])
    options = {id(network): {"zipmap": False}}
    (claim / "model.onnx").write_bytes(to_onnx(network, X[:1], options=options, target_opset=17).SerializeToString())
    limit = {"metric": "average_precision", "type": "PercentMaxDegradation", "value": "10"}
    first, verdict = rounded(Task.MULTI_LABEL, limit)
    delivered = {metric.name: float(metric.value) for metric in first.metrics}
    expected = f1_score(marks[800:], network.predict(X[800:]), average="micro")
    assert delivered["f1_micro"] == pytest.approx(expected, abs=1e-3)
    assert verdict.verdict is Verdict.PROMOTE
    assert {"average_precision", "f1_micro", "hamming_loss"} <= {each.name for each in verdict.comparisons}


def test_an_embedding_without_labels_is_judged_by_likeness(claim: Path) -> None:
    """No labels anywhere: vectors are compared with those of the delivered model, and so are nearest neighbours."""
    models.save_mlp(claim / "model.onnx", models.fit_mlp(hidden=256))
    for split in models.SPLITS:
        np.savez(claim / f"{split}.npz", x=models.digits(split)[0])
    first, verdict = rounded(Task.EMBEDDING, {"metric": "cosine", "type": "Threshold", "value": "0.98"})
    delivered = {metric.name: float(metric.value) for metric in first.metrics}
    assert (delivered["cosine"], delivered["neighbor_agreement"]) == (1.0, 1.0)
    assert verdict.verdict is Verdict.PROMOTE
    likeness = next(each for each in verdict.comparisons if each.name == "cosine")
    assert 0.98 <= float(likeness.candidate.value) < 1.0
