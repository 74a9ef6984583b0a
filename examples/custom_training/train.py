"""A training program of your own, for technique CustomTraining: a perceptron that stands in for a larger classifier.

It shows all that such a program has to do. Environment variables name data, delivered model, parameters and seed. It
writes a line of JSON after each epoch, and at the end a model with the inputs and outputs of the delivered one.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.neural_network import MLPClassifier

Array = NDArray[Any]

EPOCHS = 25


def rows(variable: str, input_name: str) -> tuple[Array, Array]:
    """Return inputs (N, F) and labels (N,) of the data file that an environment variable names."""
    file = np.load(os.environ[variable], allow_pickle=False)
    return file[input_name], file["label"]


def train(input_name: str) -> MLPClassifier:
    """Return the network after all epochs; its quality after each of them is written to RETUNE_METRICS."""
    inputs, labels = rows("RETUNE_TRAINING_DATA", input_name)
    unseen, truth = rows("RETUNE_VALIDATION_DATA", input_name)
    network = MLPClassifier(
        (int(os.environ["RETUNE_PARAM_HIDDEN"]),),
        learning_rate_init=float(os.environ["RETUNE_PARAM_LEARNING_RATE"]),
        random_state=int(os.environ["RETUNE_SEED"]),
    )
    with Path(os.environ["RETUNE_METRICS"]).open("a", buffering=1) as metrics:
        for epoch in range(1, EPOCHS + 1):
            network.partial_fit(inputs, labels, classes=np.unique(labels))
            metrics.write(json.dumps({"epoch": epoch, "quality": network.score(unseen, truth)}) + "\n")
    return network


def save(network: MLPClassifier, path: Path, delivered: onnx.GraphProto) -> None:
    """Write the network as ONNX with the delivered model's input and outputs: labels if it has them, then scores."""
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    if w2.shape[1] == 1:  # scikit-learn keeps one score for two classes
        w2, b2 = np.hstack([-w2, w2]) / 2, np.concatenate([-b2, b2]) / 2
    input_name, *labels, scores = (value.name for value in (*delivered.input, *delivered.output))
    nodes = [
        helper.make_node("Gemm", [input_name, "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"]),
        helper.make_node("Softmax", ["z"], [scores], axis=-1),
    ]
    for label in labels:
        nodes.append(helper.make_node("ArgMax", ["z"], ["best"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Gather", ["classes", "best"], [label]))
    weights = {name: values.astype(np.float32) for name, values in {"w1": w1, "b1": b1, "w2": w2, "b2": b2}.items()}
    weights["classes"] = network.classes_.astype(np.int64)
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "perceptron", delivered.input, delivered.output, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def main() -> None:
    """Train and save."""
    delivered = onnx.load(os.environ["RETUNE_MODEL"]).graph
    save(train(delivered.input[0].name), Path(os.environ["RETUNE_OUTPUT"]) / "model.onnx", delivered)


main()
