"""ONNX files as the exporters of others write them: maps for rows, old operators, half precision, one row at a time.

Weights come from scikit-learn's perceptrons; the graphs are those that exporters of networks write.
"""

import locale
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

from tests.foreign.answers import answer_file
from tests.foreign.corpus import data
from tests.foreign.corpus.fitted import deliver
from tests.foreign.corpus.pipelines import titles, titles_model
from tests.foreign.delivered import Array, Delivered, Foreign, save, split, take

_HIDDEN = (384, 384)
_STEPS = 24


def _exported(model: Callable[[], Any], opset: int, folder: Path) -> Delivered:
    """A classifier as skl2onnx exports it by default: labels as text, probabilities as one map a row."""
    X, y = data.digits()

    def saved(fitted: Any, folder: Path) -> Path:
        versions = {"": opset, "ai.onnx.ml": 2 if opset < 13 else 3}
        path = folder / "model.onnx"
        path.write_bytes(to_onnx(fitted, X[:1], target_opset=versions).SerializeToString())
        return path

    return deliver(folder, model(), {"x": X}, np.array([f"digit {number}" for number in y]), saved=saved)


def _titles(folder: Path) -> Delivered:
    """A classifier of texts as its author exported it, with the words inside the graph."""
    columns, kind = titles()

    def saved(fitted: Any, folder: Path) -> Path:
        path, kinds = folder / "model.onnx", [("title", StringTensorType([None, 1]))]
        options = {id(fitted): {"zipmap": False}}
        path.write_bytes(to_onnx(fitted, initial_types=kinds, options=options, target_opset=17).SerializeToString())
        return path

    return deliver(folder, titles_model(), columns, kind, saved=saved, as_="csv")


def _layers(model: Any, dtype: type[np.generic], source: str, last: str) -> tuple[list[NodeProto], list[Any]]:
    """Return nodes and weights of a perceptron as exporters of networks write it."""
    nodes, weights, current = [], [], source
    for number, (matrix, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        is_last = number == len(model.coefs_) - 1
        weights += [
            numpy_helper.from_array(matrix.astype(dtype), f"fc{number}.weight"),
            numpy_helper.from_array(bias.astype(dtype), f"fc{number}.bias"),
        ]
        result = last if is_last else f"fc{number}"
        nodes.append(helper.make_node("Gemm", [current, f"fc{number}.weight", f"fc{number}.bias"], [result]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [result], [f"relu{number}"]))
            current = f"relu{number}"
    return nodes, weights


def _save(
    folder: Path,
    nodes: Sequence[NodeProto],
    weights: Sequence[Any],
    *,
    opset: int,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
) -> Path:
    graph = helper.make_graph(nodes, "main_graph", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _perceptron(X: Array, y: Array, model: Any | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a short training that has not converged
        return (model or MLPClassifier(_HIDDEN, max_iter=6, random_state=0)).fit(X, y)


def _digits() -> tuple[Array, Array]:
    """Return the digits twice, with noise: pixels (N, 64) from 0 to 16."""
    X, y = data.digits()
    random = np.random.default_rng(0)
    pixels = np.repeat(X * 16, 2, axis=0) + random.normal(0, 1.2, (2 * len(X), 64))
    return np.clip(pixels, 0, 16).round(), np.repeat(y, 2)


def _picture_net(folder: Path, *, dtype: str, pixels: str, rows: int | str, opset: int) -> Delivered:
    """A classifier of digits whose numbers, input type, batch or operators are unusual."""
    X, y = _digits()
    parts = split(len(y))
    model = _perceptron(X[parts["train"]] / 16, y[parts["train"]])
    number, source = np.dtype(dtype), np.dtype(pixels)
    kind, given = (helper.np_dtype_to_tensor_dtype(each) for each in (number, source))
    nodes, weights = _layers(model, number.type, "scaled", "logits")
    first = [] if kind == given else [helper.make_node("Cast", ["image"], ["cast"], to=kind)]
    scale = helper.make_node("Mul", ["cast" if first else "image", "scale"], ["scaled"])
    path = _save(
        folder,
        [*first, scale, *nodes, helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)],
        [*weights, numpy_helper.from_array(np.array(1 / 16, number), "scale")],
        opset=opset,
        inputs=[helper.make_tensor_value_info("image", given, [rows, 64])],
        outputs=[helper.make_tensor_value_info("probabilities", kind, [rows, 10])],
    )
    return _delivered(folder, path, {"image": X.astype(source)}, y, parts)


def _sigmoid(folder: Path) -> Delivered:
    """A classifier of two classes with one number a row, as binary losses want it."""
    X, y = data.classes(2)
    parts = split(len(y))
    nodes, weights = _layers(_perceptron(X[parts["train"]], y[parts["train"]]), np.float32, "features", "logit")
    path = _save(
        folder,
        [*nodes, helper.make_node("Sigmoid", ["logit"], ["score"])],
        weights,
        opset=17,
        inputs=[helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", X.shape[1]])],
        outputs=[helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])],
    )
    return _delivered(folder, path, {"features": X}, y, parts)


def _forecast(folder: Path) -> Delivered:
    """A forecast of the next day's hours from the last two days', several numbers a row."""
    random = np.random.default_rng(0)
    start, phase = random.uniform(0, 24, 4000), random.normal(3, 0.5, 4000)
    hours = start[:, np.newaxis] + np.arange(3 * _STEPS)
    series = phase[:, np.newaxis] * np.sin(2 * np.pi * hours / _STEPS) + random.normal(0, 0.3, hours.shape)
    X, y = series[:, : 2 * _STEPS].astype(np.float32), series[:, 2 * _STEPS :]
    parts = split(len(y))
    model = _perceptron(
        X[parts["train"]], y[parts["train"]], MLPRegressor(hidden_layer_sizes=(256, 256), max_iter=12, random_state=0)
    )
    nodes, weights = _layers(model, np.float32, "history", "forecast")
    path = _save(
        folder,
        nodes,
        weights,
        opset=15,
        inputs=[helper.make_tensor_value_info("history", TensorProto.FLOAT, ["batch", 2 * _STEPS])],
        outputs=[helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["batch", _STEPS])],
    )
    return _delivered(folder, path, {"history": X}, y, parts)


def _two_heads(folder: Path) -> Delivered:
    """Digits with the last hidden layer as a second output, which knows nothing of classes."""
    X, y = _digits()
    X = X / 16
    parts = split(len(y))
    nodes, weights = _layers(_perceptron(X[parts["train"]], y[parts["train"]]), np.float32, "image", "logits")
    path = _save(
        folder,
        nodes,
        weights,
        opset=18,
        inputs=[helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        outputs=[
            helper.make_tensor_value_info("relu1", TensorProto.FLOAT, ["batch", _HIDDEN[-1]]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]),
        ],
    )
    return _delivered(folder, path, {"image": X.astype(np.float32)}, y, parts, answer="logits")


def _delivered(
    folder: Path, model: Path, columns: dict[str, Array], labels: Array, parts: Any, *, answer: str | None = None
) -> Delivered:
    save(folder, columns, labels, parts=parts)
    test = take(columns, parts["test"])
    native = answer_file(model, test)
    return Delivered(model=model, rows=test, labels=labels[parts["test"]], native=native, answer=answer)


def _picture(
    name: str, *, dtype: str = "float32", pixels: str = "float32", rows: int | str = "N", opset: int
) -> Foreign:
    make = partial(_picture_net, dtype=dtype, pixels=pixels, rows=rows, opset=opset)
    return Foreign(name=name, make=make, float_net=True, slice=name == "net-old-operators")


def _has_english() -> bool:
    """Whether this machine has the locale in which exporters have text made lower case."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "en_US.UTF-8")
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True


_PERCEPTRON = partial(MLPClassifier, (256,), max_iter=20, random_state=0)
_FOREST = partial(RandomForestClassifier, 60, random_state=0)
MODELS = (
    _picture("net-half-precision", dtype="float16", pixels="float16", opset=17),
    _picture("net-one-row", rows=1, opset=13),
    _picture("net-old-operators", pixels="uint8", opset=11),
    Foreign(name="net-sigmoid", make=_sigmoid, float_net=True),
    Foreign(name="net-forecast", make=_forecast, float_net=True),
    Foreign(name="net-two-heads", make=_two_heads, float_net=True),
    Foreign(name="exported-perceptron-maps", make=partial(_exported, _PERCEPTRON, 17), float_net=True),
    Foreign(name="exported-forest-maps", make=partial(_exported, _FOREST, 11)),
    Foreign(name="exported-linear-maps", make=partial(_exported, LogisticRegression, 15)),
    Foreign(name="exported-titles", make=_titles, refused=None if _has_english() else "asks for a locale"),
)
