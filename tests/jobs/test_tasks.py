"""Regressions, several labels a row and embeddings go through baseline, search and judge, by what their task asks."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command as judge
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import open_bundle
from retune.api.model import Data, InputValue, Model, Task
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


def rounded(
    task: Task, limit: dict[str, Any], *, inputs: tuple[InputValue, ...] = ()
) -> tuple[BaselineResult, JudgeResult]:
    """Return baseline and verdict of one run with int8 weights, judged by a quality limit and by size."""
    data = Data.model_validate({split: {"uri": f"pvc://c/{split}.npz"} for split in ("training", "validation", "test")})
    first = baseline.run(
        BaselineRequest(
            resource="ml/c",
            spec_hash="abc",
            model=Model(uri="pvc://c/model.onnx", task=task, inputs=inputs),
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


def recurrent(path: Path) -> None:
    """Write a network that answers a number, a code, and its next state, whose rows are the second axis."""
    random = np.random.default_rng(0)
    shapes = {"w": (32, 256), "u": (64, 256), "v": (256, 64), "out": (64, 1)}
    weights = [numpy_helper.from_array(random.normal(0, 0.1, s).astype(np.float32), name) for name, s in shapes.items()]
    nodes = [
        helper.make_node("Squeeze", ["state", "first"], ["before"]),
        helper.make_node("MatMul", ["frame", "w"], ["seen"]),
        helper.make_node("MatMul", ["before", "u"], ["kept"]),
        helper.make_node("Add", ["seen", "kept"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["wide"]),
        helper.make_node("MatMul", ["wide", "v"], ["after"]),
        helper.make_node("Unsqueeze", ["after", "first"], ["stateN"]),
        helper.make_node("MatMul", ["after", "out"], ["value"]),
        helper.make_node("ArgMax", ["after"], ["code"], axis=1, keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 32]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, "N", 64]),
        helper.make_tensor_value_info("rate", TensorProto.INT64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("value", TensorProto.FLOAT, ["N", 1]),
        helper.make_tensor_value_info("code", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [1, "N", 64]),
    ]
    weights.append(numpy_helper.from_array(np.array([0]), "first"))
    graph = helper.make_graph(nodes, "recurrent", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_a_model_with_states_and_settings_is_held_against_itself(claim: Path) -> None:
    """No labels, states or sample rate in the data: all outputs keep their likeness, and the bundle its inputs."""
    recurrent(claim / "model.onnx")
    for number, split in enumerate(models.SPLITS):
        frames = np.random.default_rng(number).normal(size=(300, 32)).astype(np.float32)
        np.savez(claim / f"{split}.npz", frame=frames)
    limit = {"metric": "fidelity", "type": "Threshold", "value": "0.5"}
    inputs = (InputValue(name="rate", value="16000"),)
    first, verdict = rounded(Task.GENERIC, limit, inputs=inputs)
    assert (first.metrics[0].name, float(first.metrics[0].value)) == ("fidelity", 1.0)
    assert verdict.verdict is Verdict.PROMOTE
    assert verdict.candidate is not None
    bundle = open_bundle(verdict.candidate.bundle.uri)
    assert [spec.shape for spec in bundle.manifest.signature.inputs] == [(-1, 32), (1, -1, 64), ()]
    assert bundle.manifest.signature.fills == {"rate": 16000.0, "state": 0.0}
    assert {tensor.name: tensor.shape for tensor in bundle.golden.requests[0].inputs}["state"] == (1, 1, 64)


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
