"""A network that is right as trained and broken by plain 8-bit quantization, as it happens with transformers."""

import warnings
from pathlib import Path

import numpy as np
from onnx import helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from tests.unit.jobs import models_for_tests as models

LOUDER = 3000.0


def save_outliers(path: Path) -> Path:
    """Save a trained network of five layers in which one hidden unit speaks 3,000 times louder and is heard as softly.

    Its answers are those of the network as trained; only the range of what layer1 says is too wide for 8 bits.
    """
    network = MLPClassifier(hidden_layer_sizes=(64, 64, 64, 64), max_iter=60, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(*models.digits("training"))
    unit = int(np.argmax(np.abs(network.coefs_[1]).sum(axis=0)))
    network.coefs_[1][:, unit] *= LOUDER
    network.intercepts_[1][unit] *= LOUDER
    network.coefs_[2][unit] /= LOUDER
    nodes, tensor = [], "x"
    weights: dict[str, np.ndarray] = {}
    for number, (matrix, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        weights |= {f"w{number}": matrix, f"b{number}": bias}
        layer = helper.make_node("Gemm", [tensor, f"w{number}", f"b{number}"], [f"z{number}"], name=f"layer{number}")
        kind, tensor = ("Relu", f"a{number}") if number < 4 else ("Softmax", "scores")
        nodes += [layer, helper.make_node(kind, [f"z{number}"], [tensor], name=f"act{number}")]
    return models.save_graph(path, nodes, weights)
