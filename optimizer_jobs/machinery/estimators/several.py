"""Estimators with several targets: their ONNX file gets one output (N, K), a number or a probability of each target."""

import warnings
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimizer_jobs.data.readers import Columns
from optimizer_jobs.machinery.estimators.inputs import MATRIX, final, fitted_names, frame, inputs_of, rows_of
from optimizer_jobs.signature import TensorSpec


def targets_of(estimator: Any, X: Any) -> int:
    """Return how many numbers or labels the estimator predicts for a row of `X`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = np.asarray(estimator.predict(X[:2]))
    return int(predicted.shape[1]) if predicted.ndim == 2 else 1


def targets_by_names(estimator: Any, columns: Columns) -> int:
    """Return the same of an estimator that was fitted on some columns of a table, whichever its label is.

    Raises:
        UnreadableDataError: A column cannot be read.
        ValueError: One does not hold what the estimator takes, or the estimator refuses the rows.
    """
    inputs = inputs_of(estimator, columns, label="")
    if [tensor.name for tensor in inputs] == [MATRIX]:
        names = fitted_names(estimator) or ()
        inputs = tuple(TensorSpec(name=name, dtype="float32", shape=(-1, 1)) for name in names)
    return targets_of(estimator, frame(estimator, rows_of(columns, inputs, label="", limit=2)))


def gives_label_sets(estimator: Any) -> bool:
    """Return whether a fitted classifier gives a row any number of several labels."""
    last = final(getattr(estimator, "best_estimator_", estimator))
    binarizer = getattr(last, "_label_binarizer", None)
    kind = str(getattr(binarizer, "y_type_", ""))
    return isinstance(getattr(last, "classes_", None), list) or kind.startswith("multilabel") or _is_split(last)


def _is_split(last: Any) -> bool:
    """Return whether there is a classifier for each label (OneVsRestClassifier, ClassifierChain)."""
    return bool(getattr(last, "multilabel_", False)) or hasattr(last, "order_")


def one_output(model: onnx.ModelProto, *, targets: int, name: str) -> None:
    """Leave, in place, one output (N, targets), called `name`: predicted numbers, or the probability of each label."""
    last = model.graph.output[-1]
    probabilities = len(model.graph.output) > 1
    made = f"{last.name}_made"
    if probabilities and (last.type.HasField("sequence_type") or len(last.type.tensor_type.shape.dim) == 3):
        nodes = of_lists(model, last, made)
    else:
        shape = numpy_helper.from_array(np.asarray([-1, targets], dtype=np.int64), "targets_shape")
        model.graph.initializer.append(shape)
        nodes = [helper.make_node("Reshape", [last.name, shape.name], [made])]
    model.graph.node.extend([*nodes, helper.make_node("Cast", [made], [name], to=TensorProto.FLOAT)])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, targets]))


def of_lists(model: onnx.ModelProto, last: onnx.ValueInfoProto, made: str) -> list[onnx.NodeProto]:
    """Return nodes that take the second of two classes from probabilities (targets, N, classes)."""
    second = numpy_helper.from_array(np.asarray(1, dtype=np.int64), "second_class")
    model.graph.initializer.append(second)
    stacked, nodes = last.name, []
    if last.type.HasField("sequence_type"):
        stacked = f"{last.name}_stacked"
        nodes.append(helper.make_node("ConcatFromSequence", [last.name], [stacked], axis=0, new_axis=1))
    chosen = f"{last.name}_chosen"
    return [
        *nodes,
        helper.make_node("Gather", [stacked, second.name], [chosen], axis=2),
        helper.make_node("Transpose", [chosen], [made], perm=[1, 0]),
    ]
