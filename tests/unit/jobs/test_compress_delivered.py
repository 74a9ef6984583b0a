"""Files as they are delivered: with float16 inside, of old operator sets, and as one line of the usual quantizers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress import preparing
from optimizer_jobs.machinery.compress.layers import graph_of, is_quantized
from optimizer_jobs.measure.answers import agreement, predict
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import ONE_LINE, Applied, Context, Params, Skipped
from optimizer_jobs.techniques import quantization
from tests.unit.jobs.technique_conformance import rows_for

STATIC: Params = {
    "scheme": "Static",
    "method": "MinMax",
    "samples": 64,
    "per_channel": True,
    "scope": "LayersAndBetween",
    "fallback": "None",
}
DYNAMIC: Params = {"scheme": "Dynamic", "per_channel": True}
LINES: dict[str, Params] = {
    "dynamic": {"scheme": "Dynamic", ONE_LINE: True},
    "static": {"scheme": "Static", ONE_LINE: True, "samples": 100},
}


def halved(model: ModelProto) -> None:
    """Give the weights, the input and the output of the MLP the type float16, as exports of trained halves have."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


def aged(model: ModelProto) -> None:
    """Say operator set 11, the last before a scale could belong to a channel."""
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 11))
    model.ir_version = 6


def quantized(model: Path, params: Params, rows: Rows, folder: Path) -> Applied | Skipped:
    """Quantize in a folder of its own."""
    folder.mkdir()
    signature = open_model(model, EngineOptions()).signature
    context = Context(workdir=folder, signature=signature, calibration=rows, seed=0, cpu_flags=frozenset())
    return quantization.apply(model, params, context)


@pytest.mark.parametrize("params", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("change", [halved, aged])
def test_half_floats_and_old_operator_sets_are_quantized_like_any_other(
    change: Callable[[ModelProto], None],
    params: Params,
    delivered: Path,
    splits: dict[str, Rows],
    tmp_path: Path,
) -> None:
    """The answers hold, inputs and outputs keep their types, and the layers are in 8 bits."""
    graph, path = onnx.load(delivered / "mlp.onnx"), tmp_path / "model.onnx"
    change(graph)
    onnx.save(graph, path)
    kind = np.float16 if change is halved else np.float32
    rows = rows_for(path, splits["validation"].take(slice(0, 300)))
    rows = Rows({name: x.astype(kind) for name, x in rows.inputs.items()}, labels=rows.labels, digest=rows.digest)
    made = quantized(path, params, rows, tmp_path / "made")
    assert isinstance(made, Applied), made
    assert made.summary.endswith("2 layers")
    before, after = (open_model(file, EngineOptions()) for file in (path, made.model))
    assert before.signature == after.signature
    assert float(agreement(predict(before, rows), predict(after, rows)).mean()) > 0.97


def test_constants_inside_branches_are_widened_too(tmp_path: Path) -> None:
    """A graph with branches computes the same in float32, and its output keeps float16."""
    half = TensorProto.FLOAT16
    constant = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array([2], np.float16)))
    twice = helper.make_graph(
        [constant, helper.make_node("Mul", ["x", "two"], ["doubled"])],
        "twice",
        [],
        [helper.make_tensor_value_info("doubled", half, [None])],
    )
    same = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])],
        "same",
        [],
        [helper.make_tensor_value_info("same", half, [None])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["on"], ["y"], then_branch=twice, else_branch=same)],
        "branches",
        [helper.make_tensor_value_info("x", half, [None]), helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", half, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    preparing.widen(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "wide.onnx")
    session = open_model(tmp_path / "wide.onnx", EngineOptions())
    for on, expected in ((True, 3.0), (False, 1.5)):
        (answer,) = session.run({"x": np.array([1.5], np.float16), "on": np.array(on)}).values()
        assert str(answer.dtype) == "float16"
        assert answer.tolist() == [expected]


@pytest.mark.parametrize("scheme", LINES)
def test_one_line_is_what_the_library_does_with_its_defaults(
    scheme: str, delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """Nothing is prepared or chosen: the bytes are those of the call in the library's documentation."""
    model = delivered / "mlp.onnx"
    rows = rows_for(model, splits["training"])
    made = quantized(model, LINES[scheme], rows, tmp_path / "made")
    assert isinstance(made, Applied), made
    assert made.summary.startswith(f"quantize_{scheme} as one line: ")
    assert is_quantized(graph_of(made.model))
    if scheme == "dynamic":
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(model, tmp_path / "plain.onnx")
        assert made.model.read_bytes() == (tmp_path / "plain.onnx").read_bytes()


def test_a_model_that_one_line_leaves_as_it_was_is_told_so(splits: dict[str, Rows], tmp_path: Path) -> None:
    """A file that is as it was is no candidate, whatever the library calls it."""
    path = tmp_path / "plain.onnx"
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"])],
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    made = quantized(path, LINES["dynamic"], rows_for(path, splits["training"]), tmp_path / "made")
    assert made == Skipped(reason="quantize_dynamic finds nothing to quantize in it")
