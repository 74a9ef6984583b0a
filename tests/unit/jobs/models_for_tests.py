"""Small real classifiers as ONNX files, trained on the digits images without torch.

All take the same rows, pixels (N, 64) between 0 and 1, so that one data set fits every model.
"""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from optimizer_jobs.signature import Signature, TensorSpec
from optimizer_jobs.technique import Subject
from retune.api.model import Task

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

OPSET = 17
IR_VERSION = 8
SPLITS = {"training": slice(0, 900), "validation": slice(900, 1300), "test": slice(1300, 1797)}
"""Rows of the shuffled digits in each split."""


def digits(split: str) -> tuple[Floats, Labels]:
    """Return pixels (N, 64) between 0 and 1 and labels (N,) of one split; the splits share no row."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[SPLITS[split]]
    return (X[order] / 16).astype(np.float32), y[order].astype(np.int64)


def save_digits(folder: Path) -> None:
    """Write training.npz, validation.npz and test.npz with arrays `x` and `label`."""
    for split in SPLITS:
        X, y = digits(split)
        np.savez(folder / f"{split}.npz", x=X, label=y)


def fit_mlp(*, hidden: int = 256) -> MLPClassifier:
    """Train a multilayer perceptron on the training split."""
    network = MLPClassifier(hidden_layer_sizes=(hidden,), max_iter=40, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(*digits("training"))


def save_mlp(path: Path, network: MLPClassifier) -> Path:
    """Save a multilayer perceptron as a graph of two Gemm nodes: input `x`, output `scores`."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"], name="head"),
        helper.make_node("Softmax", ["z"], ["scores"], name="softmax", axis=-1),
    ]
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    return save_graph(path, nodes, {"w1": w1, "b1": b1, "w2": w2, "b2": b2})


def save_sklearn(path: Path, network: MLPClassifier) -> Path:
    """Convert the same network with skl2onnx: outputs `label` (int64) and `probabilities`."""
    from skl2onnx import to_onnx

    model = to_onnx(network, digits("training")[0][:1], options={"zipmap": False}, target_opset=OPSET)
    path.write_bytes(model.SerializeToString())
    return path


def save_conv(path: Path) -> Path:
    """Save a small convolutional network: fixed random filters, and a dense head fitted on what they see."""
    random = np.random.default_rng(0)
    weights = {
        "image": np.array([0, 1, 8, 8], dtype=np.int64),
        "k1": random.normal(0, 0.4, (16, 1, 3, 3)),
        "c1": random.normal(0, 0.1, 16),
        "k2": random.normal(0, 0.1, (32, 16, 3, 3)),
        "c2": random.normal(0, 0.1, 32),
    }
    trunk = [
        helper.make_node("Reshape", ["x", "image"], ["i"], name="reshape"),
        helper.make_node("Conv", ["i", "k1", "c1"], ["a1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "k2", "c2"], ["a2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a2"], ["r2"], name="relu2"),
        helper.make_node("MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
    ]
    save_graph(path, trunk, weights, output="f", width=512)
    X, y = digits("training")
    features = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["f"], {"x": X})[0]
    head = LogisticRegression(max_iter=1000).fit(features, y)
    scores = helper.make_node("Gemm", ["f", "w", "b"], ["scores"], name="head")
    return save_graph(path, [*trunk, scores], {**weights, "w": head.coef_.T, "b": head.intercept_})


def save_graph(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, NDArray[np.generic]],
    *,
    output: str = "scores",
    width: int = 10,
    batch: int | str = "N",
    domains: Sequence[str] = (),
) -> Path:
    """Write an ONNX file with input `x` (batch, 64) and one float output (batch, width)."""
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 64])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(_single(values), name) for name, values in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tests"), path)
    return path


def subject(*, calibration: bool = True) -> Subject:
    """Return what a technique sees of a small network of two layers before it is used."""
    with tempfile.TemporaryDirectory() as folder:
        graph = onnx.load(save_mlp(Path(folder) / "mlp.onnx", fit_mlp(hidden=8)))
    pixels = TensorSpec(name="x", dtype="float32", shape=(-1, 64))
    scores = TensorSpec(name="scores", dtype="float32", shape=(-1, 10))
    signature = Signature(inputs=(pixels,), outputs=(scores,))
    return Subject(
        graph=graph, signature=signature, task=Task.CLASSIFICATION, training=calibration, calibration=calibration
    )


def save_external(path: Path, model: Path, *, location: str) -> Path:
    """Write a copy of `model` that names `location` as the file of all its weights; that file is not written."""
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, location=location)
        tensor.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    return path


def _single(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values if values.dtype == np.int64 else values.astype(np.float32)
