"""Outliers of activations move into the weights, and what the model computes stays as it was."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.smoothing import smooth
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs.outliers import save_outliers


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network of five layers with one activation that is far too wide for 8 bits."""
    return save_outliers(tmp_path_factory.mktemp("outliers") / "model.onnx")


def answers(model: Path, rows: Rows) -> NDArray[np.float32]:
    """Return the scores (N, 10)."""
    found: NDArray[np.float32] = open_model(model, EngineOptions(spinning=False)).run(rows.inputs)["scores"]
    return found


def smoothed(path: Path, rows: Rows) -> tuple[ModelProto, int]:
    """Return the model with all layers smoothed, and how many inputs that were."""
    model = onnx.load(path)
    count = smooth(model, [node.name for node in model.graph.node], [dict(rows.inputs)])
    onnx.checker.check_model(model)
    return model, count


def test_answers_stay_as_they_were(outliers: Path, splits: dict[str, Rows], tmp_path: Path) -> None:
    """Without rounding, a smoothed network computes what it did, on rows it was not observed on."""
    model, count = smoothed(outliers, splits["training"])
    onnx.save(model, tmp_path / "smooth.onnx")
    assert count == 5
    rows = splits["validation"]
    np.testing.assert_allclose(answers(tmp_path / "smooth.onnx", rows), answers(outliers, rows), atol=1e-5)


def test_rounding_loses_less_after_smoothing(outliers: Path, splits: dict[str, Rows], tmp_path: Path) -> None:
    """The one loud unit no longer decides how coarse all the others are rounded."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, _ = smoothed(outliers, splits["training"])
    onnx.save(model, tmp_path / "smooth.onnx")
    rows, lost = splits["validation"], {}
    for name, path in (("plain", outliers), ("smooth", tmp_path / "smooth.onnx")):
        quantize_dynamic(path, tmp_path / "int8.onnx", per_channel=True, weight_type=QuantType.QInt8)
        lost[name] = float(np.abs(answers(tmp_path / "int8.onnx", rows) - answers(outliers, rows)).mean())
    assert lost["smooth"] < lost["plain"] / 3


def test_a_weight_of_two_layers_is_not_touched(tmp_path: Path) -> None:
    """Scaling the rows of a shared weight would change the other layer."""
    weight = np.random.default_rng(0).normal(size=(64, 64))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w"], ["scores"], name="second"),
    ]
    path = models.save_graph(tmp_path / "shared.onnx", nodes, {"w": weight}, width=64)
    model = onnx.load(path)
    assert smooth(model, ["first", "second"], [{"x": models.digits("training")[0]}]) == 0
    assert model == onnx.load(path)
