"""A graph becomes a network that answers as ONNX Runtime does, and a file again that nobody can tell from the first."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from optimizer_jobs.models.onnx_file import check_onnx  # noqa: E402
from optimizer_jobs.nets.conversion.exporter import ExportError, export  # noqa: E402
from optimizer_jobs.nets.conversion.graph import attributes_of, function_of  # noqa: E402
from optimizer_jobs.nets.conversion.importer import NotImportableError, import_module, not_importable  # noqa: E402
from optimizer_jobs.nets.conversion.values import as_tensor  # noqa: E402
from optimizer_jobs.signature import Signature, TensorSpec  # noqa: E402
from tests.unit.jobs import graphs_for_tests as graphs  # noqa: E402
from tests.unit.jobs import models_for_tests as models  # noqa: E402

pytestmark = pytest.mark.torch

EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
SCORES = TensorSpec(name="scores", dtype="float32", shape=(-1, 10))
DIGITS = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 64)),), outputs=(SCORES,))


def _run(path: Path, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return list(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds))


@EXPORTERS
@pytest.mark.parametrize("name", list(graphs.NETWORKS))
def test_network_answers_as_onnx_runtime_and_its_file_does_again(name: str, dynamo: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Any number of rows, and of tokens, gives the same answers in the file, the network and the file made of it."""
    model = graphs.save(name, tmp_path / "model.onnx", dynamo=dynamo)
    module, rows = import_module(model), graphs.inputs(name)
    export(module, signature=check_onnx(model), examples={"x": rows.numpy()}, target=tmp_path / "again.onnx")
    shorter = rows[:3, :40].contiguous() if name == "encoder" else rows[:1]
    for given in (rows, rows[:5], shorter):
        (wanted,) = _run(model, {"x": given.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(module(given).numpy(), wanted, atol=1e-4)
        np.testing.assert_allclose(_run(tmp_path / "again.onnx", {"x": given.numpy()})[0], wanted, atol=1e-4)
    assert check_onnx(tmp_path / "again.onnx") == check_onnx(model)


@pytest.mark.parametrize("name", list(graphs.NETWORKS))
def test_layers_with_weights_are_those_of_torch(name: str, tmp_path: Path) -> None:
    """Everything that the network had as linear layer or convolution is one again, of the same size."""
    original = graphs.network(name)
    module = import_module(graphs.save(name, tmp_path / "model.onnx", dynamo=False))
    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Embedding)
    shapes = [[layer.weight.shape for layer in net.modules() if isinstance(layer, kinds)] for net in (original, module)]
    assert sorted(shapes[0]) == sorted(shapes[1])


def test_gradient_reaches_every_weight(tmp_path: Path) -> None:
    """A step of training changes all layers of an imported network."""
    module = import_module(graphs.save("residual", tmp_path / "model.onnx", dynamo=True)).train()
    labels = torch.from_numpy(models.digits("training")[1][:6])
    torch.nn.functional.cross_entropy(module(graphs.inputs("residual")), labels).backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in module.parameters())


def test_same_weights_give_the_same_bytes_without_a_path(tmp_path: Path) -> None:
    """Two exports in two folders are equal byte by byte, and name no file of this machine."""
    model = graphs.save("convolutions", tmp_path / "model.onnx", dynamo=False)
    files = [tmp_path / "one.onnx", tmp_path / "other.onnx"]
    for target in files:
        export(
            import_module(model), signature=check_onnx(model), examples={"x": graphs.pixels().numpy()}, target=target
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b".py" not in files[0].read_bytes()
    assert str(tmp_path).encode() not in files[0].read_bytes()


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("text", [True, False], ids=["text", "numbers"])
def test_labels_of_a_scikit_learn_classifier_come_back(opset: int, text: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Scaler and perceptron are imported up to the probabilities; the file made of them gives the same labels."""
    from skl2onnx import to_onnx

    data = load_breast_cancer()
    X, y = data.data.astype(np.float32), data.target_names[data.target].astype(str) if text else data.target
    fitted = make_pipeline(StandardScaler(), MLPClassifier((16,), tol=1e-3, max_iter=500, random_state=0)).fit(X, y)
    made = to_onnx(fitted, X[:1], options={"zipmap": False}, target_opset={"": opset, "ai.onnx.ml": 3})
    model, again = tmp_path / "model.onnx", tmp_path / "again.onnx"
    model.write_bytes(made.SerializeToString())
    export(import_module(model), signature=check_onnx(model), examples={"X": X[:4]}, target=again)
    (labels, scores), (labels_again, scores_again) = (_run(path, {"X": X}) for path in (model, again))
    assert labels.tolist() == labels_again.tolist()
    np.testing.assert_allclose(scores_again, scores, atol=1e-5)
    assert check_onnx(again) == check_onnx(model)


def test_unknown_operator_is_named(tmp_path: Path) -> None:
    """A recurrent network says which operator stands in the way, before and when it is imported."""
    model = graphs.save("recurrent", tmp_path / "model.onnx", dynamo=False)
    reason = not_importable(onnx.load(model))
    assert reason == "the model has operator GRU, which cannot be trained again"
    with pytest.raises(NotImportableError, match="operator GRU"):
        import_module(model)


def test_weights_of_half_precision_are_named(tmp_path: Path) -> None:
    """A file in 16-bit floats is refused by the type of its weights."""
    model = onnx.load(models.save_mlp(tmp_path / "model.onnx", models.fit_mlp(hidden=8)))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    assert "weights of type float16" in str(not_importable(model))


def test_weights_beside_the_file_need_not_be_there_to_ask(tmp_path: Path) -> None:
    """Whether a graph can be imported is told without its external data."""
    model = models.save_mlp(tmp_path / "model.onnx", models.fit_mlp(hidden=8))
    apart = models.save_external(tmp_path / "apart.onnx", model, location="weights.bin")
    assert not_importable(onnx.load(apart, load_external_data=False)) is None


def test_nodes_with_the_same_weights_are_one_layer(tmp_path: Path) -> None:
    """A layer that a graph uses twice stays one, so that training does not double the file."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w"], ["c"], name="second"),
        helper.make_node("Gemm", ["c", "head"], ["scores"], name="last"),
    ]
    network = models.fit_mlp(hidden=64)
    weights = {"w": network.coefs_[0], "head": network.coefs_[1]}
    module = import_module(models.save_graph(tmp_path / "model.onnx", nodes, weights))
    assert sum(weight.numel() for weight in module.parameters()) == 64 * 64 + 64 * 10


class _Stuck(torch.nn.Module):  # type: ignore[misc, name-defined] # the library has no types
    """Answers with a number of rows that is fixed when it is traced."""

    def forward(self, x: Any) -> Any:
        return x[:, :10] + torch.zeros(int(x.shape[0]), 10)


def test_size_that_is_stuck_in_the_file_is_an_error(tmp_path: Path) -> None:
    """A file that only takes as many rows as the examples have is not handed on."""
    with pytest.raises(ExportError, match=r"shape \(3, 64\)|differs"):
        export(_Stuck(), signature=DIGITS, examples={"x": graphs.pixels().numpy()}, target=tmp_path / "model.onnx")


class _Named(torch.nn.Module):  # type: ignore[misc, name-defined] # the library has no types
    """Has a weight of the output's name."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        return self.scores(x)


def test_output_may_have_the_name_of_something_inside(tmp_path: Path) -> None:
    """Names of the signature win over names that the exporter makes."""
    export(_Named(), signature=DIGITS, examples={"x": graphs.pixels().numpy()}, target=tmp_path / "model.onnx")
    assert check_onnx(tmp_path / "model.onnx") == DIGITS


IMAGE = (6, 1, 8, 8)
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "same upper": ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same lower": ("AveragePool", [IMAGE], {"kernel_shape": [4, 4], "strides": [1, 3], "auto_pad": "SAME_LOWER"}),
    "uneven pads": ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "strides": [2, 2]}),
    "pads counted": ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    "pool upwards": ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "largest of all": ("GlobalMaxPool", [IMAGE], {}),
    "pad some axes": ("Pad", [(6, 64), np.array([1, 2]), np.float32(3), np.array([1])], {}),
    "pad by mirror": ("Pad", [IMAGE, np.array([0, 0, 1, 1, 0, 0, 2, 2])], {"mode": "reflect"}),
    "slice backwards": ("Slice", [(6, 64), *(np.array([n]) for n in (-1, -60, 1, -3))], {}),
    "slice to the end": ("Slice", [(6, 64), *(np.array([n]) for n in (10, 2**63 - 1, 1))], {}),
    "split unevenly": ("Split", [(6, 64), np.array([10, 54])], {"axis": 1}),
    "gather rows": ("Gather", [(6, 64), np.array([[0, -1], [2, 3]])], {"axis": 1}),
    "gather elements": ("GatherElements", [(6, 64), np.array([[0, -1], [2, 3]] * 3)], {"axis": 1}),
    "gather one": ("Gather", [(6, 64), np.int64(5)], {"axis": 1}),
    "clip below": ("Clip", [(6, 64), np.float32(0.25)], {}),
    "mean over some": ("ReduceMean", [IMAGE], {"axes": [1, 3], "keepdims": 0}),
    "sum over one": ("ReduceSum", [(6, 64), np.array([1])], {"keepdims": 1}),
    "sum over all": ("ReduceSum", [(6, 64)], {}),
    "norm": ("ReduceL2", [(6, 64)], {"axes": [1]}),
    "largest of three": ("Max", [(6, 64), np.float32(0.5), np.full((1, 64), 0.25, np.float32)], {}),
    "softmax": ("Softmax", [IMAGE], {"axis": 2}),
    "log softmax": ("LogSoftmax", [(6, 64)], {"axis": -1}),
    "hard sigmoid": ("HardSigmoid", [(6, 64)], {"alpha": 0.3, "beta": 0.4}),
    "selu": ("Selu", [(6, 64)], {}),
    "elu": ("Elu", [(6, 64)], {"alpha": 0.5}),
    "power": ("Pow", [(6, 64), np.float32(2)], {}),
    "flatten": ("Flatten", [IMAGE], {"axis": 3}),
    "squeeze": ("Squeeze", [IMAGE, np.array([1])], {}),
    "expand": ("Expand", [(6, 1, 64), np.array([1, 4, 64])], {}),
    "tile": ("Tile", [(6, 64), np.array([2, 1])], {}),
    "where": ("Where", [np.arange(64) % 2 == 0, (6, 64), np.float32(0)], {}),
    "product": ("Gemm", [(6, 64), np.eye(10, 64, dtype=np.float32)], {"transB": 1, "alpha": 0.5}),
    "instance norm": ("InstanceNormalization", [IMAGE, np.array([2.0], np.float32), np.array([1.0], np.float32)], {}),
    "layer norm": (
        "LayerNormalization",
        [IMAGE, np.ones((8, 8), np.float32), np.ones((8, 8), np.float32)],
        {"axis": 2},
    ),
    "mean of two": ("Mean", [(6, 64), np.ones((6, 64), np.float32)], {}),
    "triangle": ("Trilu", [IMAGE, np.int64(1)], {"upper": 0}),
    "convolution": (
        "Conv",
        [IMAGE, np.ones((2, 1, 3, 3), np.float32)],
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "convolution backwards": (
        "ConvTranspose",
        [IMAGE, np.ones((1, 2, 3, 3), np.float32)],
        {"strides": [2, 2], "output_padding": [1, 1]},
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_operator_computes_what_onnx_runtime_does(case: str, tmp_path: Path) -> None:
    """Attributes and optional inputs that the networks above do not have mean the same in torch; digits go in."""
    operator, given, attributes = CASES[case]
    values = [graphs.pixels().numpy().reshape(each) if isinstance(each, tuple) else np.asarray(each) for each in given]
    names = [f"in{place}" for place in range(len(values))]
    outputs = ["y", "z"] if operator == "Split" else ["y"]
    node = helper.make_node(operator, names, outputs, **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(value.dtype) for value in values]
    described = zip(names, kinds, (value.shape for value in values), strict=True)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(*each) for each in described],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    opset = 18 if operator == "Pad" else 17
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), tmp_path / "one.onnx"
    )
    function = function_of(node)
    assert function is not None
    tensors = [torch.from_numpy(np.array(value)) for value in values]
    made = function(tensors, attributes_of(node) | {"opset": opset, "outputs": len(outputs)})
    wanted = _run(tmp_path / "one.onnx", dict(zip(names, values, strict=True)))
    for own, theirs in zip(made if operator == "Split" else [made], wanted, strict=True):
        np.testing.assert_allclose(as_tensor(own).numpy(), theirs, atol=1e-5)
