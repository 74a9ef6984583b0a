"""ONNX files as strangers' exporters write them: maps, missing versions, functions, old operators, 16-bit floats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier

from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.compress import preparing
from optimizer_jobs.machinery.formats.delivery import fetch_model
from optimizer_jobs.machinery.formats.onnx_files import REWRITTEN, Checked, answer, check_in_sandbox
from optimizer_jobs.signature import Signature
from optimizer_jobs.technique import Applied, Context, Params
from optimizer_jobs.techniques import quantization
from retune.api.model import Model
from tests.unit.jobs import models_for_tests as models

_URI = "pvc://models/model.onnx"
_WIDTH = 64


def _save(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: dict[str, Any],
    *,
    opsets: dict[str, int],
    kind: int = TensorProto.FLOAT,
    functions: Sequence[onnx.FunctionProto] = (),
) -> Path:
    """Write a graph from `x` (N, 64) to `scores` (N, 10), both of one kind of numbers."""
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", kind, ["N", _WIDTH])],
        [helper.make_tensor_value_info("scores", kind, ["N", 10])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets.items()]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions), path)
    return path


def _layers(dtype: Any = np.float32) -> tuple[list[NodeProto], dict[str, Any]]:
    """Return the nodes and weights of a small network."""
    random = np.random.default_rng(0)
    weights = {"w1": random.normal(0, 0.2, (_WIDTH, 32)), "w2": random.normal(0, 0.2, (32, 10))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["scores"]),
    ]
    return nodes, {name: values.astype(dtype) for name, values in weights.items()}


def _checked(path: Path) -> Checked:
    """Return the checked file as the child process leaves it, without the process."""
    reply = answer({"path": str(path), "uri": _URI})
    rewritten = path.with_name(REWRITTEN) if reply["changes"] else path
    return Checked(rewritten, Signature.model_validate(reply["signature"]), tuple(reply["classes"]))


def _answers(path: Path, X: Any) -> list[Any]:
    answers: list[Any] = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": X})
    return answers


@pytest.mark.parametrize("labels", [np.arange(10), np.array(list("abcdefghij"))], ids=["numbers", "text"])
def test_maps_of_scores_become_a_matrix(labels: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the output's own name, the same scores, and the maps' keys as classes; the change is said."""
    from skl2onnx import to_onnx

    X, y = models.digits("training")
    forest = RandomForestClassifier(5, random_state=0).fit(X, labels[y])
    model = to_onnx(forest, X[:1], target_opset=17)
    model.graph.input[0].name = "x"
    for node in model.graph.node:
        node.input[:] = ["x" if name == "X" else name for name in node.input]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    checked = check_in_sandbox(path, uri=_URI)
    assert checked.classes == (tuple(labels.tolist()) if labels.dtype.kind == "U" else ())
    assert [(spec.name, spec.shape) for spec in checked.signature.outputs][1] == ("output_probability", (-1, 10))
    label, scores = _answers(checked.path, X[:50])
    _, maps = _answers(path, X[:50])
    assert np.array_equal(scores, np.array([[row[key] for key in labels.tolist()] for row in maps], np.float32))
    assert label.tolist() == forest.predict(X[:50]).tolist()
    assert "output 'output_probability' is one matrix of scores, not a map for each row" in capsys.readouterr().out


def test_a_file_of_trees_alone_gets_a_version_of_the_standard_operators(tmp_path: Path) -> None:
    """Exporters of boosted trees leave it out, and tools that read the file then fail."""
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=10,
        nodes_treeids=[0],
        nodes_nodeids=[0],
        nodes_featureids=[0],
        nodes_modes=["LEAF"],
        nodes_values=[0.0],
        nodes_truenodeids=[0],
        nodes_falsenodeids=[0],
        target_treeids=[0],
        target_nodeids=[0],
        target_ids=[3],
        target_weights=[2.0],
    )
    path = _save(tmp_path / "model.onnx", [trees], {}, opsets={"ai.onnx.ml": 1})
    checked = _checked(path)
    assert {opset.domain for opset in onnx.load(checked.path).opset_import} == {"", "ai.onnx.ml"}
    X = models.digits("validation")[0]
    assert np.array_equal(_answers(checked.path, X)[0], _answers(path, X)[0])


def test_functions_of_the_model_are_part_of_its_graph(tmp_path: Path) -> None:
    """Techniques look for layers in the graph."""
    nodes, weights = _layers()
    imports = [helper.make_opsetid("", 17)]
    block = helper.make_function(
        "own", "Block", ["a", "b"], ["c"], [helper.make_node("MatMul", ["a", "b"], ["c"])], imports
    )
    nodes[0] = helper.make_node("Block", ["x", "w1"], ["h"], domain="own")
    path = _save(tmp_path / "m.onnx", nodes, weights, opsets={"": 17, "own": 1}, functions=[block])
    checked = _checked(path)
    graph = onnx.load(checked.path)
    assert not graph.functions
    assert [node.op_type for node in graph.graph.node] == ["MatMul", "Relu", "MatMul"]
    X = models.digits("validation")[0]
    assert np.array_equal(_answers(checked.path, X)[0], _answers(path, X)[0])


def test_a_file_in_the_usual_form_stays_as_it_is(tmp_path: Path) -> None:
    """Its bytes are version 1."""
    nodes, weights = _layers()
    path = _save(tmp_path / "m.onnx", nodes, weights, opsets={"": 17})
    assert _checked(path).path == path


def test_bfloat16_is_refused_by_name(tmp_path: Path) -> None:
    """ONNX Runtime has no such products on a CPU."""
    nodes, _ = _layers()
    path = _save(tmp_path / "m.onnx", nodes, {}, opsets={"": 17}, kind=TensorProto.BFLOAT16)
    model = onnx.load(path)
    for name, shape in (("w1", (_WIDTH, 32)), ("w2", (32, 10))):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.BFLOAT16, shape, np.ones(shape).ravel()))
    onnx.save(model, path)
    with pytest.raises(
        JobError, match=r"is bfloat16, and ONNX Runtime does not compute .* Export the model in float32"
    ):
        _checked(path)


def _context(path: Path, workdir: Path, dtype: Any) -> Context:
    """Return what quantization may use on the file."""
    from optimizer_jobs.data.datasets import Rows

    workdir.mkdir()
    X, y = models.digits("training")
    rows = Rows(inputs={"x": X.astype(dtype)}, labels=y, digest="training")
    signature = _checked(path).signature
    return Context(workdir=workdir, signature=signature, calibration=rows, seed=0, cpu_flags=frozenset())


@pytest.mark.parametrize(("opset", "dtype"), [(11, np.float32), (17, np.float16), (12, np.float16)])
@pytest.mark.parametrize("scheme", ["Static", "Dynamic"])
def test_old_operators_and_16_bit_weights_are_quantized_to_8_bits(
    scheme: str, opset: int, dtype: Any, tmp_path: Path
) -> None:
    """Per channel, with inputs and outputs of the types that they had, and close answers."""
    nodes, weights = _layers(dtype)
    kind = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
    path = _save(tmp_path / "m.onnx", nodes, weights, opsets={"": opset}, kind=kind)
    context = _context(path, tmp_path / "work", dtype)
    static: Params = {"method": "MinMax", "samples": 200, "scope": "Layers", "fallback": "None"}
    params: Params = {"scheme": scheme, "per_channel": True, **(static if scheme == "Static" else {})}
    done = quantization.apply(path, params, context)
    assert isinstance(done, Applied), done
    graph = onnx.load(done.model)
    assert sum(tensor.data_type == TensorProto.INT8 for tensor in graph.graph.initializer) >= 2
    X = models.digits("validation")[0].astype(dtype)
    given, expected = _answers(done.model, X)[0], _answers(path, X)[0]
    assert given.dtype == dtype
    assert np.abs(given - expected).mean() < 0.02 * np.abs(expected).max()


def test_numbers_in_inner_graphs_become_single_precision_too() -> None:
    """A branch that computes in float16 must agree with the graph around it."""
    half = numpy_helper.from_array(np.ones(1, np.float16), "one")
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [half],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["scores"], then_branch=branch, else_branch=branch)],
        "outer",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N"]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["N"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    preparing.widen(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"c": np.asarray(1, bool), "x": np.ones(3, np.float16)})
    assert (answer.dtype, answer.tolist()) == (np.float16, [2.0, 2.0, 2.0])


def test_a_keras_file_is_refused_with_the_line_that_exports_it(tmp_path: Path) -> None:
    """Whatever format the spec says: the Job says the same as `retune init`, and fetches nothing."""
    with pytest.raises(JobError, match="it is a Keras model, which only Keras reads") as refused:
        fetch_model(Model(uri="pvc://models/net.keras"), tmp_path)
    assert 'format="onnx"' in refused.value.next_step
