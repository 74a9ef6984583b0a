"""Quantization-aware training keeps what plain 8-bit numbers lose, and writes what engines run on integers."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from optuna.trial import FixedTrial

torch = pytest.importorskip("torch")

import onnxruntime as ort  # noqa: E402

from optimizer_jobs.data.datasets import Rows  # noqa: E402
from optimizer_jobs.models.engine import EngineOptions  # noqa: E402
from optimizer_jobs.models.onnx_file import check_onnx  # noqa: E402
from optimizer_jobs.models.runtime import open_model  # noqa: E402
from optimizer_jobs.technique import Applied, Context, Params, Skipped  # noqa: E402
from optimizer_jobs.techniques import quantization  # noqa: E402
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType  # noqa: E402
from tests.unit.jobs import graphs_for_tests as graphs  # noqa: E402
from tests.unit.jobs import models_for_tests as models  # noqa: E402
from tests.unit.jobs.outliers import save_outliers  # noqa: E402

pytestmark = pytest.mark.torch

AWARE: Params = {"scheme": "Aware", "samples": 300, "per_channel": True}
STATIC: Params = {
    "scheme": "Static",
    "method": "MinMax",
    "samples": 300,
    "per_channel": True,
    "scope": "LayersAndBetween",
    "fallback": "None",
}
SPEC = Technique(
    name="int8", type=TechniqueType.QUANTIZATION, quantization=Quantization(schemes=(QuantizationScheme.AWARE,))
)


def _rows(split: str) -> Rows:
    pixels, labels = models.digits(split)
    return Rows(inputs={"x": pixels}, labels=labels, digest="")


def _context(folder: Path, model: Path, **changes: Any) -> Context:
    folder.mkdir()
    context = Context(
        workdir=folder,
        signature=check_onnx(model),
        training=_rows("training"),
        validation=_rows("validation"),
        calibration=_rows("training"),
        seed=0,
        cpu_flags=frozenset({"avx512_vnni"}),
    )
    return dataclasses.replace(context, **changes)


def _applied(outcome: Applied | Skipped) -> Applied:
    assert isinstance(outcome, Applied), outcome
    return outcome


def _accuracy(model: Path) -> float:
    rows = _rows("test")
    scores = open_model(model, EngineOptions()).run(dict(rows.inputs))["scores"]
    return float((scores.argmax(1) == rows.labels).mean())


def _as_run(model: Path, target: Path) -> list[str]:
    """Return the operators that ONNX Runtime makes of a file."""
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(target), 3
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(target).graph.node]


def _constants(graph: ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def test_training_keeps_what_static_quantization_loses(tmp_path: Path) -> None:
    """A unit 3,000 times louder than the others: static 8-bit numbers guess, trained ones read as floats do."""
    model = save_outliers(tmp_path / "model.onnx")
    static = _applied(quantization.apply(model, STATIC, _context(tmp_path / "static", model)))
    aware = _applied(quantization.apply(model, AWARE, _context(tmp_path / "aware", model)))
    assert _accuracy(static.model) < 0.5
    assert _accuracy(aware.model) >= _accuracy(model) - 0.02
    assert aware.model.stat().st_size <= 1.1 * static.model.stat().st_size
    assert aware.summary.startswith("int8 trained: 5 layers, ")
    assert _as_run(aware.model, tmp_path / "run.onnx") == ["QuantizeLinear", *["QGemm"] * 5, "Softmax"]


def test_convolutions_and_what_lies_between_run_on_integers(tmp_path: Path) -> None:
    """No convolution, pool or product is left in float, and digits are read no worse than with static numbers."""
    model = models.save_conv(tmp_path / "model.onnx")
    static = _applied(quantization.apply(model, STATIC, _context(tmp_path / "static", model)))
    aware = _applied(quantization.apply(model, AWARE, _context(tmp_path / "aware", model)))
    operators = _as_run(aware.model, tmp_path / "run.onnx")
    assert {"QLinearConv", "QGemm"} <= set(operators)
    assert not {"Conv", "Gemm", "Relu", "MaxPool", "DequantizeLinear"} & set(operators)
    assert _accuracy(aware.model) >= _accuracy(static.model)
    assert check_onnx(aware.model) == check_onnx(model)


def test_weights_are_stored_as_integers(tmp_path: Path) -> None:
    """Every matrix and filter is int8 with a scale for each output, every bias int32; no float copy is left."""
    model = models.save_conv(tmp_path / "model.onnx")
    made = _applied(quantization.apply(model, AWARE, _context(tmp_path / "work", model)))
    constants = _constants(onnx.load(made.model))
    weights = {name: values for name, values in constants.items() if values.ndim > 1}
    assert sorted(values.shape for values in weights.values()) == [(10, 512), (16, 1, 3, 3), (32, 16, 3, 3)]
    assert all(values.dtype == np.int8 and np.abs(values).max() == 127 for values in weights.values())
    biases = [values for name, values in constants.items() if name.endswith("bias/integers")]
    assert sorted(values.shape for values in biases) == [(10,), (16,), (32,)]
    assert all(values.dtype == np.int32 for values in biases)


@pytest.mark.parametrize(("flags", "largest", "kind"), [({"avx2"}, 63, np.uint8), ({"asimd"}, 127, np.int8)])
def test_numbers_are_those_of_the_processor(tmp_path: Path, flags: set[str], largest: int, kind: type) -> None:
    """Weights of 7 bits where products of 8 overflow; signed activations on ARM. Digits are still read."""
    model = models.save_mlp(tmp_path / "model.onnx", models.fit_mlp(hidden=32))
    made = _applied(quantization.apply(model, AWARE, _context(tmp_path / "work", model, cpu_flags=frozenset(flags))))
    graph = onnx.load(made.model)
    constants = _constants(graph)
    assert {int(np.abs(values).max()) for values in constants.values() if values.ndim > 1} == {largest}
    (rounding, *_) = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    (zero,) = [node for node in graph.graph.node if rounding.input[2] in node.output]
    assert numpy_helper.to_array(zero.attribute[0].t).dtype == kind
    assert _accuracy(made.model) >= _accuracy(model) - 0.02


def test_training_follows_the_plan(tmp_path: Path) -> None:
    """The learning rate that a plan has is used: with none to speak of, training gains nothing and says so."""
    model = models.save_mlp(tmp_path / "model.onnx", models.fit_mlp(hidden=32))
    plan = {TechniqueType.HYPERPARAMETER_TUNING: {"learning_rate": 1e-8}}
    still = _applied(quantization.apply(model, AWARE, _context(tmp_path / "still", model, training_plan=plan)))
    usual = _applied(quantization.apply(model, AWARE, _context(tmp_path / "usual", model)))
    assert still.model.read_bytes() != usual.model.read_bytes()
    before, after = still.summary.split("epochs, ")[1].removesuffix(" before").split(" on validation, ")
    assert before == after


def test_what_cannot_be_trained_says_why(tmp_path: Path) -> None:
    """Before a search, and of a file that came to be during one."""
    unknown = graphs.save("recurrent", tmp_path / "gru.onnx", dynamo=False)
    subject = models.subject()
    strange = dataclasses.replace(subject, graph=onnx.load(unknown))
    reason = "the model has operator GRU, which cannot be trained again"
    assert quantization.unavailable(strange, SPEC) == reason
    assert "set data.training" in str(quantization.unavailable(dataclasses.replace(subject, training=False), SPEC))
    model = models.save_mlp(tmp_path / "model.onnx", models.fit_mlp(hidden=32))
    done = quantization.apply(model, AWARE, _context(tmp_path / "work", model, training=None))
    assert done == Skipped(reason="there are no rows to train on while weights are rounded")


def test_search_offers_it_with_and_without_being_asked() -> None:
    """One variant a search, first with a scale for each output; what it is called in the report."""
    plain = SPEC.model_copy(update={"quantization": None})
    subject = models.subject()
    (told,) = quantization.defaults(SPEC, subject)
    assert quantization.suggest(FixedTrial(told), SPEC, subject) == AWARE
    assert "Aware" in [each["int8.variant"] for each in quantization.defaults(plain, subject)]
    assert quantization.describe(AWARE) == "int8 trained"
    assert quantization.describe(AWARE | {"per_channel": False}) == "int8 trained per tensor"
