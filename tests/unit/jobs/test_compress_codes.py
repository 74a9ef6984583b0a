"""Float weights stored as 8-bit codes: a smaller file that runs as before."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress import codes
from optimizer_jobs.machinery.compress.layers import weighted
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model


def copied(model: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return a copy whose nodes have names, and the names of its layers."""
    graph = onnx.load(model)
    for number, node in enumerate(graph.graph.node):
        node.name = f"node{number}"
    onnx.save(graph, folder / "coded.onnx")
    return folder / "coded.onnx", [node.name for node in weighted(graph)]


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_a_quarter_of_the_bytes_gives_the_same_labels(
    name: str, delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """Every weight is rounded to one of 255 levels of its channel, which no digit's label depends on."""
    model, layers = copied(delivered / f"{name}.onnx", tmp_path)
    exact = open_model(model, EngineOptions()).run(splits["test"].inputs)["scores"]
    before = model.stat().st_size
    assert codes.store(model, layers) == len(layers)
    found = open_model(model, EngineOptions()).run(splits["test"].inputs)["scores"]
    assert np.mean(found.argmax(axis=1) == exact.argmax(axis=1)) > 0.99
    assert model.stat().st_size < 0.4 * before


def test_codes_are_unpacked_when_the_file_is_opened(delivered: Path, tmp_path: Path) -> None:
    """What the engine then runs looks nothing up and casts nothing: it costs what float weights cost."""
    model, layers = copied(delivered / "mlp.onnx", tmp_path)
    codes.store(model, layers)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    assert {"Gather", "Cast"} & {node.op_type for node in onnx.load(model).graph.node}
    assert not {"Gather", "Cast"} & {node.op_type for node in onnx.load(tmp_path / "opened.onnx").graph.node}


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
    ),
    st.booleans(),
)
def test_no_weight_moves_by_more_than_half_a_level(weight: np.ndarray, turned: bool) -> None:  # noqa: FBT001 - drawn
    """A level is the largest weight of an output channel over 127, whichever way round the weight lies."""
    rows, width = weight.shape[::-1] if turned else weight.shape
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transB=int(turned))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(weight, "w")],
    )
    found = unpacked(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    levels = np.abs(weight).max(axis=1 if turned else 0, keepdims=True) / 127
    assert np.all(np.abs(found - weight) <= levels * (0.5 + 1e-4))


def unpacked(model: onnx.ModelProto) -> np.ndarray:
    """Return the weight that the graph makes of its codes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        assert codes.store(path, ["layer"]) == 1
        coded = onnx.load(path)
    coded.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(coded.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = session.get_inputs()[0].shape[1]
    made: np.ndarray = session.run(["w"], {"x": np.zeros((1, rows), np.float32)})[0]
    return made


def test_a_weight_that_others_read_too_stays_as_it_is(delivered: Path, tmp_path: Path) -> None:
    """Nothing that was not named changes, and a file without work to do is not written again."""
    model, layers = copied(delivered / "mlp.onnx", tmp_path)
    graph = onnx.load(model)
    layer = next(node for node in graph.graph.node if node.name == layers[0])
    graph.graph.node.append(helper.make_node("Identity", [layer.input[1]], ["again"], name="other"))
    onnx.save(graph, model)
    before = model.read_bytes()
    assert codes.store(model, [layers[0], "no such node"]) == 0
    assert model.read_bytes() == before
