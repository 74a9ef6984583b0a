"""A training program of one's own, for technique CustomTraining: a perceptron that stands in for a larger classifier.

It shows all there is to the agreement: data, delivered model, parameters and seed come in by environment variables, one
line of JSON an epoch goes out, and at the end a model that takes and answers what the delivered one does.
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


def rows(variable: str, taken: str) -> tuple[Array, Array]:
    """Return inputs (N, F) and labels (N,) of the data file that a variable names; `taken` is the model's input."""
    file = np.load(os.environ[variable], allow_pickle=False)
    return file[taken], file["label"]


def train(taken: str) -> MLPClassifier:
    """Return the network after all epochs, each of which is told."""
    (inputs, labels), (unseen, truth) = (rows(f"RETUNE_{part}_DATA", taken) for part in ("TRAINING", "VALIDATION"))
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
    """Write the network as ONNX with the delivered model's input and outputs: labels if any, then scores."""
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    if w2.shape[1] == 1:  # scikit-learn keeps one score for two classes
        w2, b2 = np.hstack([-w2, w2]) / 2, np.concatenate([-b2, b2]) / 2
    taken, *labels, scores = (each.name for each in (*delivered.input, *delivered.output))
    nodes = [
        helper.make_node("Gemm", [taken, "w1", "b1"], ["h"]),
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
